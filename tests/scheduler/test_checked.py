"""Policies of somebody's own: what they raise, and what they answer amiss, is told with their name and the question."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from math import inf, nan
from typing import Any

import pytest

from sostenuto.scheduler import POLICIES, BadPolicy, Policy, Retention, checked
from sostenuto.scheduler.policies.sostenuto import SOSTENUTO

MADE = count()


def own(**questions: Callable[..., Any]) -> Policy:
    return Policy("mine", **questions)


def broken(*given: object) -> Any:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("question", "answer", "told"),
    [
        ("order", 3, "order answered 3; expected a tuple of numbers"),
        ("order", (1.0, nan), "order answered (1.0, nan); expected a tuple of numbers"),
        ("order", ("a",), "order answered ('a',); expected"),
        ("again", None, "again answered None; expected a number"),
        ("admit", None, "admit answered None; expected True or False"),
        ("admit", 1, "admit answered 1; expected True or False"),
        ("retain", 5.0, "retain answered 5.0; expected a Retention"),
        ("retain", Retention(nan, ""), "expected a Retention: seconds from 0 up"),
        ("retain", Retention(-1.0, ""), "expected a Retention: seconds from 0 up"),
        ("renew", Retention(1.0, "", ("moon",)), "names of tiers (host, disk)"),
        ("renew", Retention(1e-6, ""), "seconds are 0, or 0.05 and more"),
        ("again", 10**400, "expected a number"),
        ("mark", None, "mark answered None"),
        ("gives", "last", "gives answered 'last'"),
        ("yields", 0, "yields answered 0; expected True or False"),
        ("preempt", [1], "preempt answered [1]; expected a tuple of numbers"),
        ("swap", ["host"], "swap answered ['host']; expected a tuple of names of tiers (host, disk)"),
        ("prefetch", nan, "prefetch answered nan; expected a number"),
        ("window", "5", "window answered '5'; expected a number"),
        ("evict", 1.0, "evict answered 1.0; expected a tuple of numbers"),
    ],
)
def test_an_answer_that_cannot_be_used_is_told(question: str, answer: Any, told: str) -> None:
    ask = getattr(checked(own(**{question: lambda *given: answer}), ("host", "disk")), question)
    with pytest.raises(BadPolicy) as found:
        ask("world")
    assert str(found.value).startswith("policy 'mine': ")
    assert told in str(found.value)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("order", (True, 2, -inf)),
        ("again", inf),
        ("admit", False),
        ("retain", Retention(inf, "for ever", ("disk",))),
        ("swap", ()),
        ("evict", (0.5, 3)),
    ],
)
def test_a_good_answer_is_handed_on(question: str, answer: Any) -> None:
    ask = getattr(checked(own(**{question: lambda *given: answer}), ("disk",)), question)
    assert ask("world", "turn") is answer


def test_what_it_raises_is_told_with_its_cause() -> None:
    with pytest.raises(BadPolicy, match="policy 'mine': admit raised ZeroDivisionError: by nothing") as found:
        checked(own(admit=broken), ()).admit(None, None, 1)  # type: ignore[arg-type]
    assert isinstance(found.value.__cause__, ZeroDivisionError)


def test_a_function_that_is_not_pure_is_told() -> None:
    with pytest.raises(BadPolicy, match=r"answered .* and then .* to the same question"):
        checked(own(order=lambda world, turn: (next(MADE),)), ()).order(None, None)  # type: ignore[arg-type]


def test_what_is_no_function_is_told_before_anything_runs() -> None:
    with pytest.raises(BadPolicy, match="policy 'mine': order is 5; expected a function"):
        checked(Policy("mine", order=5), ())  # type: ignore[arg-type]


def test_those_that_ship_are_as_they_are_and_nobody_else_has_their_names() -> None:
    assert all(checked(policy, ()) is policy for policy in POLICIES.values())
    for name in ("sostenuto", "", 5):
        with pytest.raises(BadPolicy, match=f"by the name {name!r}; expected a word that no policy has that ships"):
            checked(Policy(name, order=SOSTENUTO.order), ())  # type: ignore[arg-type]
    mine = checked(Policy("mine", order=SOSTENUTO.order), ())
    assert mine.order is not SOSTENUTO.order
    assert mine.admit is Policy("x").admit, "what nobody changed needs no watching"
