"""The kernel: what starts, what is held, what gives way, and that nothing waits for ever."""

from __future__ import annotations

import pytest

from sostenuto.kvstore import Group, Groups, Ledger, root
from sostenuto.scheduler import (
    POLICIES,
    Arrived,
    Cancelled,
    Closed,
    Effect,
    Evict,
    Finished,
    Forking,
    Grow,
    Hold,
    Interrupted,
    Kernel,
    NeedRoom,
    Paused,
    Policy,
    Preempt,
    Program,
    ProgramId,
    Progress,
    Refuse,
    Release,
    Retention,
    ScheduleError,
    Setting,
    Start,
    Stepped,
    Stop,
    Tick,
    ToolEnded,
    ToolStarted,
    Travelled,
    TurnId,
    UnknownTurn,
    Waiting,
    Wake,
    World,
    named,
)
from sostenuto.tests.scheduler.stage import PAGE, ROOT, Stage


def of(kind: type[Effect], effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if isinstance(effect, kind)]


def test_a_held_context_computes_only_new_tokens_though_rivals_filled_the_pool() -> None:
    stage = Stage()
    stage.run("a1", range(8), program="a")
    held = stage.pause("a1")
    assert [type(effect) for effect in held] == [Hold, Wake]
    for rival in range(100, 300, 50):
        stage.run(f"b{rival}", range(rival, rival + 16))
        stage.tell(Finished(TurnId(f"b{rival}")))
    again = stage.run("a2", range(10), program="a")
    assert (again.reuse, again.why) == (8, "held")


def test_a_forgetful_policy_computes_it_again() -> None:
    stage = Stage("forgetful")
    stage.run("a1", range(8), program="a")
    assert stage.pause("a1") == []
    for rival in range(100, 300, 50):
        stage.run(f"b{rival}", range(rival, rival + 16))
        stage.tell(Finished(TurnId(f"b{rival}")))
    assert stage.run("a2", range(10), program="a").reuse == 0


def test_where_everything_fits_both_policies_reuse_the_same() -> None:
    reuse = []
    for policy in POLICIES:
        stage = Stage(policy, room=64)
        stage.run("a1", range(8), program="a")
        stage.pause("a1")
        stage.run("b1", range(100, 120), program="b")
        stage.tell(Finished(TurnId("b1")))
        reuse.append(stage.run("a2", range(10), program="a").reuse)
    assert reuse == [8] * len(POLICIES)


def test_every_hold_ends_and_its_context_stays_findable() -> None:
    stage = Stage()
    stage.run("a1", range(8), program="a")
    hold, wake = stage.pause("a1")
    assert isinstance(hold, Hold)
    assert isinstance(wake, Wake)
    assert hold.until == wake.at
    (release,) = stage.tell(Tick(), after=wake.at)
    assert release == Release(ProgramId("a"), "main", 8, "its time is over", "expired")
    assert stage.kernel.ledger.held == 0
    again = stage.run("a2", range(10), program="a")
    assert (again.reuse, again.why) == (8, "cached")


def test_closing_releases_at_once_and_what_was_closed_goes_first() -> None:
    stage = Stage()
    stage.run("old", range(8), program="old")
    stage.tell(Finished(TurnId("old")))
    stage.run("a1", range(50, 58), program="a")
    stage.pause("a1")
    assert of(Release, stage.tell(Closed(ProgramId("a"), "failed"))) == [
        Release(ProgramId("a"), "main", 8, "its program failed", "closed")
    ]
    stage.run("b", range(100, 118), program="b")  # takes the four free pages and one more
    known = stage.kernel.ledger.match(root(model="m"), list(range(8))).tokens(PAGE)
    gone = stage.kernel.ledger.match(root(model="m"), list(range(50, 58))).tokens(PAGE)
    assert (known, gone) == (8, 4)


def test_closing_a_program_ends_its_waiting_and_running_turns() -> None:
    stage = Stage()
    stage.arrive("a1", range(8), program="a")
    stage.arrive("a2", range(50, 80), program="a", branch="other")
    refused = of(Refuse, stage.tell(Closed(ProgramId("a"), "cancelled")))
    assert sorted(effect.turn for effect in refused if isinstance(effect, Refuse)) == ["a1", "a2"]
    assert stage.kernel.books.available == 8


