"""The order of eviction: the smallest rank first, whatever entered, left or changed meanwhile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.kvstore import DEFAULT_PRIORITY, Cached, PageId, oldest_first
from sostenuto.kvstore.order import Order


def cached(page: int, used: int = 0, *, priority: int = DEFAULT_PRIORITY) -> Cached:
    return Cached(PageId(page), 0, used, False, priority)


def test_pages_leave_by_their_rank_and_equal_ones_in_the_order_in_which_they_came() -> None:
    order = Order(lambda page: (page.used,))
    for page, used in enumerate((3, 1, 2, 1)):
        order.put(cached(page, used))
    assert [order.pop() for _ in range(4)] == [1, 3, 2, 0]
    with pytest.raises(IndexError):
        order.pop()


def test_only_the_page_that_was_touched_is_ranked_again() -> None:
    asked: list[int] = []

    def rank(page: Cached) -> tuple[float, ...]:
        asked.append(page.page)
        return (page.priority,)

    order = Order(rank)
    for page in range(100):
        order.put(cached(page))
    asked.clear()
    assert order.changed(7, priority=1)
    assert not order.changed(100, priority=1)
    assert order.changed(8, priority=35)  # as it was
    assert asked == [7]
    assert order.pop() == 7


def test_the_floor_rises_with_what_is_evicted_and_never_falls() -> None:
    order = Order(lambda page: (page.used,))
    floors = []
    for used in (2, 5, 3):
        order.put(cached(0, used))
        order.pop()
        floors.append(order.floor)
    assert floors == [2, 5, 5]


def test_what_left_or_changed_does_not_pile_up() -> None:
    order = Order(oldest_first)
    order.put(cached(0))
    for priority in range(10_000):
        order.changed(0, priority=priority % 100)
        order.put(cached(1, priority))
        order.remove(1)
    assert len(order._heap) < 100
    assert (len(order), list(order), 0 in order, 1 in order) == (1, [0], True, False)


@given(st.lists(st.tuples(st.sampled_from(["put", "remove", "change", "pop"]), st.integers(0, 7), st.integers(0, 9))))
def test_what_is_popped_is_always_the_smallest_of_what_is_there(moves: list[tuple[str, int, int]]) -> None:
    order = Order(lambda page: (page.priority, page.used))
    model: dict[int, tuple[int, int]] = {}
    for number, (move, page, size) in enumerate(moves):
        if move == "put":
            order.put(cached(page, number, priority=size))
            model[page] = (size, number)
        elif move == "remove" and page in model:
            assert order.remove(PageId(page)).used == model.pop(page)[1]
        elif move == "change":
            assert order.changed(page, priority=size) == (page in model)
            if page in model:
                model[page] = (size, model[page][1])
        elif move == "pop" and model:
            least = min(model, key=lambda each: model[each])
            assert order.pop() == least
            del model[least]
        assert set(order) == set(model)
