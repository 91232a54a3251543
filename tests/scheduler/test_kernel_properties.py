"""Random lives of many programs: the books balance, nothing waits for ever, and a replay gives the same effects."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import DEFAULT_PRIORITY, BlockHash, Elsewhere, Group, Groups, Ledger, PageId
from sostenuto.kvstore.quota import TENANT_SHARE
from sostenuto.kvstore.record import links
from sostenuto.scheduler import (
    DEVICE,
    POLICIES,
    Answered,
    Arrived,
    Cancelled,
    CancelMove,
    Closed,
    Effect,
    Event,
    Finished,
    Hinted,
    Interrupted,
    Kernel,
    Lost,
    Move,
    Moved,
    NeedRoom,
    Paused,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Start,
    Stepped,
    Stop,
    Tick,
    TurnId,
    named,
)
from sostenuto.scheduler.policies.worth import LONGEST_S
from sostenuto.tests.scheduler.stage import PAGE, ROOT, Stage

moves = st.lists(
    st.tuples(
        st.sampled_from(
            ["arrive", "step", "pause", "finish", "cancel", "close", "wait", "person", "moved", "lost", "hint"]
        ),
        st.integers(0, 5),
        st.integers(1, 30),
    ),
    max_size=60,
)


DOWN = ("host", "disk")
ROOMS: list[dict[str, int | None]] = [{}, {"host": 6}, {"host": 4, "disk": 9}, {"disk": None}]


WINDOWS: list[tuple[int | None, ...]] = [(None,), (None, 6), (5,), (9, 6), (None, 5, 5, 9)]
KINDS = [Groups(tuple(Group((at,), window) for at, window in enumerate(each)), stride=6) for each in WINDOWS]


@given(
    policy=st.sampled_from(sorted(POLICIES)), rooms=st.sampled_from(ROOMS), kinds=st.sampled_from(KINDS), moves=moves
)
@settings(deadline=None, max_examples=400)
def test_the_books_balance_nothing_waits_for_ever_and_the_same_events_give_the_same_effects(
    policy: str, rooms: dict[str, int | None], kinds: Groups, moves: list[tuple[str, int, int]]
) -> None:
    life = Life(policy, rooms, kinds)
    for number, (move, who, size) in enumerate(moves):
        event = life.next(number, move, who, size)
        if event is not None:
            life.tell(event)
            if isinstance(event, Stepped):
                life.tell(NeedRoom((event.progress[0].turn,)))
    life.end()
    assert life.again(policy, rooms) == life.stage.log


def test_long_lives_move_contexts_through_all_tiers_and_the_books_balance() -> None:
    """Random short lives seldom come so far: here programs pause, wait for people and come back for a longer turn."""
    fetched = spilled = cancelled = 0
    answered: Counter[str] = Counter()
    for seed in range(240):
        chance = Random(seed)
        life = Life("sostenuto", ROOMS[seed % len(ROOMS)], KINDS[seed % len(KINDS)])
        for number in range(120):
            kinds = ["arrive"] * 5 + ["step"] * 8 + ["pause"] * 5 + ["person"] * 4 + ["moved"] * 4
            kinds += ["finish", "cancel", "cancel", "close", "wait", "hint"] + ["lost"] * (number % 20 == 0)
            event = life.next(number, chance.choice(kinds), chance.randrange(6), chance.randrange(1, 30))
            if event is not None:
                life.tell(event)
                if isinstance(event, Stepped):
                    life.tell(NeedRoom((event.progress[0].turn,)))
        life.end()
        log = life.stage.log
        fetched += sum(isinstance(effect, Start) and effect.tier != DEVICE for effect in log)
        spilled += sum(
            isinstance(effect, Move) and effect.source == "host" and effect.target == "disk" for effect in log
        )
        cancelled += sum(isinstance(effect, CancelMove) for effect in log)
        answered.update(one.outcome for effect in log if isinstance(effect, Answered) for one in effect.replies)
        assert life.again("sostenuto", ROOMS[seed % len(ROOMS)]) == log
    assert min(fetched, spilled) > 10
    assert cancelled
    assert set(answered) == {"accepted", "clipped", "deferred", "rejected", "missing"}


def hints(number: int, who: int, size: int) -> str:
    """Wishes for what a program holds, and for a context told by its blocks."""
    chain = links(range(who, who + size // PAGE * PAGE + PAGE), PAGE, BlockHash(bytes.fromhex(ROOT)))
    blocks, session = {"blocks": [link.name.hex() for link in chain]}, {"session": f"p{who}"}
    wishes = [
        ("Prefetch", {"target": blocks}),
        ("Demote", {"target": session, "tier": DOWN[number % 2]}),
        ("Demote", {"target": blocks} if number % 3 else {"target": blocks, "tier": DOWN[0]}),
        ("Pin", {"target": session, "seconds": size, "ranges": [{"priority": 90, "seconds": size}]}),
        ("Retain", {"target": blocks, "ranges": [{"stop": 3 * size, "priority": 80}, {"priority": 5}]}),
        ("Share", {"target": session, "width": 2}),
    ]
    actions = [
        {"action_id": str(index), "action_type": verb, "action_version": "1", "payload": payload}
        for index, (verb, payload) in enumerate(wishes)
        if (number + index) % 2
    ]
    return json.dumps({"protocol_version": "0.1", "message_id": "m", "actions": actions})


class Life:
    """What the world does to a kernel, and which turns run and are known by now."""

    def __init__(self, policy: str, rooms: dict[str, int | None], kinds: Groups) -> None:
        self.stage = Stage(policy, room=5 * len(kinds) + 3, elsewhere=Elsewhere(PAGE, rooms))
        self.stage.kernel.ledger.groups = kinds
        self.out: list[Move] = []
        self.events: list[tuple[Event, float]] = []
        self.known: set[str] = set()
        self.missing: dict[str, int] = {}

    def next(self, number: int, move: str, who: int, size: int) -> Event | None:
        """The event of a move, if it makes sense now."""
        alive = sorted(self.known)
        turn = alive[who % len(alive)] if alive else ""
        match move:
            case "arrive":
                self.known.add(f"t{number}")
                tokens = tuple(range(who, who + size))
                return Arrived(TurnId(f"t{number}"), ProgramId(f"default/p{who}"), "main", ROOT, tokens, 8)
            case "wait":
                self.stage.now += size
                return Tick()
            case "person":
                return Interrupted(ProgramId(f"default/p{who}"))
            case "moved" if self.out:
                move_out = self.out.pop(who % len(self.out))
                return Moved(move_out.id, tuple(block.name for block in move_out.blocks[:size]))
            case "lost" if self.stage.kernel.moves.elsewhere.tiers:
                tiers = self.stage.kernel.moves.elsewhere.tiers
                return Lost(tiers[who % len(tiers)])
            case "hint":
                return Hinted(number, "default", ROOT, hints(number, who, size))
            case "close":
                return Closed(ProgramId(f"default/p{who}"))
            case "cancel" if turn:
                self.forget(turn)
                return Cancelled(TurnId(turn))
            case "step" if turn in self.missing:
                computed = self.stage.kernel.ledger.groups.stretch(self.missing[turn])
                said = (7,) if computed == self.missing[turn] else ()
                self.missing[turn] += len(said) - computed
                return Stepped((Progress(TurnId(turn), computed, said),))
            case "pause" | "finish" if turn in self.missing:
                self.forget(turn)
                return Paused(TurnId(turn), ("t",)) if move == "pause" else Finished(TurnId(turn))
        return None

    def tell(self, event: Event, *, after: float = 0.0) -> None:
        effects = self.stage.tell(event, after=after)
        ledger = self.stage.kernel.ledger
        raised = sum(ledger.priority(PageId(page)) > DEFAULT_PRIORITY for page in range(ledger.room))
        assert raised <= ledger.room * TENANT_SHARE
        self.events.append((event, self.stage.now))
        for effect in effects:
            match effect:
                case Start(turn=name, reuse=reuse):
                    self.missing[name] = len(self.stage.kernel.books.turns[name].tokens) - reuse
                case Preempt(turn=name):
                    del self.missing[name]
                case Refuse(turn=name) | Stop(turn=name):
                    self.forget(name)
                case Move():
                    self.out.append(effect)
                case _:
                    pass

    def again(self, policy: str, rooms: dict[str, int | None]) -> list[Effect]:
        """The effects of the same events on another kernel."""
        ledger = self.stage.kernel.ledger
        fresh = Ledger(ledger.room, PAGE, rank=named(policy).evict)
        fresh.groups = ledger.groups
        kernel = Kernel(fresh, named(policy), elsewhere=Elsewhere(PAGE, rooms))
        return [effect for event, now in self.events for effect in kernel.handle(event, now)]

    def forget(self, name: str) -> None:
        self.known.discard(name)
        self.missing.pop(name, None)

    def end(self) -> None:
        """Everything that runs and moves ends, time passes: whoever waits must start, or be refused."""
        for _ in range(2 * len(self.known) + 1):
            self.tell(Tick(), after=1000.0)
            while self.out:
                self.tell(Moved(self.out.pop(0).id))
            for name in sorted(self.missing):
                self.forget(name)
                self.tell(Finished(TurnId(name)))
        assert self.stage.kernel.books.waiting == 0
        self.tell(Tick(), after=LONGEST_S)  # the longest hold is over
        assert self.stage.kernel.books.held == 0
        assert len(self.stage.kernel.moves) == 0
        assert list(self.stage.kernel.moves.pages) == []
        self.stage.kernel.books.check()