def test_a_new_turn_supersedes_only_what_it_extends_or_replaces() -> None:
    stage = Stage(room=16)
    stage.run("a1", range(8), program="a", branch="one")
    stage.pause("a1")
    stage.run("a2", range(50, 58), program="a", branch="two")
    stage.pause("a2")
    assert stage.kernel.books.held == 4
    stage.run("a3", [*range(8), 9], program="a", branch="three")  # extends one's context, under another name
    assert [(r.branch, r.why) for r in stage.log if isinstance(r, Release)] == [("one", "extended by the next turn")]
    stage.run("a4", range(90, 94), program="a", branch="two")  # shares nothing, and is the same branch
    assert [(r.branch, r.why) for r in stage.log if isinstance(r, Release)][1:] == [
        ("two", "replaced by another turn of its branch")
    ]
    assert stage.kernel.books.held == 0


def test_siblings_that_were_announced_share_what_is_held() -> None:
    stage = Stage(room=16)
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    stage.tell(Forking(ProgramId("a"), 3))
    reused = [stage.run(f"s{n}", [*range(8), 100 + n], program="a", branch=f"s#{n}").reuse for n in range(3)]
    assert reused == [8, 8, 8]
    assert stage.kernel.books.held == 0


def test_turns_that_come_together_compute_their_common_prefix_once() -> None:
    stage = Stage(room=32)
    stage.arrive("a", [*range(20), 100])
    assert stage.arrive("b", [*range(20), 200]) == []
    stage.arrive("c", [*range(50, 60)])
    assert stage.compute("a", 8) == []
    started = stage.compute("a", 13)
    assert [(start.turn, start.reuse) for start in started if isinstance(start, Start)] == [("b", 20), ("c", 0)]


def test_a_turn_does_not_wait_for_less_than_a_page() -> None:
    stage = Stage(room=32)
    stage.arrive("a", [1, 2, 3, 4, *range(10, 20)])
    assert [type(effect) for effect in stage.arrive("b", [1, 2, 3, 4, *range(30, 40)])] == [Start]


def test_a_program_that_waits_for_a_person_holds_nothing() -> None:
    stage = Stage()
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    (release,) = stage.tell(Interrupted(ProgramId("a")))
    assert isinstance(release, Release)
    assert release.why == "waits for a person"


def test_going_back_in_time_gives_up_the_abandoned_future() -> None:
    stage = Stage()
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    (release,) = stage.tell(Travelled(ProgramId("a"), "c1"))
    assert isinstance(release, Release)
    assert release.why == "set back to c1"


def test_programs_keep_their_place_over_all_their_turns() -> None:
    stage = Stage(room=4)
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    stage.arrive("b1", range(100, 113), program="b")  # does not fit beside what a holds
    assert "b1" not in stage.starts()
    stage.run("a2", range(9), program="a")
    stage.tell(Finished(TurnId("a2")))
    assert stage.starts() == ["a1", "a2", "b1"]


def test_an_older_program_takes_the_room_that_a_younger_one_holds() -> None:
    stage = Stage(room=6)
    stage.run("a1", range(4), program="a")
    stage.pause("a1")
    stage.run("b1", range(100, 108), program="b")
    stage.pause("b1")
    start = stage.run("a2", range(20), program="a")
    assert start.reuse == 4
    assert next(release.why for release in stage.log if isinstance(release, Release)) == "room for a"


def test_all_pages_held_and_a_new_turn_is_progress_in_bounded_time() -> None:
    stage = Stage(room=4)
    stage.run("a1", range(12), program="a")
    (hold, _) = stage.pause("a1")
    assert isinstance(hold, Hold)
    assert stage.arrive("b1", range(100, 110), program="b") == []
    assert "b1" in [start.turn for start in stage.tell(Tick(), after=hold.until) if isinstance(start, Start)]


def test_a_hold_is_clipped_to_the_budget_and_says_so() -> None:
    ledger = Ledger(8, PAGE)
    kernel = Kernel(ledger, named("sostenuto"), setting=Setting(hold_budget=0.25))
    kernel.handle(Arrived(TurnId("a"), ProgramId("a"), "main", ROOT, tuple(range(16)), 4), 0.0)
    kernel.handle(Stepped((Progress(TurnId("a"), 16),)), 0.0)
    hold = kernel.handle(Paused(TurnId("a"), ("t",)), 0.0)[0]
    assert isinstance(hold, Hold)
    assert (hold.pages, hold.asked, hold.tokens) == (2, 4, 8)
    assert "clipped" in hold.why


@pytest.mark.parametrize("tokens", [0, 32, 40])
def test_what_can_never_run_is_refused_at_the_door(tokens: int) -> None:
    stage = Stage(room=8)
    (refused,) = stage.arrive("a", range(tokens))
    assert isinstance(refused, Refuse)
    assert str(tokens) in refused.why or "no tokens" in refused.why
    assert stage.kernel.books.waiting == 0


