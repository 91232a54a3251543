"""A policy of somebody's own, watched: what it raises, what it answers amiss and what it answers twice is said."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, replace
from typing import Any

from ..errors import BadPolicy
from .bundle import Policy
from .named import POLICIES
from .retain import Retention

LEAST_S = 0.05
"""A hold that is to go on goes on for so long at least: each time costs as much as an event."""


@dataclass(frozen=True, slots=True)
class _Form:
    """What an answer must be."""

    told: str
    holds: Callable[[Any], bool]


def checked(policy: Policy, tiers: Collection[str]) -> Policy:
    """The policy whose questions raise BadPolicy, which names it and the question, for whatever cannot be used.

    Each is asked twice: a function that is not pure would make a journal of no use. `tiers` are those that there are.
    The policies that ship are as they are: tests have asked them. Raises BadPolicy for what is no function, and for
    the name of one that ships: its rows and journals could not be told from that one's.
    """
    if POLICIES.get(policy.name) is policy:
        return policy
    if not isinstance(policy.name, str) or not policy.name or policy.name in POLICIES:
        raise BadPolicy(f"a policy by the name {policy.name!r}; expected a word that no policy has that ships")
    forms = _forms(tiers)
    watched: dict[str, Any] = {}
    for each in fields(Policy):
        function = getattr(policy, each.name)
        if each.name == "name" or function is each.default:
            continue
        if not callable(function):
            raise BadPolicy(f"policy {policy.name!r}: {each.name} is {function!r}; expected a function")
        watched[each.name] = _watched(f"policy {policy.name!r}: {each.name}", function, forms[each.name])
    return replace(policy, **watched)


def _watched(who: str, function: Callable[..., Any], form: _Form) -> Callable[..., Any]:
    def ask(*given: Any) -> Any:
        try:
            first, second = function(*given), function(*given)
        except Exception as error:  # whatever a stranger's code may raise
            raise BadPolicy(f"{who} raised {type(error).__name__}: {error}") from error
        if not form.holds(first):
            raise BadPolicy(f"{who} answered {first!r}; expected {form.told}")
        if first != second:
            raise BadPolicy(f"{who} answered {first!r} and then {second!r} to the same question; expected one answer")
        return first

    return ask


def _forms(tiers: Collection[str]) -> dict[str, _Form]:
    there = ", ".join(tiers) or "none here"
    names = _Form(f"a tuple of names of tiers ({there})", lambda said: _names(said, tiers))
    retention = _Form(
        f"a Retention: seconds from 0 up, why in words, and names of tiers ({there})",
        lambda said: (
            isinstance(said, Retention)
            and _number(said.seconds)
            and said.seconds >= 0
            and isinstance(said.why, str)
            and _names(said.tiers, tiers)
        ),
    )
    briefly = _Form(
        f"{retention.told}; seconds are 0, or {LEAST_S:g} and more",
        lambda said: retention.holds(said) and (not said.seconds or said.seconds >= LEAST_S),
    )
    key = _Form("a tuple of numbers", lambda said: isinstance(said, tuple) and all(map(_number, said)))
    number = _Form("a number", _number)
    flag = _Form("True or False", lambda said: isinstance(said, bool))
    return {
        "order": key,
        "again": number,
        "admit": flag,
        "retain": retention,
        "renew": briefly,
        "mark": retention,
        "gives": key,
        "yields": flag,
        "preempt": key,
        "swap": names,
        "prefetch": number,
        "window": number,
        "evict": key,
    }


def _number(said: object) -> bool:
    # NaN is no place in any order, and an integer may be larger than all times.
    return isinstance(said, (int, float)) and said == said and (isinstance(said, float) or abs(said) < 1 << 1000)


def _names(said: object, tiers: Collection[str]) -> bool:
    return isinstance(said, tuple) and all(one in tiers for one in said)
