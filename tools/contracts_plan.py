"""A plan of calls, looked through without making one: does what each requires hold by then, and what would it cost?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Any

from .contracts import UNDECLARED, Contract, touch, waits
from .contracts_state import Standing, State, unmet
from .errors import Problem
from .places import Json


@dataclass(frozen=True, slots=True)
class Planned:
    """One call of a plan."""

    tool: str
    stands: Standing
    """Whether what it requires holds when its turn comes, if all before it do what they promise."""
    problems: tuple[Problem, ...]
    after: tuple[int, ...]
    """The earlier calls, from 0, that must be over before it begins."""


@dataclass(frozen=True, slots=True)
class Cost:
    """How long a plan takes, by what its tools took so far."""

    chain: float
    """Seconds, where calls that need not wait run side by side."""
    row: float
    """Seconds, one after the other."""
    unknown: tuple[str, ...]
    """Tools of which nothing was learned; they count for nothing."""


def rehearse(
    calls: Sequence[tuple[str, Mapping[str, Any]]],
    contracts: Mapping[str, Contract],
    facts: Mapping[str, Json],
) -> tuple[Planned, ...]:
    """Goes through the calls in their order, on the facts given and those that earlier calls promise."""
    state = State(facts)
    order = waits([touch(contracts.get(tool, UNDECLARED), arguments) for tool, arguments in calls])
    found = []
    for (tool, arguments), before in zip(calls, order, strict=True):
        contract = contracts.get(tool, UNDECLARED)
        missing = unmet(contract, arguments, state)
        kinds = {kind for kind, _ in missing}
        stands: Standing = "broken" if "broken" in kinds else "unknown" if kinds else "holds"
        found.append(Planned(tool, stands, tuple(problem for _, problem in missing), tuple(sorted(before))))
        state.done(contract, arguments)
        state.ensured(contract, arguments)
    return tuple(found)


def cost(plan: Sequence[Planned], seconds: Mapping[str, float]) -> Cost:
    """What it takes, if each tool takes so long."""
    ends: list[float] = []
    for each in plan:
        ends.append(max((ends[before] for before in each.after), default=0.0) + seconds.get(each.tool, 0.0))
    unknown = dict.fromkeys(each.tool for each in plan if each.tool not in seconds)
    return Cost(max(ends, default=0.0), sum(seconds.get(each.tool, 0.0) for each in plan), tuple(unknown))


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that is at least as large as this share of them. Raises ValueError for none."""
    if not values:
        raise ValueError("a quantile of no values")
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]
