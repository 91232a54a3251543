"""Quotas: a tenant's share, the share of all, and what has ended counts no more."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from sostenuto.kvstore import PageId
from sostenuto.kvstore.quota import ALL_SHARE, TENANT_SHARE, Quota


def pages(*numbers: int) -> list[PageId]:
    return [PageId(number) for number in numbers]


def quota(room: int, ended: Iterable[int] = ()) -> Quota:
    return Quota(room, lasts=lambda page: page not in ended)


def test_a_tenant_gets_a_quarter_and_all_of_them_half() -> None:
    it = quota(16)
    assert (it.each, it.total) == (16 * TENANT_SHARE, 16 * ALL_SHARE) == (4, 8)
    assert it.spare("a", 9) == 4
    it.add("a", pages(0, 1, 2, 3))
    assert (it.spare("a", 1), it.why("a")) == (0, "clipped to the tenant's budget of 4 pages")
    it.add("b", pages(4, 5, 6))
    assert it.spare("c", 4) == 1
    it.add("c", pages(7))
    assert (it.spare("c", 1), it.why("c")) == (0, "clipped to the budget of 8 pages for all tenants")
    assert repr(it) == "<Quota 8/8 pages | 4 a tenant>"


def test_a_page_counts_once_and_for_whoever_won_it_last() -> None:
    it = quota(16)
    it.add("a", pages(0, 1, 0))
    it.add("a", pages(1))
    assert (len(it), it.spare("a", 9), it.has("a", PageId(0))) == (2, 2, True)
    it.add("b", pages(0))
    assert (it.has("a", PageId(0)), it.has("b", PageId(0))) == (False, True)
    assert (it.spare("a", 9), it.spare("b", 9)) == (3, 3)


def test_what_has_ended_is_nobodys_and_is_looked_for_only_when_there_is_not_enough() -> None:
    ended: set[int] = set()
    it = quota(16, ended)
    it.add("a", pages(0, 1, 2))
    ended |= {0, 1}
    assert it.spare("a", 1) == 1
    assert len(it) == 3, "nobody had to look"
    assert it.has("a", PageId(0)) is False
    assert it.spare("a", 3) == 3
    assert len(it) == 1


def test_a_pool_too_small_to_share_grants_nothing() -> None:
    assert quota(3).spare("a", 1) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30), st.booleans()), max_size=60))
def test_no_tenant_ever_has_more_than_its_share_nor_all_more_than_theirs(moves: list[tuple[str, int, bool]]) -> None:
    ended: set[int] = set()
    it = quota(24, ended)
    model: dict[int, str] = {}
    for tenant, page, ends in moves:
        if ends:
            ended.add(page)
            model.pop(page, None)
        elif page not in model:
            mine = sum(1 for each in model.values() if each == tenant)
            room = min(it.each - mine, it.total - len(model))
            assert it.spare(tenant, 24) == room
            if room:
                it.add(tenant, pages(page))
                ended.discard(page)
                model[page] = tenant
