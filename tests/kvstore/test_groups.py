"""Groups of layers: the length on which all agree, what each keeps, and how many pages that is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.kvstore import NOWHERE, Group, Groups, PageId, root

PAGE = 4
windows = st.one_of(st.none(), st.integers(2, 14))
kinds = st.lists(windows, min_size=1, max_size=4)


def groups_of(*windows: int | None, stride: int = 8) -> Groups:
    return Groups(tuple(Group((number,), window) for number, window in enumerate(windows)), stride)


def brute(windows: list[int | None], have: list[list[int]]) -> int:
    """Every length is tried, and for every group every position that a token after it would look at."""

    def serves(window: int | None, row: list[int], length: int) -> bool:
        seen = range(0 if window is None else max(0, length - window + 1), length)
        return all(at // PAGE < len(row) and at % PAGE < row[at // PAGE] for at in seen)

    longest = max(len(row) for row in have) * PAGE
    agreed = (n for n in range(longest + 1) if all(map(serves, windows, have, [n] * len(have))))
    return max(agreed)


@given(
    kinds.flatmap(
        lambda kinds: st.tuples(
            st.just(kinds),
            st.lists(
                st.lists(st.sampled_from([0, 1, 3, PAGE, PAGE, PAGE, PAGE]), max_size=9),
                min_size=len(kinds),
                max_size=len(kinds),
            ),
        )
    )
)
def test_whatever_is_lost_all_groups_agree_on_the_longest_length_that_each_can_serve(
    case: tuple[list[int | None], list[list[int]]],
) -> None:
    windows, have = case
    assert groups_of(*windows).agreed(have, PAGE) == brute(windows, have)


def test_losing_the_first_block_of_a_layer_that_sees_all_is_a_total_miss() -> None:
    full, lost = [PAGE] * 5, [0, *[PAGE] * 4]
    assert groups_of(None, 6).agreed([full, full], PAGE) == 20
    assert groups_of(None, 6).agreed([lost, full], PAGE) == 0


def test_blocks_left_of_a_window_may_be_gone_without_harm() -> None:
    full = [PAGE] * 5
    assert groups_of(None, 6).agreed([full, [0, 0, 0, PAGE, PAGE]], PAGE) == 20
    assert groups_of(None, 6).agreed([full, [0, 0, 0, 0, PAGE]], PAGE) == 0


@pytest.mark.parametrize("order", [(6, 10), (10, 6)])
def test_two_windows_and_no_layer_that_sees_all_agree_on_one_length(order: tuple[int, int]) -> None:
    groups = groups_of(*order)
    have = {6: [0, 0, 0, PAGE, PAGE, 2], 10: [0, 0, PAGE, PAGE, PAGE, 3]}
    # 22 tokens: the one looks back to 17, the other to 13; the next block of the second is longer than both have.
    assert groups.agreed([have[window] for window in order], PAGE) == 22


@given(kinds, st.integers(1, 90))
def test_what_a_context_keeps_is_what_its_next_token_looks_at(kinds: list[int | None], length: int) -> None:
    groups = groups_of(*kinds)
    spans = groups.spans(length, PAGE)
    have = [[PAGE if block in span else 0 for block in range(span.stop)] for span in spans]
    rest = length - (spans[0].stop - 1) * PAGE
    for row in have:
        row[-1] = rest
    assert groups.agreed(have, PAGE) == length
    for row, span in zip(have, spans, strict=True):
        row[span.start] = 0
        assert groups.agreed(have, PAGE) < length  # none of it can be spared
        row[span.start] = PAGE if span.start + 1 < span.stop else rest


@given(kinds, st.integers(0, 40), st.integers(1, 60), st.integers(1, 12))
def test_no_context_ever_wants_more_pages_than_were_foretold(
    kinds: list[int | None], known: int, more: int, stride: int
) -> None:
    groups = groups_of(*kinds, stride=stride)
    foretold = groups.peak(known, known + more, PAGE)
    found = sum(known // PAGE - span.start for span in groups.spans(known, PAGE))
    at, held = known, found
    while at < known + more:
        after = min(at + groups.stretch(known + more - at), known + more)
        held = sum(-(-after // PAGE) - group.first(at, PAGE) for group in groups.each)
        assert held - found <= foretold
        at = after
    assert groups_of(None).peak(known, known + more, PAGE) == -(-(known + more) // PAGE) - known // PAGE


def test_a_context_grows_by_a_page_in_each_group_until_its_windows_are_full() -> None:
    assert groups_of(None).growth(100, 10, PAGE) == 2.5
    assert groups_of(None, None).growth(100, 10, PAGE) == 5
    most = Group((0,), 6).most(8, PAGE)
    assert groups_of(6).growth(0, 1000, PAGE) == most == 4
    assert groups_of(6).growth(12, 1000, PAGE) == 1
    assert groups_of(None, 6, 6).growth(100, 10, PAGE) == 2.5


def test_the_pages_of_a_context_lie_group_by_group() -> None:
    groups = groups_of(None, 6)
    pages = [PageId(number) for number in range(7)]
    assert groups.split(pages, 17, PAGE) == (pages[:5], pages[5:])
    assert NOWHERE not in pages


def test_groups_have_roots_of_their_own_and_a_single_one_keeps_the_contexts() -> None:
    at = root(model="m")
    assert Groups().roots(at) == groups_of(6).roots(at) == (at,)
    roots = {*groups_of(None, 6).roots(at), *Groups((Group((0, 2)), Group((1,), 6))).roots(at)}
    assert len(roots | {at}) == 4  # the second group of both has the same layer


def test_a_model_of_one_kind_that_sees_all_is_plain_and_nonsense_is_refused() -> None:
    assert Groups().plain
    assert not groups_of(6).plain
    assert not groups_of(None, None).plain
    with pytest.raises(ValueError, match="window: found 1"):
        Group((), 1)
    with pytest.raises(ValueError, match="0 groups"):
        Groups(())
