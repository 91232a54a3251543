"""Limits bind when they should, by a clock that tests turn."""

from __future__ import annotations

import pytest

from sostenuto.tools.limits import Breaker, Bucket, Limits, pause


@pytest.mark.parametrize(
    "wrong",
    [{"timeout": 0}, {"deadline": -1}, {"rate": 0}, {"hedge": 0}, {"at_once": 0}, {"burst": 0}, {"retries": -1}],
)
def test_a_limit_that_nothing_could_keep_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Limits(**wrong)


def test_a_bucket_gives_its_burst_then_its_rate_and_says_when_to_come_again() -> None:
    bucket = Bucket(rate=2.0, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(0.5) == 0.0
    assert bucket.take(0.75) == 0.25
    assert [bucket.take(1000.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]


def test_a_clock_that_goes_back_gives_nothing() -> None:
    bucket = Bucket(rate=1.0, burst=1)
    assert bucket.take(10.0) == 0.0
    assert bucket.take(5.0) == 1.0
    assert bucket.take(10.5) == 0.5


def test_a_breaker_opens_after_failures_in_a_row_and_closes_after_one_probe() -> None:
    breaker = Breaker(failures=2, cooldown=10.0)
    breaker.told(0.0, ok=False)
    breaker.told(0.0, ok=True)
    breaker.told(0.0, ok=False)
    assert breaker.state == "closed"
    breaker.told(1.0, ok=False)
    assert (breaker.state, breaker.ask(2.0)) == ("open", 9.0)
    assert (breaker.ask(11.0), breaker.state) == (0.0, "probing")
    assert breaker.ask(11.0) > 0, "one probe at a time"
    breaker.told(12.0, ok=True, probe=True)
    assert (breaker.state, breaker.ask(12.0)) == ("closed", 0.0)


def test_a_probe_that_fails_or_says_nothing_is_not_the_last() -> None:
    breaker = Breaker(failures=1, cooldown=10.0)
    breaker.told(0.0, ok=False)
    assert breaker.ask(10.0) == 0.0
    breaker.told(10.0, ok=None, probe=True)
    assert breaker.ask(10.0) == 0.0
    breaker.told(10.5, ok=False, probe=True)
    assert breaker.ask(11.0) == 9.5


def test_calls_from_before_it_opened_decide_nothing() -> None:
    breaker = Breaker(failures=1, cooldown=10.0)
    breaker.told(0.0, ok=False)
    breaker.told(1.0, ok=True)
    assert breaker.state == "open"


def test_a_pause_is_anything_up_to_a_bound_that_doubles() -> None:
    assert [pause(n, 1.0, base=1.0, longest=5.0) for n in (1, 2, 3, 4, 99)] == [1.0, 2.0, 4.0, 5.0, 5.0]
    assert pause(3, 0.0) == 0.0
    assert pause(2, 0.5, base=1.0) == 1.0
