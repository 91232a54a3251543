"""The step clock: who gets how much of the next forward pass."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.scheduler import Costs, Demand, Pace, Share, TurnId, compose
from sostenuto.scheduler.batch import COLD_SHARE, LEAST


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


@given(pending=st.lists(st.integers(2, 50), max_size=8), beside=st.integers(0, 9), budget=st.integers(1, 40))
def test_turns_that_nobody_names_take_as_much_as_those_that_are_named(
    pending: list[int], beside: int, budget: int
) -> None:
    named = compose([*demands(*pending), *(Demand(TurnId(f"d{n}"), 1) for n in range(beside))], budget=budget)
    assert compose(demands(*pending), budget=budget, beside=beside) == named[beside:]


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


def test_what_resumes_goes_before_what_begins_with_nothing_which_gets_its_share_all_the_same() -> None:
    cold, back = Demand(TurnId("cold"), 4000), Demand(TurnId("back"), 300, found=5000)
    assert compose([cold, back], budget=512) == (Share(TurnId("back"), 300), Share(TurnId("cold"), 212))
    assert compose([cold, back], budget=200) == (Share(TurnId("back"), 150), Share(TurnId("cold"), 50))
    assert compose([back], budget=200) == (Share(TurnId("back"), 200),)


def test_under_a_stream_of_resuming_prompts_a_cold_one_still_ends() -> None:
    pending, steps = 1000, 0
    while pending > 0:
        steps += 1
        shares = compose([Demand(TurnId("cold"), pending), Demand(TurnId("back"), 400, found=4000)], budget=128)
        pending -= next(share.tokens for share in shares if share.turn == "cold")
    assert steps <= 1000 / (128 * COLD_SHARE) + 1


COSTS = Costs(step_s=0.01, token_s=1e-3, pair_s=0.0, turn_s=1e-3, seen_s=0.0)


def prompts_of(pace: Pace, *, decoding: int, pending: int = 10_000) -> int:
    """Tokens of a prompt in a step beside so many turns that decode."""
    ones = [Demand(TurnId(f"t{number}"), 1) for number in range(decoding)]
    shares = pace.share([*ones, Demand(TurnId("prompt"), pending)])
    return sum(share.tokens for share in shares if share.turn == "prompt")


def test_the_chunk_is_what_the_time_per_token_leaves() -> None:
    pace = Pace(COSTS, target_s=0.1)
    assert prompts_of(pace, decoding=4) == 86  # 100 ms less 10 of the step and 4 of the turns, at a token a ms
    assert prompts_of(pace, decoding=0) == pace.most
    assert prompts_of(Pace(COSTS), decoding=4) == pace.most - 4
    assert prompts_of(Pace(COSTS, target_s=0.001), decoding=4) == LEAST, "a prompt goes on however late tokens are"


def test_steps_that_take_longer_than_they_should_get_smaller_until_they_keep_the_time() -> None:
    pace = Pace(COSTS, target_s=0.1)
    for _ in range(80):
        tokens = prompts_of(pace, decoding=4)
        pace.took(2 * COSTS.step([(tokens, 0)], 4, 0))  # this machine is half as fast as was measured
    assert 30 <= prompts_of(pace, decoding=4) <= 38  # 50 ms less 14
    assert repr(pace).startswith("<Pace 100 ms a token | steps take 2.0")


@pytest.mark.parametrize("target", [0.0, -1.0, float("inf")])
def test_a_time_per_token_that_is_none_is_refused(target: float) -> None:
    with pytest.raises(ValueError, match="the time per token: found"):
        Pace(COSTS, target_s=target)
