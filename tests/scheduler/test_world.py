"""What policies see and may ask for: pressure, pauses and places; holds that go on, copies, second looks."""

from __future__ import annotations

import math
from dataclasses import replace
from math import inf
from typing import Any

import pytest

from sostenuto.kvstore import Elsewhere, Ledger
from sostenuto.scheduler import (
    DEVICE,
    Cancelled,
    Closed,
    Evict,
    Extend,
    Finished,
    Grow,
    Hold,
    Interrupted,
    Kernel,
    Move,
    Moved,
    NeedRoom,
    Pause,
    Paused,
    Policy,
    Preempt,
    Program,
    ProgramId,
    Release,
    Retention,
    Setting,
    Start,
    Tick,
    ToolEnded,
    ToolStarted,
    TurnId,
    Waiting,
    World,
    named,
)
from sostenuto.tests.scheduler.stage import PAGE, Stage


def under(policy: Policy, *, room: int = 8, **rest: Any) -> Stage:
    """A stage under a policy of one's own."""
    stage = Stage("forgetful")
    stage.kernel = Kernel(Ledger(room, PAGE, rank=policy.evict), policy, **rest)
    return stage


def holding(seconds: float) -> Policy:
    def hold(world: World, program: Program, pause: Pause) -> Retention:
        return Retention(seconds if pause.tools else 0.0, "held")

    return Policy("mine", retain=hold)


def test_pressure_counts_what_runs_what_waits_and_what_is_away_and_returns_to_nothing() -> None:
    stage = Stage("forgetful", room=8)
    world: World = stage.kernel.books
    stage.run("a1", range(16), program="a")
    stage.run("b1", range(100, 108), program="b")
    assert (world.pressure, world.seen, world.active) == (6 / 8, 24, 2)
    stage.pause("a1")
    assert (world.pressure, world.seen, world.acting) == (6 / 8, 8, 4.0)
    stage.tell(Tick(), after=1.0)
    assert world.acting == 2.0
    stage.arrive("c1", range(200, 228), program="c")
    assert (world.pressure, world.waiting, world.active) == (13 / 8, 1, 2)
    stage.arrive("a2", range(20), program="a")
    assert (world.pressure, world.acting) == (14 / 8, 0.0)
    for turn in ("b1", "c1", "a2"):
        stage.tell(Finished(TurnId(turn)))
    assert (world.pressure, world.seen, world.active, world.holding) == (0, 0, 0, 0)


def test_a_pause_is_learnt_by_tool_and_shape_when_its_program_comes_back() -> None:
    stage = Stage()
    world: World = stage.kernel.books
    for number in range(20):
        stage.run(f"t{number}", range(8), program="a")
        stage.tell(Paused(TurnId(f"t{number}"), ("bash",), "make"), after=1.0)
        stage.tell(Tick(), after=9.0)
    assert world.forecasts.of(["bash"]).count == 19
    assert 8 < world.forecasts.of(["bash"], "make").curve.quantile(0.5) < 10
    assert (world.meters.reason.value, world.meters.away.value) == (1.0, 9.0)
    assert world.meters.ratio(world.room) == pytest.approx(8 / 2 * 0.1)


def test_a_program_that_is_away_keeps_its_place_though_nothing_is_held_for_it() -> None:
    """Behaviour 30 of the peers' list: program-level order over a pause."""
    stage = Stage("forgetful")
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    assert ProgramId("a") not in stage.kernel.books.programs
    stage.run("b1", range(100, 108), program="b")
    stage.arrive("a2", range(10), program="a")
    a, b = (stage.kernel.books.programs[ProgramId(name)] for name in "ab")
    assert a.number < b.number
    assert (a.turns, a.arrived) == (2, 0.0)


@pytest.mark.parametrize("end", [Closed(ProgramId("a")), Interrupted(ProgramId("a"))])
def test_one_that_is_over_or_waits_for_a_person_does_not(end: Closed | Interrupted) -> None:
    stage = Stage("forgetful")
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    stage.tell(end)
    assert stage.kernel.books.pressure == 0
    stage.run("b1", range(100, 108), program="b")
    stage.arrive("a2", range(10), program="a")
    programs = stage.kernel.books.programs
    assert programs[ProgramId("a")].number > programs[ProgramId("b")].number


