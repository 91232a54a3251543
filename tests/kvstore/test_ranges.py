"""Priorities: which range counts, whose claim counts, and that the end of a claim deletes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.kvstore import DEFAULT_PRIORITY, Cached, Ledger, NotHeld, PageId, Range, Terms
from sostenuto.kvstore.ranges import Priorities, told, unraised

from .room import PAGE, frozen, known, leave, victims, write


def by_priority(page: Cached) -> tuple[float, ...]:
    return (page.priority, page.used, -page.depth)


def test_the_lowest_priority_goes_first_and_inside_a_level_the_least_recently_used() -> None:
    ledger = Ledger(8, PAGE, rank=by_priority)
    contexts = {key: [number] * 8 for number, key in enumerate("abcd")}
    pages = {key: leave(ledger, tokens) for key, tokens in contexts.items()}
    ledger.retain("a", pages["a"], [Range(0, None, 80)])
    ledger.retain("c", pages["c"], [Range(0, None, 10)])
    assert victims(ledger, contexts) == ["c", "c", "b", "b", "d", "d", "a", "a"]


def test_of_ranges_that_overlap_the_earlier_one_counts() -> None:
    ledger = Ledger(8, PAGE)
    pages = leave(ledger, range(16))
    assert ledger.retain("a", pages, [Range(4, 12, 90), Range(0, 8, 10)]) == 3
    assert [ledger.priority(page) for page in pages] == [10, 90, 90, DEFAULT_PRIORITY]


def test_a_page_belongs_to_the_range_that_holds_its_first_token() -> None:
    ledger = Ledger(8, PAGE)
    pages = leave(ledger, range(16))
    ledger.retain("a", pages, [Range(1, 9, 90)])
    assert [ledger.priority(page) for page in pages] == [35, 90, 90, 35]


def test_an_expired_priority_falls_back_to_the_default_and_deletes_nothing() -> None:
    ledger = Ledger(4, PAGE, rank=by_priority)
    contexts = {"old": [1] * 8, "new": [2] * 8}
    old, new = (leave(ledger, tokens) for tokens in contexts.values())
    ledger.retain("old", old, [Range(0, None, 80, until=5.0)])
    ledger.retain("new", new, [Range(0, None, 10, until=7.0)])
    assert ledger.expire(4.9) == ()
    assert {ledger.priority(page) for page in (*old, *new)} == {80, 10}
    ledger.expire(7.0)
    assert {ledger.priority(page) for page in (*old, *new)} == {DEFAULT_PRIORITY}
    assert (known(ledger, [1] * 8), known(ledger, [2] * 8), ledger.cached) == (8, 8, 4)
    assert victims(ledger, contexts) == ["old", "old", "new", "new"]


def test_of_several_claims_the_highest_counts_until_it_ends() -> None:
    ledger = Ledger(4, PAGE)
    (page,) = leave(ledger, [1] * 4)
    ledger.retain("a", [page], [Range(0, None, 50, until=9.0)])
    ledger.retain("b", [page], [Range(0, None, 80, until=5.0)])
    ledger.retain("c", [page], [Range(0, None, 0)])
    seen = [ledger.priority(page)]
    for now in (5.0, 9.0):
        ledger.expire(now)
        seen.append(ledger.priority(page))
    assert ledger.forgo("c") == 1
    assert [*seen, ledger.priority(page)] == [80, 50, 0, DEFAULT_PRIORITY]


def test_claiming_again_under_one_key_replaces_what_it_claimed() -> None:
    ledger = Ledger(4, PAGE)
    pages = leave(ledger, range(8))
    ledger.retain("a", pages, [Range(0, None, 80, until=5.0)])
    ledger.retain("a", pages, [Range(0, 4, 60, until=9.0)])
    ledger.expire(5.0)
    assert [ledger.priority(page) for page in pages] == [60, DEFAULT_PRIORITY]


def test_a_held_page_is_never_taken_whatever_its_priority() -> None:
    ledger = Ledger(4, PAGE, rank=by_priority)
    branch = write(ledger, [1] * 8)
    ledger.retain("a", branch.pages, [Range(0, None, 0)])
    pages = leave(ledger, [2] * 8)
    ledger.retain("b", pages, [Range(0, None, 100)])
    ledger.alloc(2)
    assert (known(ledger, [1] * 8), known(ledger, [2] * 8)) == (8, 0)


def test_what_a_held_page_was_given_counts_when_it_is_let_go() -> None:
    ledger = Ledger(4, PAGE, rank=by_priority)
    contexts = {"a": [1] * 8, "b": [2] * 8}
    branch = write(ledger, contexts["a"])
    ledger.retain("a", branch.pages, [Range(0, None, 80)])
    branch.close()
    leave(ledger, contexts["b"])
    assert victims(ledger, contexts) == ["b", "b", "a", "a"]


def test_the_priorities_of_a_lease_outlive_its_end_by_the_clock_and_end_with_its_release() -> None:
    ledger = Ledger(8, PAGE)
    snapshot = frozen(ledger, range(8))
    terms = Terms(ranges=(Range(0, None, 80, until=20.0),))
    ledger.hold("a", snapshot, until=5.0, budget=1, terms=terms)
    snapshot.close()
    assert [ledger.priority(page) for page in snapshot.pages] == [80, 80]  # what was clipped has it too
    (lease,) = ledger.expire(5.0)
    assert (len(lease.pages), lease.asked, ledger.priority(snapshot.pages[0])) == (1, 2, 80)
    ledger.take(snapshot.pages)
    ledger.hold("a", snapshot, until=9.0, budget=8, terms=terms)
    ledger.release("a")
    assert [ledger.priority(page) for page in snapshot.pages] == [DEFAULT_PRIORITY] * 2
    ledger.drop(snapshot.pages)
    ledger.check()


def test_there_is_nothing_to_retain_in_a_free_page() -> None:
    with pytest.raises(NotHeld, match="page 0 is free"):
        Ledger(1, PAGE).retain("a", [PageId(0)], [Range(0, None, 50)])


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ((-1, None, 50), "are no range"),
        ((4, 4, 50), "are no range"),
        ((0, None, 101), "within 0 to 100"),
        ((0, None, -1), "within 0 to 100"),
        ((0, None, 50, math.nan), "ends at a time"),
    ],
)
def test_a_range_that_means_nothing_is_refused(given: tuple[int, int | None, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Range(*given)


def test_claims_that_were_replaced_leave_nothing_behind() -> None:
    priorities = Priorities()
    for until in range(1, 1000):
        priorities.claim("a", [0, 1], [Range(0, None, 50, until=float(until))], size=PAGE)
    assert len(priorities._expiry) < 200
    for page in (0, 1):
        priorities.forget(page)
    assert (len(priorities), list(priorities.claimed())) == (0, [])
    assert priorities.expire(math.inf) == set()


ranges = st.builds(
    lambda start, size, priority, until: Range(start, None if size == 0 else start + size, priority, float(until)),
    st.integers(0, 20),
    st.integers(0, 12),
    st.integers(0, 100),
    st.integers(1, 6),
)
moves = st.lists(
    st.tuples(
        st.sampled_from(["claim", "end", "expire", "forget"]),
        st.sampled_from("abc"),
        st.integers(0, 5),
        st.lists(ranges, max_size=3),
    ),
    max_size=30,
)


@given(moves)
def test_a_priority_is_always_the_highest_of_the_claims_that_last(
    moves: list[tuple[str, str, int, list[Range]]],
) -> None:
    priorities = Priorities()
    model: dict[str, dict[int, Range]] = {}
    now = 0.0
    for move, key, number, wanted in moves:
        before = {page: priorities.of(page) for page in range(6)}
        touched: set[int] = set()
        match move:
            case "claim":
                touched = priorities.claim(key, list(range(number + 1)), wanted, size=PAGE)
                fitting = {page: [one for one in wanted if one.covers(page * PAGE)] for page in range(number + 1)}
                model[key] = {page: fits[0] for page, fits in fitting.items() if fits}
            case "end":
                touched = priorities.end(key)
                model.pop(key, None)
            case "expire":
                now += 1
                touched = priorities.expire(now)
                for claims in model.values():
                    for page in [page for page, one in claims.items() if one.until <= now]:
                        del claims[page]
            case _:
                priorities.forget(number)
                for claims in model.values():
                    claims.pop(number, None)
                touched = {number}
        after = {page: priorities.of(page) for page in range(6)}
        for page in range(6):
            claimed = [claims[page].priority for claims in model.values() if page in claims]
            assert after[page] == max(claimed, default=DEFAULT_PRIORITY)
        assert {page for page in after if after[page] != before[page]} <= touched
        assert set(priorities.claimed()) == {page for claims in model.values() for page in claims}


@given(st.lists(ranges, max_size=5), st.integers(0, 12), st.integers(1, 5))
def test_for_each_page_the_first_range_counts_that_holds_its_first_token(
    wanted: list[Range], pages: int, size: int
) -> None:
    slow = [next((n for n, one in enumerate(wanted) if one.covers(page * size)), None) for page in range(pages)]
    assert told(wanted, pages, size=size) == slow


@given(st.lists(ranges, max_size=5), st.integers(0, 40))
def test_from_a_token_on_nothing_is_raised_and_all_else_is_as_it_was_said(wanted: list[Range], start: int) -> None:
    def worth(said: Sequence[Range], token: int) -> int | None:
        return next((one.priority for one in said if one.covers(token)), None)

    cut = unraised(wanted, start)
    for token in range(50):
        before = worth(wanted, token)
        raised = before is not None and before > DEFAULT_PRIORITY
        assert worth(cut, token) == (DEFAULT_PRIORITY if raised and token >= start else before)
