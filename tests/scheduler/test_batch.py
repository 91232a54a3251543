"""The step clock: who gets how much of the next forward pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.scheduler import Demand, Share, TurnId, compose


def demands(*pending: int) -> list[Demand]:
    return [Demand(TurnId(f"t{number}"), count) for number, count in enumerate(pending)]


def test_decoding_turns_are_always_served_and_prompts_share_what_is_left() -> None:
    shares = compose(demands(100, 1, 300, 1), budget=128)
    assert shares == (
        Share(TurnId("t1"), 1),
        Share(TurnId("t3"), 1),
        Share(TurnId("t0"), 100),
        Share(TurnId("t2"), 26),
    )


def test_decoding_turns_beyond_the_budget_are_served_all_the_same() -> None:
    assert [share.tokens for share in compose(demands(1, 1, 1, 50), budget=2)] == [1, 1, 1]


def test_a_prompt_is_cut_so_that_no_token_stands_alone() -> None:
    assert [share.tokens for share in compose(demands(100, 50), budget=99)] == [98]
    assert [share.tokens for share in compose(demands(1, 1, 50), budget=3)] == [1, 1]
    assert [share.tokens for share in compose(demands(98, 50), budget=99)] == [98]
    assert [share.tokens for share in compose(demands(1, 3, 9), budget=3)] == [1]
    assert [share.tokens for share in compose(demands(3), budget=2)] == [2]
    assert [share.tokens for share in compose(demands(3), budget=1)] == [1]


@given(pending=st.lists(st.integers(0, 50), max_size=8), budget=st.integers(4, 40))
def test_with_room_for_four_tokens_none_is_ever_cut_off_alone(pending: list[int], budget: int) -> None:
    asked = {demand.turn: demand.pending for demand in demands(*pending)}
    for share in compose(demands(*pending), budget=budget):
        assert asked[share.turn] == 1 or share.tokens > 1
        assert asked[share.turn] - share.tokens != 1


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one token; found 0"):
        compose(demands(1), budget=0)


@given(pending=st.lists(st.integers(0, 50), max_size=8), budget=st.integers(1, 40))
def test_nothing_is_given_that_was_not_asked_for_and_every_step_makes_progress(pending: list[int], budget: int) -> None:
    shares = compose(demands(*pending), budget=budget)
    asked = {demand.turn: demand.pending for demand in demands(*pending)}
    assert all(0 < share.tokens <= asked[share.turn] for share in shares)
    assert len({share.turn for share in shares}) == len(shares)
    assert sum(share.tokens for share in shares) <= max(budget, pending.count(1))
    assert bool(shares) == any(pending)