def test_programs_that_never_come_back_are_forgotten_after_an_hour() -> None:
    stage = Stage("forgetful", room=64)
    for number in range(10):
        stage.run(f"t{number}", range(8), program=f"p{number}")
        stage.pause(f"t{number}")
    assert stage.kernel.books.active == 10
    stage.tell(Tick(), after=3601.0)
    stage.run("last", range(8))
    stage.pause("last")
    assert (stage.kernel.books.active, stage.kernel.books.pressure) == (1, 2 / 64)


def test_calls_that_are_out_are_counted_once_each() -> None:
    stage = Stage(setting=Setting(workers=3))
    world: World = stage.kernel.books
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    for call in ("1", "2", "2"):
        stage.tell(ToolStarted(ProgramId("a"), "search", call))
    assert (world.calls, world.workers) == (2, 3)
    stage.tell(ToolEnded(ProgramId("a"), "search", "2"))
    stage.tell(ToolEnded(ProgramId("a"), "search", "unknown"))
    assert world.calls == 1
    stage.tell(Closed(ProgramId("a")))
    assert world.calls == 0


def test_a_hold_whose_time_is_over_goes_on_as_long_as_its_policy_wants() -> None:
    def more(world: World, program: Program, pause: Pause) -> Retention:
        return Retention(5.0 if world.now - pause.since < 15 else 0.0, "still away")

    stage = under(replace(holding(10.0), renew=more))
    stage.run("a1", range(8), program="a")
    (hold, _) = stage.pause("a1")
    assert isinstance(hold, Hold)
    (extended, _) = stage.tell(Tick(), after=10.0)
    assert extended == Extend(ProgramId("a"), "main", 15.0, "still away")
    assert stage.kernel.soonest == 15.0
    assert stage.kernel.books.held == 2
    (over,) = stage.tell(Tick(), after=5.0)
    assert isinstance(over, Release)
    assert over.how == "expired"
    assert stage.kernel.soonest is None


def test_a_hold_ends_after_an_hour_whatever_its_policy_says() -> None:
    stage = under(holding(math.inf))
    stage.run("a1", range(8), program="a")
    (hold, _) = stage.pause("a1")
    assert isinstance(hold, Hold)
    assert hold.until == 3600.0


def test_a_hold_that_is_renewed_without_end_ends_after_that_hour_too() -> None:
    def longer(world: World, program: Program, pause: Pause) -> Retention:
        return Retention(1000.0, "still away")

    stage = under(replace(holding(1000.0), renew=longer))
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    ends = [one for _ in range(4) for one in stage.tell(Tick(), after=1000.0) if isinstance(one, Extend | Release)]
    assert [one.until for one in ends if isinstance(one, Extend)] == [2000.0, 3000.0, 3600.0]
    assert [one.how for one in ends if isinstance(one, Release)] == ["expired"]


def test_a_hold_that_is_to_go_on_for_less_than_the_clock_can_tell_is_over() -> None:
    def hardly(world: World, program: Program, pause: Pause) -> Retention:
        return Retention(1e-13, "still away")

    stage = under(replace(holding(10.0), renew=hardly))
    stage.now = 16_000.0
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    (over,) = stage.tell(Tick(), after=10.0)
    assert isinstance(over, Release)
    assert over.how == "expired"


def test_what_gave_way_is_fetched_before_it_is_expected_and_found_on_the_device() -> None:
    def ahead(world: World, program: Program, pause: Pause) -> float:
        return 20.0

    def copied(world: World, program: Program, pause: Pause) -> Retention:
        return Retention(0.0, "copied", ("host",))

    stage = under(Policy("mine", retain=copied, prefetch=ahead), room=6, elsewhere=Elsewhere(PAGE, {"host": None}))
    stage.run("a1", range(16), program="a")
    copies = [effect for effect in stage.pause("a1") if isinstance(effect, Move)]
    stage.tell(Moved(copies[0].id, tuple(block.name for block in copies[0].blocks)))
    stage.run("b1", range(100, 122), program="b")
    stage.tell(Finished(TurnId("b1")))
    assert stage.kernel.soonest == 20.0
    (fetch,) = stage.tell(Tick(), after=20.0)
    assert isinstance(fetch, Move)
    assert (fetch.target, fetch.turn) == (DEVICE, None)
    stage.tell(Moved(fetch.id, tuple(block.name for block in fetch.blocks)))
    again = stage.run("a2", range(18), program="a")
    assert (again.reuse, again.tier) == (16, DEVICE)


