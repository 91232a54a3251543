"""What every policy keeps in random worlds: pure and total, no hold without end, nobody starves, full pools go on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from random import Random
from typing import Any

import pytest

from sostenuto.kvstore import Elsewhere
from sostenuto.scheduler import (
    POLICIES,
    Arrived,
    Closed,
    Finished,
    Future,
    Hold,
    Move,
    Moved,
    NeedRoom,
    Paused,
    Policy,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Setting,
    Start,
    Stepped,
    Stop,
    Tick,
    ToolEnded,
    ToolStarted,
    TurnId,
    oracle,
)
from sostenuto.scheduler.policies.sostenuto import STARVED_S
from sostenuto.scheduler.policies.worth import LONGEST_S
from sostenuto.tests.scheduler.stage import PAGE, ROOT, Stage

EVERY = [*POLICIES.values(), oracle(Future())]
LONGEST_TURN_S = 50.0


def checked(policy: Policy) -> tuple[Policy, list[str]]:
    """The policy, each of whose functions is asked twice; and the names of those that were asked."""
    asked: list[str] = []

    def twice(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def ask(world: Any, *rest: Any) -> Any:
            before = (repr(world), [repr(each) for each in rest])
            first, second = function(world, *rest), function(world, *rest)
            assert first == second, f"{name} of {policy.name} is not pure"
            assert (repr(world), [repr(each) for each in rest]) == before, f"{name} of {policy.name} changes its world"
            asked.append(name)
            return first

        return ask

    names = [field.name for field in fields(Policy) if field.name not in ("name", "evict")]
    functions: dict[str, Any] = {name: twice(name, getattr(policy, name)) for name in names}
    return replace(policy, **functions), asked


class Crowd:
    """Programs that come, run, call tools for random times, come back, and end; in a pool too small for all."""

    def __init__(self, policy: Policy, seed: int) -> None:
        self.chance = Random(seed)
        self.stage = Stage(policy, room=14, elsewhere=Elsewhere(PAGE, {"host": 40}))
        self.running: dict[str, int] = {}
        self.begun: dict[str, float] = {}
        self.waiting: dict[str, float] = {}
        self.waits: list[float] = []
        self.contexts: dict[str, list[int]] = {}
        self.out: list[tuple[float, str]] = []
        self.moves: list[Move] = []
        self.count = 0

    def tell(self, event: Any, *, after: float = 0.0) -> None:
        for effect in self.stage.tell(event, after=after):
            match effect:
                case Start(turn=name, reuse=reuse):
                    self.waits.append(self.stage.now - self.waiting.pop(name))
                    self.running[name] = len(self.stage.kernel.books.turns[name].tokens) - reuse
                    self.begun.setdefault(name, self.stage.now)
                case Preempt(turn=name):
                    del self.running[name]
                    self.waiting[name] = self.stage.now
                case Refuse(turn=name) | Stop(turn=name):
                    self.running.pop(name, None)
                    self.waiting.pop(name, None)
                case Move():
                    self.moves.append(effect)
                case Hold(until=until):
                    assert self.stage.now < until <= self.stage.now + LONGEST_S + 1
                case _:
                    pass

    def arrive(self, program: str) -> None:
        context = self.contexts.setdefault(program, [self.chance.randrange(10**6) for _ in range(6)])
        context += [self.chance.randrange(10**6) for _ in range(self.chance.randrange(1, 5))]
        self.count += 1
        name = f"{program}.{self.count}"
        self.waiting[name] = self.stage.now
        self.tell(Arrived(TurnId(name), ProgramId(f"default/{program}"), "main", ROOT, tuple(context), 8))

    def step(self, name: str) -> None:
        """Compute what is missing, say a token, then call a tool or end."""
        missing, self.running[name] = self.running[name], 1
        self.tell(Stepped((Progress(TurnId(name), missing, (7,)),)))
        if name in self.running:
            self.tell(NeedRoom((TurnId(name),)))

    def end(self, name: str) -> None:
        program = name.split(".")[0]
        del self.running[name]
        full = ProgramId(f"default/{program}")
        if self.chance.random() < 0.7 and len(self.contexts[program]) < 40:
            self.tell(Paused(TurnId(name), ("bash",)))
            self.tell(ToolStarted(full, "bash", name))
            self.out.append((self.stage.now + self.chance.lognormvariate(1.0, 1.5), program))
            return
        self.tell(Finished(TurnId(name)))
        self.tell(Closed(full))
        del self.contexts[program]

    def move(self, number: int, newcomers: float) -> None:
        self.tell(Tick(), after=self.chance.uniform(0.0, 1.0))
        while self.moves:
            move = self.moves.pop(0)
            self.tell(Moved(move.id, tuple(block.name for block in move.blocks)))
        due = [one for one in self.out if one[0] <= self.stage.now]
        for one in due:
            self.out.remove(one)
            full = ProgramId(f"default/{one[1]}")
            for call in list(self.stage.kernel.books.program(full).tools):
                self.tell(ToolEnded(full, "bash", call))
            self.arrive(one[1])
        if self.chance.random() < newcomers:
            self.arrive(f"p{number}")
        for name in list(self.running):
            if name not in self.running:
                continue
            if self.stage.now - self.begun[name] > LONGEST_TURN_S or self.chance.random() < 0.2:
                self.end(name)
            else:
                self.step(name)


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_policies_are_pure_total_and_hold_nothing_for_ever(policy: Policy) -> None:
    asked: set[str] = set()
    for seed in range(2):
        asking, names = checked(policy)
        crowd = Crowd(asking, seed)
        for number in range(60):
            crowd.move(number, 0.6)
        asked.update(names)
        while crowd.running or crowd.waiting or crowd.out:
            crowd.move(10**6, 0.0)
        crowd.tell(Tick(), after=LONGEST_S + 1)
        books = crowd.stage.kernel.books
        assert (books.held, books.waiting, books.running, books.active) == (0, 0, 0, 0)
        assert (books.pressure, books.committed, books.seen, books.calls) == (0, 0, 0, 0)
    assert {"order", "retain", "again", "window"} <= asked


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_a_pool_that_is_all_held_goes_on_or_refuses(policy: Policy) -> None:
    """Behaviour 21: never a stall."""
    stage = Stage(policy, room=8)
    for number in range(3):
        stage.run(f"a{number}", range(100 * number, 100 * number + 8), program=f"default/a{number}")
        stage.pause(f"a{number}")
    stage.arrive("large", range(1000, 1030), program="default/new")
    stage.arrive("never", range(2000, 2040), program="default/newer")
    for _ in range(int(LONGEST_S // 30) + 2):
        if "large" in stage.starts():
            break
        stage.tell(Tick(), after=30.0)
    assert "large" in stage.starts()
    assert [effect.turn for effect in stage.log if isinstance(effect, Refuse)] == ["never"]


def test_under_sostenuto_nobody_waits_longer_than_its_bound() -> None:
    """Behaviours 29 and 30. Whoever has waited for STARVED_S goes before all that came after it and takes what is held;
    what runs before it ends within LONGEST_TURN_S, and so does each of the few that starved before it."""
    bound = STARVED_S + 4 * LONGEST_TURN_S
    for seed in range(3):
        crowd = Crowd(POLICIES["sostenuto"], seed)
        for number in range(800):
            crowd.move(number, 0.06)
            assert not crowd.waiting or crowd.stage.now - min(crowd.waiting.values()) < bound
        assert len(crowd.waits) > 100


@pytest.mark.parametrize("policy", EVERY, ids=lambda policy: policy.name)
def test_ties_go_to_who_came_first(policy: Policy) -> None:
    """Behaviour 29: equal in everything but their arrival."""
    stage = Stage(policy, room=8)
    stage.run("busy", range(24), program="default/busy")
    for number in range(3):
        stage.arrive(f"w{number}", range(100 + 50 * number, 110 + 50 * number), program=f"default/w{number}")
    stage.tell(Finished(TurnId("busy")))
    for _ in range(3):
        stage.tell(Finished(TurnId(stage.starts()[-1])))
    assert stage.starts() == ["busy", "w0", "w1", "w2"]


def test_a_tenant_with_twice_the_share_is_served_twice_as_much_while_both_want_all() -> None:
    stage = Stage("sostenuto", room=4, setting=Setting(shares={"big": 2.0}))
    names = {name: [f"{name}/{number}" for number in range(40)] for name in ("big", "small")}
    for number in range(40):
        for name in names:
            stage.arrive(names[name][number], [hash((name, number)) % 10**6] * 9, program=names[name][number])
    served = []
    for _ in range(45):
        served.append(stage.starts()[-1])
        stage.compute(served[-1], 9, 7)
        stage.tell(Finished(TurnId(served[-1])), after=10.0)
    big = sum(name.startswith("big") for name in served)
    assert big >= 27, "of 45 about 30"
