"""The simulator on tiny traces worked out by hand: times, reuse, what is computed twice, who waits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sostenuto.kvstore import Elsewhere, Ledger
from sostenuto.scheduler import Closed, Costs, Effect, Event, Kernel, Link, Moved, Stepped, ToolStarted, named
from sostenuto.scheduler.simulator import (
    ALPHA,
    STATED,
    Call,
    Conditions,
    Session,
    Tally,
    Workload,
    alone,
    common,
    figures,
    jain,
    load_of,
    quantile,
    script,
    simulate,
)
from sostenuto.scheduler.simulator.batch import Batch, Leap
from sostenuto.tests.scheduler.steady import STEADY

PAGE = 4
SLOW = Costs(step_s=1.0, token_s=0.1, pair_s=0.0, turn_s=0.0, seen_s=0.0, chunk=16)
"""A step takes a second, and a tenth for each token of a prompt."""


def kernel(policy: str, room: int, *, host: int = 0, page: int = PAGE) -> Kernel:
    chosen = STEADY if policy == STEADY.name else named(policy)
    below = Elsewhere(page, {"host": host} if host else {})
    return Kernel(Ledger(room, page, rank=chosen.evict), chosen, elsewhere=below)


def two() -> Workload:
    """Two sessions of two calls: prompts of 20 and 33, and of 40 and 47 tokens; pauses of 5 and 1 seconds."""
    first, second = list(range(20)), list(range(300, 340))
    a = script("a", [first, [*first, 90, 91, 92, *range(200, 210)]], [[90, 91, 92], [93, 94]], [("search", 5.0)])
    b = script("b", [second, [*second, 80, 81, *range(400, 405)]], [[80, 81], [83]], [("search", 1.0)])
    return Workload("two", (a, b))


def run(policy: str, workload: Workload, room: int, *, users: int | None = 2, **rest: Any) -> Tally:
    made = kernel(policy, room, host=rest.pop("host", 0))
    given = Conditions(rest.pop("costs", SLOW), users, rest.pop("workers", None))
    tally = simulate(made, workload, given, **rest)
    made.books.check()
    assert (made.books.running, made.books.waiting, made.books.held) == (0, 0, 0)
    return tally


def test_a_job_alone_takes_the_sum_of_its_steps_and_its_pause() -> None:
    """20 tokens in steps of 16 and 4: 2.6 + 1.4 s, which say the first token; two more: 2 s; 5 s of pause; 11 new
    tokens of 33 (22 are computed): 2.1 s; one more: 1 s."""
    tally = run("steady", replace(two(), sessions=list(two().sessions)[:1]), 14, users=1)
    assert list(tally.jcts) == [pytest.approx(2.6 + 1.4 + 2 + 5 + 2.1 + 1)]
    assert list(tally.resumed) == [pytest.approx(2.1)]
    assert (tally.prompt, tally.reused, tally.recomputed) == (20 + 33, 22, 0)
    # Its context of 22 tokens is held in 6 pages of 4 for 5 seconds.
    assert tally.held_token_s == pytest.approx(6 * 4 * 5)
    # Alone, the ideal knows the last token that was said too.
    assert list(tally.ideals) == [pytest.approx(14.1 - 0.1)]


def test_a_held_context_is_not_computed_again_and_who_came_later_waits() -> None:
    """b does not fit beside a (10 and 6 pages of 14), and starts when a is done, at 14.1 s: 40 tokens in steps of 16,
    16 and 8 take 2.6 + 2.6 + 1.8 s, the second token one more; 1 s of pause; 6 tokens of 47 take 1.6 s."""
    tally = run("steady", two(), 14)
    assert list(tally.jcts) == [pytest.approx(14.1), pytest.approx(14.1 + 7 + 1 + 1 + 1.6)]
    assert (tally.prompt, tally.reused, tally.recomputed) == (140, 22 + 41, 0)
    assert tally.busy == pytest.approx(24.7 - 5 - 1)
    assert tally.seconds == pytest.approx(24.7)


def test_without_holds_the_rival_takes_the_pages_and_both_compute_twice() -> None:
    """b starts in a's pause, at 6 s, and takes 4 of the 8 pages that a left or were free, from its end; a comes back at
    11 s and waits until b pauses, at 14 s. Of a's 22 tokens 12 are left then, of b's 41 are 20 when it starts again."""
    tally = run("forgetful", two(), 14)
    a = 14 + 2.6 + 1.5 + 1
    b = a + 2.6 + 2.1
    assert list(tally.jcts) == [pytest.approx(a), pytest.approx(b)]
    assert (tally.reused, tally.lost, tally.again) == (12 + 20, 22 - 12 + 41 - 20, 0)
    assert tally.recomputed == 31


def test_steps_taken_many_at_once_are_those_taken_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [
        Session(
            f"s{number}",
            (
                Call(0, tuple(range(number * 1000, number * 1000 + 40)), (-1, -2, -3), 21, ("t",), 3.7 * number),
                Call(43, tuple(range(number * 1000 + 50, number * 1000 + 61)), (-4, -5), 15),
            ),
        )
        for number in range(1, 7)
    ]
    workload = Workload("many", sessions, granule=8)
    costs = replace(SLOW, token_s=0.01, pair_s=1e-4, turn_s=0.05, seen_s=1e-3)

    def once() -> tuple[list[float], Any, int, list[str]]:
        steps = []
        log: list[str] = []

        def watch(event: Event, now: float, effects: Sequence[Effect]) -> None:
            steps.append(isinstance(event, Stepped))
            log.extend(repr(effect).split("until")[0] for effect in effects if type(effect).__name__ != "Wake")

        tally = run("steady", workload, 60, users=4, costs=costs, watch=watch)
        return list(tally.jcts), (tally.reused, tally.lost, tally.again, tally.prompt), sum(steps), log

    taken = once()
    plan = Batch.plan
    leaps: list[int] = []

    def single(batch: Batch, seconds: float | None) -> Leap | None:
        leap = plan(batch, 0.0)
        leaps.append(0 if leap is None else leap.steps)
        return leap

    monkeypatch.setattr(Batch, "plan", single)
    again = once()
    assert max(leaps) == 1
    assert taken[0] == pytest.approx(again[0], rel=1e-9)
    assert taken[1] == again[1]
    assert taken[3] == again[3]
    assert taken[2] <= again[2]


def test_the_same_workload_gives_the_same_events_and_effects() -> None:
    def log() -> list[str]:
        found: list[str] = []
        run("steady", two(), 14, watch=lambda event, now, effects: found.append(f"{now} {event} {effects}"))
        return found

    assert log() == log()


def test_a_prompt_that_never_fits_is_refused_and_the_session_goes_on_with_its_next_job() -> None:
    calls = (
        Call(0, tuple(range(400)), (-1,), 1, ("t",), 1.0),
        Call(0, tuple(range(8)), (-2,), 1),
        Call(0, tuple(range(8)), (-3,), 1),
    )
    tally = run("steady", Workload("large", [Session("s", calls)]), 14, users=1)
    assert (tally.refusals, len(tally.jcts), tally.calls) == (1, 1, 2)
    assert figures("steady", tally).goodput == 0.5


def test_an_answer_that_outgrows_the_pool_is_cut_and_its_job_ends() -> None:
    tally = run("steady", Workload("long", [Session("s", (Call(0, (1, 2, 3), tuple(range(60)), 60),))]), 4, users=1)
    assert (tally.cut, len(tally.jcts), tally.refusals) == (1, 1, 0)


def test_tools_wait_for_a_worker() -> None:
    sessions = [
        Session(name, (Call(0, (number,), (-1,), 1, ("t",), 10.0), Call(2, (5,), (-2,), 1)))
        for number, name in enumerate("ab")
    ]
    starts: list[float] = []

    def watch(event: Event, now: float, effects: Sequence[Effect]) -> None:
        if isinstance(event, ToolStarted):
            starts.append(now)

    # Both prompts are computed in one step: 1 s and two tenths.
    run("steady", Workload("tools", sessions), 14, workers=1, watch=watch)
    assert starts == [pytest.approx(1.2), pytest.approx(11.2)]


def test_a_copy_takes_the_time_of_the_way_and_what_it_brings_back_is_not_computed() -> None:
    costs = replace(SLOW, links={"host": Link(0.5, 0.01, 0.02)})
    moved: list[tuple[float, int]] = []

    def watch(event: Event, now: float, effects: Sequence[Effect]) -> None:
        if isinstance(event, Moved):
            moved.append((now, len(event.done)))

    long = two().sessions
    late = [replace(one, calls=(replace(one.calls[0], pause=100.0), *one.calls[1:])) for one in long]
    tally = run("steady", Workload("moves", late), 14, host=40, costs=costs, watch=watch)
    # a's context of 22 tokens in 6 pages is copied when it pauses, at 6 s.
    assert moved[0][0] == pytest.approx(6 + 0.5 + 22 * 0.01)
    assert moved[0][1] == 6
    assert tally.moves == len(moved) >= 3
    assert tally.lost == 0
    assert tally.reused == 22 + 41


def test_users_come_one_after_the_other_and_jobs_fall_apart_where_a_person_answers() -> None:
    def session(name: str, first: int) -> Session:
        return Session(name, (Call(0, (first,), (-1,), 1, (), 50.0), Call(2, (3,), (-2,), 1)))

    closed: list[float] = []

    def watch(event: Event, now: float, effects: Sequence[Effect]) -> None:
        if isinstance(event, Closed):
            closed.append(now)

    tally = run("steady", Workload("people", [session("a", 1), session("b", 2)]), 14, users=1, watch=watch)
    # Of the second prompt's three tokens only the first is computed: what was said last is not.
    assert list(tally.jcts) == [pytest.approx(each) for each in (1.1, 1.2, 1.1, 1.2)]
    assert closed == [pytest.approx(each) for each in (1.1, 52.3, 53.4, 104.6)]


def test_sessions_with_times_begin_at_them() -> None:
    sessions = [Session("a", (Call(0, (1,), (-1,), 1),), at=3.0), Session("b", (Call(0, (2,), (-1,), 1),), at=9.0)]
    tally = run("steady", Workload("timed", sessions, timed=True), 14, users=None)
    assert tally.seconds == pytest.approx(9 + 1.1)


def test_figures_are_those_of_the_tally() -> None:
    tally = Tally()
    tally.jcts.extend([1.0, 2.0, 3.0, 10.0])
    tally.ideals.extend([1.0, 1.0, 1.0, 3.0])
    tally.owners.extend([0, 0, 1, 1])
    tally.tenants += ["a", "b"]
    tally.prompt, tally.reused, tally.lost, tally.again = 100, 60, 7, 3
    found = figures("p", tally)
    assert (found.jct_mean_s, found.jct_p50_s) == (4.0, 2.5)
    assert found.jct_p99_s == pytest.approx(9.79)
    assert (found.goodput, found.reused_share, found.recomputed_tokens) == (0.75, 0.6, 10)
    slow = (1.5, (3 + 10 / 3) / 2)
    assert found.fairness == pytest.approx(sum(slow) ** 2 / (2 * sum(each * each for each in slow)))
    assert ALPHA == 3.0


def test_fairness_is_one_where_all_are_alike_and_least_where_one_bears_all() -> None:
    assert jain([2.0, 2.0, 2.0]) == 1.0
    assert jain([0.0, 0.0, 3.0]) == pytest.approx(1 / 3)
    assert jain([]) == 1.0
    assert [quantile([], 0.5), quantile([4.0], 0.9), quantile([0.0, 10.0], 0.25)] == [0.0, 4.0, 2.5]


def test_a_load_says_what_fits_and_how_busy_jobs_are() -> None:
    load = load_of(two().sessions, 1, SLOW)
    reason = (2.6 + 1.4 + 2) + (2.0 + 1) + (2.6 + 2.6 + 1.8 + 1) + 1.5
    assert (load.sessions, load.calls, load.context) == (2, 4, (35 + 48) / 2)
    assert load.d == pytest.approx(reason / (reason + 6))
    assert load.fits(83) == 2.0
    assert load.r(83) == pytest.approx(2 * load.d)
    assert load.pressure(83, 4) == 1.0  # four users have two sessions between them
    assert load.wanted(1) == 41.5


def test_a_call_alone_is_its_chunks_and_its_tokens() -> None:
    assert alone(SLOW, 0, 20, 3) == pytest.approx(2 + 2 + 2)
    assert alone(SLOW, 20, 20, 1) == pytest.approx(1.1)  # the last token is always computed
    assert alone(replace(SLOW, seen_s=0.01), 0, 10, 3) == pytest.approx(2 + 2 + 0.01 * (11 + 12))
    assert STATED.source.startswith("stated, not measured")


def test_common_beginnings_are_found() -> None:
    assert common([1, 2, 3], [1, 2, 4, 5]) == 2
    assert common([], [1]) == 0
    assert common([1, 2], [1, 2, 3]) == 2


def test_the_timeline_shows_what_sessions_did() -> None:
    made = Tally(lanes=1)
    run("steady", two(), 14, tally=made)
    (lane,) = made.lanes
    assert lane.name == "a"
    told = [(one.kind, round(one.begun, 3), round(one.ended, 3)) for one in lane.stretches]
    assert told == [
        ("computing", 0.0, 4.0),
        ("speaking", 4.0, 6.0),
        ("paused", 6.0, 11.0),
        ("held", 6.0, 11.0),
        ("computing", 11.0, 13.1),
        ("speaking", 13.1, 14.1),
    ]
    again = Tally(lanes=2)
    run("forgetful", two(), 14, tally=again)
    assert {one.kind for lane in again.lanes for one in lane.stretches} >= {"waiting", "recomputing"}


def test_shares_over_time_stay_few() -> None:
    tally = Tally()
    for second in range(10_000):
        tally.shares.add(float(second), second % 2, 1)
    points = tally.shares.points()
    assert len(points) <= 240
    assert [share for _, share in points[:-1]] == [0.5] * (len(points) - 1)
