"""What the schedule measures of its own work: means, how many programs fit, and what fades."""

from __future__ import annotations

import re
from math import inf, isclose, nan, sqrt

import pytest

from sostenuto.scheduler import Meters, Program, ProgramId, Setting
from sostenuto.scheduler.givers import LOOKED_AT, Givers
from sostenuto.scheduler.meters import LAST, Fading, Mean


def test_a_mean_is_plain_at_first_and_follows_later() -> None:
    mean = Mean()
    for value in (1.0, 2.0, 6.0):
        mean.add(value)
    assert mean.value == 3.0
    for _ in range(10 * LAST):
        mean.add(10.0)
    assert 9.9 < mean.value <= 10.0
    assert repr(mean).startswith("<Mean 10 of")


def test_how_busy_programs_are_and_how_many_compute_at_a_time() -> None:
    meters = Meters()
    assert (meters.duty, meters.ratio(100)) == (1.0, inf)
    meters.reason.add(2.0)
    meters.away.add(6.0)
    meters.pages.add(10.0)
    assert meters.duty == 0.25
    assert meters.ratio(100) == 2.5  # ten fit, and each computes a quarter of its time
    assert repr(meters) == "<Meters busy 25% | 10.0 pages a context>"


def test_eta_tells_whether_turns_done_tell_of_turns_left() -> None:
    meters = Meters()
    assert meters.eta == 1.0
    for _ in range(3):
        meters.finished(10)  # all programs are of one length: each turn done is one less to come
    assert isclose(meters.eta, 1.0)
    lengths = (1, 5, 40)
    meters = Meters()
    for turns in lengths:
        meters.finished(turns)
    pairs = [(k, turns - k) for turns in lengths for k in range(1, turns + 1)]
    x, y = (sum(pair[at] for pair in pairs) / len(pairs) for at in (0, 1))
    spread = sqrt(sum((a - x) ** 2 for a, _ in pairs) * sum((b - y) ** 2 for _, b in pairs))
    assert isclose(meters.eta, -sum((a - x) * (b - y) for a, b in pairs) / spread)


def test_what_fades_is_worth_half_after_a_second_and_can_be_taken_out_again() -> None:
    fading = Fading()
    fading.add(8.0, 10.0, 10.0)
    assert fading.at(11.0) == 4.0
    fading.add(2.0, 12.0, 12.0)
    assert fading.at(12.0) == 4.0
    fading.add(-8.0, 13.0, 10.0)
    assert fading.at(13.0) == 1.0
    assert fading.at(1e9) < 1e-300


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"shares": {"a": 0}}, {"shares": {"a": nan}}])
def test_a_setting_that_makes_no_sense_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"found (0|nan); expected"):
        Setting(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"hold_budget": nan}, "hold_budget: found nan; expected a share of the pool, from 0 to 1"),
        ({"hold_budget": 5}, "hold_budget: found 5"),
        ({"hold_budget": "x"}, "hold_budget: found 'x'"),
        ({"workers": 1.5}, "workers: found 1.5; expected at least one"),
        ({"costs": None}, "costs: found NoneType; expected Costs"),
        ({"forecasts": {}}, "forecasts: found dict; expected Forecasts"),
        ({"shares": None}, "shares: found NoneType; expected Mapping"),
        ({"shares": {"a": "2"}}, "the share of a: found '2'; expected a number above 0"),
    ],
)
def test_a_setting_of_another_kind_is_refused(wrong: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        Setting(**wrong)  # type: ignore[arg-type]


def programs(count: int) -> list[Program]:
    return [Program(ProgramId(f"p{number}"), 0.0, number) for number in range(count)]


def test_whoever_has_the_largest_key_gives_way_first_and_nobody_who_left_does() -> None:
    keys = {number: float(number * 7 % 5) for number in range(5)}
    givers = Givers(lambda program: (keys[program.number],))
    for program in programs(5):
        givers.put(program)
    first = sorted(keys, key=lambda number: -keys[number])[:LOOKED_AT]
    assert [program.number for program in givers.first()] == first
    givers.remove(next(givers.first()))
    assert len(givers) == 4
    assert next(givers.first()).number != max(keys, key=lambda number: keys[number])
    assert repr(givers) == "<Givers 4>"


def test_a_key_that_has_changed_is_found_at_the_front() -> None:
    keys = dict.fromkeys(range(100), 0.0) | {5: 9.0, 6: 8.0}
    givers = Givers(lambda program: (keys[program.number],))
    for program in programs(100):
        givers.put(program)
    keys[5] = -1.0
    assert next(givers.first()).number == 6
    for _ in range(400):
        givers.put(programs(1)[0])
    assert next(givers.first()).number == 6
