"""What computing and moving costs: the sums add up, the cheaper way is found, a file gives back what was written."""

from __future__ import annotations

import json
from math import isclose

import pytest

from sostenuto.scheduler import TYPICAL, Costs, Link

COSTS = Costs(
    step_s=0.1, token_s=1e-3, pair_s=1e-6, turn_s=0.01, seen_s=1e-5, links={"host": Link(0.01, 1e-4, 2e-4)}, chunk=100
)


def test_a_prompt_costs_its_steps_its_tokens_and_what_they_look_back_at() -> None:
    # 250 tokens behind 1000: three steps, 250 ms of tokens, 250 * (1000 + 125) pairs
    assert isclose(COSTS.prefill(250, 1000), 0.3 + 0.25 + 0.28125)
    assert COSTS.prefill(0) == 0


def test_a_step_is_its_prompts_and_its_decoding_turns() -> None:
    assert isclose(COSTS.decode(3, 5000), 0.1 + 0.03 + 0.05)
    assert isclose(COSTS.step([(100, 0), (50, 200)], 3, 5000), 0.18 + 0.1 + 0.005 + 0.05 + 0.01125)


def test_a_copy_has_a_start_and_a_price_a_token_and_without_a_way_it_is_computed() -> None:
    assert isclose(COSTS.store("host", 1000), 0.11)
    assert isclose(COSTS.fetch("host", 1000), 0.21)
    assert COSTS.store("moon", 1000) == 0
    assert COSTS.fetch("moon", 1000) == COSTS.prefill(1000)


def test_the_nearest_tier_is_the_quickest_and_none_where_computing_is_as_quick() -> None:
    slow = Costs(0.0, 1e-5, 0.0, 0.0, 0.0, links=COSTS.links)
    assert COSTS.nearest(1000, ("moon", "host")) == "host"
    assert slow.nearest(1000, ("moon", "host")) is None
    assert COSTS.nearest(1000, ()) is None


def test_costs_come_back_from_a_file_as_they_went() -> None:
    for costs in (COSTS, TYPICAL):
        again = Costs.read(json.loads(json.dumps(costs.data())))
        assert again.data() == costs.data()
        assert again.prefill(777, 5) == costs.prefill(777, 5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"step_s": -1}, "step_s: found -1; expected seconds"),
        ({"token_s": True}, "token_s: found True"),
        ({"pair_s": float("nan")}, "pair_s: found nan"),
        ({"chunk": 0}, "chunk: found 0"),
        ({"links": {"host": {"start_s": 1}}}, "no costs as they are written"),
        ({"links": 3}, "no costs as they are written"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_with_what_is_wrong(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Costs.read(COSTS.data() | change)
