"""Forecasts of tools: quantiles within their bins, the least expected cost, drift, and what is written for later."""

from __future__ import annotations

import json
from math import inf, isclose
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.scheduler import Curve, Durations, Forecasts
from sostenuto.scheduler.forecast import HALF, SHAPES, SURE, TOOLS, joint

HALVES = Curve((1.0, 9.0), (0.5, 0.5))
"""Half of all calls take a second, the other half nine."""


def test_the_least_expected_cost_of_a_hand_computed_case() -> None:
    # Never waiting costs the loss; waiting a second costs 1 and half the loss; nine cost 5.
    assert HALVES.best(1.5) == 0.0  # 1.5 against 1 + 0.75 and 5
    assert HALVES.best(4.0) == 1.0  # 4 against 1 + 2 and 5
    assert HALVES.best(9.0) == 9.0  # 9 against 1 + 4.5 and 5
    assert isclose(HALVES.cost(0.0, 4.0), 4.0)
    assert isclose(HALVES.cost(1.0, 4.0), 3.0)
    assert isclose(HALVES.cost(9.0, 4.0), 5.0)


def test_waiting_is_as_dear_as_its_price_and_where_it_costs_nothing_the_bound_is_waited_for() -> None:
    assert HALVES.best(4.0, 0.4) == 9.0  # 4 against 0.4 + 2 and 2
    assert HALVES.best(4.0, 4.0) == 0.0
    assert HALVES.best(4.0, 0.0, most=600.0) == 600.0
    assert HALVES.best(9.0, most=5.0) == 1.0


def test_a_call_that_is_still_out_is_another_than_one_that_has_just_begun() -> None:
    assert HALVES.best(4.0, out=2.0) == 0.0  # seven seconds are left for sure, for a loss of 4
    assert HALVES.best(8.0, out=2.0) == 7.0
    assert HALVES.best(100.0, out=10.0) == 0.0  # out for longer than any: nothing is known of it
    assert HALVES.quantile(0.5, out=2.0) == 7.0
    assert HALVES.quantile(0.5, out=10.0) == inf
    assert HALVES.hazard(0.0, 1.0) == 0.5
    assert HALVES.hazard(1.0, 7.0) == 0.0
    assert HALVES.hazard(1.0, 8.0) == 1.0


@given(
    seen=st.lists(st.floats(0.001, 1e4), min_size=1, max_size=60),
    loss=st.floats(0.01, 1e3),
    price=st.floats(0.01, 10.0),
    out=st.floats(0.0, 100.0),
)
@settings(deadline=None)
def test_no_time_to_wait_is_cheaper_than_the_best(seen: list[float], loss: float, price: float, out: float) -> None:
    durations = Durations()
    for seconds in seen:
        durations.observe(seconds)
    curve = durations.curve
    left = [(t - out, share) for t, share in zip(curve.times, curve.shares, strict=True) if t > out]
    if not left:
        assert curve.best(loss, price, out=out) == 0.0
        return
    whole = sum(share for _, share in left)
    rest = Curve(tuple(t for t, _ in left), tuple(share / whole for _, share in left))
    best = rest.cost(curve.best(loss, price, out=out), loss, price)
    assert all(best <= rest.cost(tau, loss, price) * (1 + 1e-9) for tau in (0.0, *rest.times))


def test_quantiles_are_right_within_a_bin_over_nine_orders_of_magnitude() -> None:
    chance = Random(1)
    durations = Durations()
    seen = [10 ** chance.uniform(-2.5, 4.5) for _ in range(HALF)]
    for seconds in seen:
        durations.observe(seconds)
    for share in (0.1, 0.5, 0.9):
        true = sorted(seen)[int(share * len(seen))]
        assert 0.7 < durations.curve.quantile(share) / true < 1.4


def test_nonsense_durations_fall_into_the_outermost_bins() -> None:
    durations = Durations()
    for seconds in (0.0, -1.0, 1e9):
        durations.observe(seconds)
    assert durations.curve.times == (2.0**-10, 2.0**17)