@pytest.mark.parametrize(("room", "starts"), [(13, ["a"]), (14, ["a", "b"])])
def test_a_new_program_starts_where_it_may_grow_in_every_group_of_layers(room: int, starts: list[str]) -> None:
    stage = Stage(room=room)
    stage.kernel.ledger.groups = Groups((Group((0,)), Group((1,), 1000)))
    stage.run("a", range(4))
    stage.arrive("b", range(100, 116))  # eight pages, and four more when it has grown by half
    assert stage.starts() == starts


def test_a_turn_that_grows_to_the_bound_is_stopped_there() -> None:
    stage = Stage(room=2)
    stage.run("a", range(7))
    stage.compute("a", 0, 7)
    assert stage.tell(NeedRoom((TurnId("a"),))) == []
    stage.compute("a", 1, 8)
    (stop,) = stage.tell(NeedRoom((TurnId("a"),)))
    assert isinstance(stop, Stop)
    assert stage.kernel.books.available == 2


def test_growth_takes_from_the_cache_then_preempts_the_latest_program() -> None:
    stage = Stage(room=5)
    stage.run("a", range(4))
    stage.run("b", range(100, 104))
    stage.compute("a", 0, 5)
    (grow,) = stage.tell(NeedRoom((TurnId("a"),)))
    assert isinstance(grow, Grow)
    stage.compute("a", 1, 6, 7, 8, 9)
    stage.compute("b", 0, 1)
    stage.tell(NeedRoom((TurnId("b"),)))
    stage.compute("a", 3, 10)
    effects = stage.tell(NeedRoom((TurnId("a"),)))
    assert [type(effect) for effect in effects] == [Grow] or Preempt in [type(effect) for effect in effects]
    stage.compute("a", 1, *range(20, 33))
    effects = stage.tell(NeedRoom((TurnId("a"),)))
    assert [effect.turn for effect in [*stage.log] if isinstance(effect, Preempt)] == ["b"]
    stage.tell(Finished(TurnId("a")))
    assert stage.starts()[-1] == "b"


def test_late_completions_of_cancelled_turns_are_dropped() -> None:
    stage = Stage()
    stage.arrive("a", range(8))
    stage.tell(Cancelled(TurnId("a")))
    assert stage.compute("a", 8, 1) == []
    assert stage.kernel.books.available == 8
    assert stage.kernel.ledger.free == 8


def test_a_turn_id_serves_once() -> None:
    stage = Stage()
    stage.arrive("a", range(4))
    with pytest.raises(UnknownTurn, match="a has arrived"):
        stage.arrive("a", range(4))
    assert issubclass(UnknownTurn, ScheduleError)


def test_tools_that_are_out_keep_a_program_in_the_books_until_it_closes() -> None:
    stage = Stage()
    stage.run("a1", range(8), program="a")
    stage.pause("a1")
    stage.tell(ToolStarted(ProgramId("a"), "search", "c1"))
    stage.tell(Tick(), after=1000.0)
    program = stage.kernel.books.programs[ProgramId("a")]
    assert isinstance(program, Program)
    assert list(program.tools) == ["c1"]
    stage.tell(ToolEnded(ProgramId("a"), "search", "c1"))
    stage.tell(Closed(ProgramId("a")))
    assert not stage.kernel.books.programs


def test_a_policy_is_a_value_made_of_functions() -> None:
    def longest_first(world: World, turn: Waiting) -> tuple[float, ...]:
        return (-turn.tokens,)

    policy = Policy(name="mine", order=longest_first, retain=lambda world, program, tools: Retention(1.0, "mine"))
    kernel = Kernel(Ledger(4, PAGE), policy)
    kernel.handle(Arrived(TurnId("x"), ProgramId("x"), "main", ROOT, tuple(range(15)), 4), 0.0)
    for name, count in (("short", 2), ("long", 9)):
        kernel.handle(Arrived(TurnId(name), ProgramId(name), "main", ROOT, tuple(range(100, 100 + count)), 4), 0.0)
    effects = kernel.handle(Cancelled(TurnId("x")), 1.0)
    assert [effect.turn for effect in effects if isinstance(effect, Start)] == ["long"]


def test_an_unknown_policy_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"forgetful, .*sostenuto"):
        named("lru")


def test_a_hold_that_nobody_tends_gives_way_to_whoever_waits() -> None:
    stage = Stage(room=6)
    stage.tell(Arrived(TurnId("a1"), ProgramId("a"), "main", ROOT, tuple(range(12)), 4, tended=False))
    stage.compute("a1", 12)
    stage.pause("a1")
    assert [type(effect) for effect in stage.arrive("b1", range(100, 116), program="b")] == [Release, Start, Evict]