def test_the_last_tool_that_comes_back_fetches_at_once() -> None:
    policy = Policy("mine", retain=lambda world, program, pause: Retention(0.0, "copied", ("host",)))
    stage = under(policy, room=6, elsewhere=Elsewhere(PAGE, {"host": None}))
    stage.run("a1", range(16), program="a")
    (copy,) = stage.pause("a1")
    assert isinstance(copy, Move)
    stage.tell(Moved(copy.id, tuple(block.name for block in copy.blocks)))
    for call in "12":
        stage.tell(ToolStarted(ProgramId("a"), "search", call))
    stage.run("b1", range(100, 122), program="b")
    stage.tell(Finished(TurnId("b1")))
    assert stage.tell(ToolEnded(ProgramId("a"), "search", "1")) == []
    fetched = [effect for effect in stage.tell(ToolEnded(ProgramId("a"), "search", "2")) if isinstance(effect, Move)]
    assert [move.target for move in fetched] == [DEVICE]


def test_what_leaves_the_batch_is_copied_where_its_policy_says_so_and_fetched_back() -> None:
    policy = Policy("mine", swap=lambda world, tokens: ("host",))
    stage = under(policy, room=7, elsewhere=Elsewhere(PAGE, {"host": None}))
    stage.run("a1", range(8), program="a")
    stage.run("b1", range(100, 116), program="b")
    stage.compute("a1", 0, *range(50, 58))
    told = stage.tell(NeedRoom((TurnId("a1"),)))
    (copy,) = [effect for effect in told if isinstance(effect, Move)]
    assert [effect.turn for effect in told if isinstance(effect, Preempt)] == ["b1"]
    assert [effect.turn for effect in told if isinstance(effect, Grow)] == ["a1"]
    assert [(copy.target, len(copy.blocks))] == [("host", 3)], "the page that is needed now is not copied"
    stage.compute("a1", 8, *range(60, 68))
    stage.tell(Moved(copy.id, tuple(block.name for block in copy.blocks)))
    assert [type(effect) for effect in stage.tell(NeedRoom((TurnId("a1"),)))] == [Grow, Evict]
    (fetch,) = [one for one in stage.tell(Finished(TurnId("a1"))) if isinstance(one, Move)]
    assert (fetch.source, fetch.turn) == ("host", "b1")
    start, *_ = stage.tell(Moved(fetch.id, tuple(block.name for block in fetch.blocks)))
    assert isinstance(start, Start)
    assert (start.reuse, start.why) == (12, "again after preemption, fetched from host")


def test_a_place_is_looked_at_anew_when_its_policy_wants_that() -> None:
    def old_first(world: World, turn: Waiting) -> tuple[float, ...]:
        return (0.0 if world.now - turn.arrived >= 30 else 1.0, -turn.number)

    def then(world: World, turn: Waiting) -> float:
        return turn.arrived + 30

    stage = under(Policy("mine", order=old_first, again=then), room=4)
    stage.run("busy", range(12))
    stage.arrive("first", range(100, 108))
    stage.arrive("second", range(200, 208))
    assert stage.kernel.soonest == 30.0
    stage.now = 29.0
    stage.arrive("third", range(300, 308))
    stage.tell(Tick(), after=2.0)
    stage.tell(Finished(TurnId("busy")))
    order: list[str] = []
    while len(order) < 3:
        order.append(stage.starts()[-1])
        stage.tell(Cancelled(TurnId(order[-1])))
    assert order == ["second", "first", "third"]


def test_a_policy_that_admits_nobody_cannot_stop_the_world() -> None:
    stage = under(replace(holding(10.0), admit=lambda world, turn, pages: False))
    stage.run("a1", range(8), program="a")
    stage.arrive("b1", range(100, 108))
    assert stage.starts() == ["a1"]
    stage.pause("a1")
    assert stage.starts() == ["a1"]
    stage.tell(Tick(), after=10.0)
    assert stage.starts() == ["a1", "b1"]