def test_a_tool_that_always_takes_as_long_is_waited_for_until_it_is_back() -> None:
    for seconds in (0.002, 0.7, 1.9, 2.0, 333.0):
        durations = Durations()
        for _ in range(SURE):
            durations.observe(seconds)
        assert seconds <= durations.curve.best(1e6) <= 1.19 * seconds


def test_what_was_seen_lately_counts_for_more() -> None:
    durations = Durations()
    for _ in range(4 * HALF):
        durations.observe(1.0)
    for _ in range(2 * HALF):
        durations.observe(1.1)  # no drift: a neighbouring bin at most
    assert durations.curve.within(1.05) < 0.3


def test_a_tool_that_has_become_another_is_seen_at_once_and_then_believed() -> None:
    chance = Random(2)
    durations = Durations()
    for _ in range(1000):
        durations.observe(chance.lognormvariate(0.0, 1.0))
    assert abs(durations.drift) < 4
    assert 0.5 < durations.curve.quantile(0.5) < 2
    for _ in range(96):
        durations.observe(chance.lognormvariate(4.0, 1.0))
    assert durations.curve.quantile(0.5) > 20


def test_how_sure_it_is_grows_with_what_was_seen() -> None:
    durations = Durations()
    assert durations.sure == 0
    levels = []
    for _ in range(5):
        for _ in range(SURE):
            durations.observe(2.0)
        levels.append(durations.sure)
    assert levels == sorted(levels)
    assert 0.45 < levels[0] <= 0.5
    assert levels[-1] > 0.75
    assert durations.count == 5 * SURE
    assert repr(durations).startswith("<Durations 2 s")


def test_the_closest_of_what_is_known_is_taken() -> None:
    forecasts = Forecasts()
    assert forecasts.of(["new"]) is forecasts.any
    for _ in range(SURE):
        forecasts.observe("bash", 1.0, "ls")
        forecasts.observe("bash", 60.0, "make")
        forecasts.observe("search", 5.0)
    assert forecasts.of(["bash"], "ls").curve.quantile(0.9) < 2
    assert forecasts.of(["bash"], "make").curve.quantile(0.1) > 50
    assert forecasts.of(["bash"], "git") is forecasts.of(["bash"])
    assert forecasts.of(["search", "bash"]) is forecasts.of(["bash"])  # the slower of two that were never seen together
    forecasts.observe(joint(["search", "bash"]), 7.0)
    assert forecasts.of(["bash", "search"]).count == 1
    assert forecasts.any.count == 3 * SURE + 1
    assert repr(forecasts).startswith("<Forecasts of 3 tools")


def test_names_that_never_end_take_no_memory_without_end() -> None:
    forecasts = Forecasts()
    for number in range(2 * SHAPES):
        forecasts.observe("bash", 1.0, f"shape {number}")
    for number in range(TOOLS + 5):
        forecasts.observe(f"tool {number}", 1.0)
    assert len(forecasts) == TOOLS
    assert len(forecasts.data()["tools"]["bash"]["shapes"]) == SHAPES
    assert forecasts.of([f"tool {TOOLS + 4}"]) is forecasts.any


def test_what_was_learnt_outlives_the_process_and_goes_on_where_it_stood() -> None:
    chance = Random(3)
    forecasts = Forecasts()
    for _ in range(300):
        forecasts.observe("bash", chance.lognormvariate(1.0, 1.0), chance.choice(["", "ls"]))
    again = Forecasts.read(json.loads(json.dumps(forecasts.data())))
    assert again.data() == forecasts.data()
    for each in (forecasts, again):
        for seconds in (1.0, 2.0, 3.0) * 16:
            each.observe("bash", seconds)
    ours, theirs = forecasts.of(["bash"]), again.of(["bash"])
    assert ours.count == theirs.count
    assert isclose(ours.curve.quantile(0.5), theirs.curve.quantile(0.5))
    assert isclose(ours.drift, theirs.drift, rel_tol=1e-6)


@pytest.mark.parametrize("data", [{}, {"any": 3, "tools": {}}, {"any": {"bins": {"900": 1}}, "tools": {}}, []])
def test_a_file_of_something_else_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="no forecasts as they are written"):
        Forecasts.read(data)  # type: ignore[arg-type]