def test_a_window_is_the_kernels_and_moves_as_its_policy_says_every_five_seconds() -> None:
    stage = under(Policy("mine", window=lambda world, window: 1.0 if window == inf else window + 1))
    world: World = stage.kernel.books
    seen = []
    for _ in range(4):
        stage.tell(Tick(), after=3.0)
        seen.append(world.window)
    assert seen == [1.0, 1.0, 2.0, 2.0]


def test_a_tenant_that_was_served_more_than_its_share_is_ahead_and_one_alone_never_is() -> None:
    stage = Stage("forgetful", room=64, setting=Setting(shares={"big": 4.0}))
    world: World = stage.kernel.books
    stage.run("s1", range(8), program="small/a")
    stage.tell(Finished(TurnId("s1")), after=8.0)
    assert world.lead("small") == 0.0
    stage.run("b1", range(8), program="big/a")
    stage.run("s2", range(8), program="small/b")
    stage.tell(Finished(TurnId("b1")), after=8.0)
    stage.tell(Finished(TurnId("s2")))
    assert world.lead("small") == 8.0
    assert world.lead("big") < world.lead("small")


def test_a_setting_is_read_as_it_was_written() -> None:
    setting = Setting(workers=4, shares={"a": 2.0}, hold_budget=0.5)
    setting.forecasts.observe("bash", 3.0)
    assert Setting.read(setting.data()).data() == setting.data()
    assert named("sostenuto").name == "sostenuto"


def test_a_result_that_comes_while_its_context_is_being_copied_away_is_served_once() -> None:
    """Behaviour 31: on the way out."""
    policy = Policy("mine", retain=lambda world, program, pause: Retention(0.0, "copied", ("host",)))
    stage = under(policy, room=8, elsewhere=Elsewhere(PAGE, {"host": None}))
    stage.run("a1", range(16), program="a")
    (copy,) = stage.pause("a1")
    assert isinstance(copy, Move)
    again = stage.run("a2", range(18), program="a")
    assert again.reuse == 16
    assert stage.tell(Moved(copy.id, tuple(block.name for block in copy.blocks))) == []
    stage.tell(Finished(TurnId("a2")))
    assert stage.starts() == ["a1", "a2"]
    assert list(stage.kernel.moves.pages) == []


def test_a_result_that_comes_while_its_context_is_being_fetched_ahead_is_served_once() -> None:
    """Behaviour 31: on the way back. The turn takes what has come, whenever the move ends."""
    policy = Policy(
        "mine",
        retain=lambda world, program, pause: Retention(0.0, "copied", ("host",)),
        prefetch=lambda world, program, pause: 5.0,
    )
    stage = under(policy, room=12, elsewhere=Elsewhere(PAGE, {"host": None}))
    stage.run("a1", range(16), program="a")
    (copy,) = [effect for effect in stage.pause("a1") if isinstance(effect, Move)]
    stage.tell(Moved(copy.id, tuple(block.name for block in copy.blocks)))
    stage.run("b1", range(100, 146), program="b")
    stage.tell(Finished(TurnId("b1")))
    (ahead,) = stage.tell(Tick(), after=5.0)
    assert isinstance(ahead, Move)
    stage.arrive("a2", range(18), program="a")
    for move in [ahead, *(one for one in stage.log if isinstance(one, Move) and one.turn == "a2")]:
        stage.tell(Moved(move.id, tuple(block.name for block in move.blocks)))
    assert stage.starts() == ["a1", "b1", "a2"]
    stage.tell(Finished(TurnId("a2")))
    assert list(stage.kernel.moves.pages) == []
    assert stage.kernel.books.pressure == 0


def test_a_segment_longer_than_a_step_keeps_what_is_missing_above_nothing() -> None:
    """Behaviour 32: a resumed turn is computed in pieces, and its books never count below zero."""
    stage = under(holding(60.0), room=16)
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    stage.arrive("a2", range(40), program="a")
    turn = stage.kernel.books.turns[TurnId("a2")]
    left = []
    for piece in (7, 7, 7, 7, 4):
        stage.compute("a2", piece)
        left.append(turn.missing)
    assert left == [25, 18, 11, 4, 0]
    stage.compute("a2", 0, 5)
    assert (turn.missing, stage.kernel.books.seen) == (1, 41)
