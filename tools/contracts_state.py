"""What is known of the world along one branch: versions of resources and facts, copied when a fork writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Literal

from .contracts import EVERYTHING, Contract, filled, misfits, overlap, touch
from .errors import Problem
from .places import Json

Standing = Literal["holds", "broken", "unknown"]
"""How a precondition stands."""

_numbers = count(1)
# One counter for all branches: a version that a rollback brought back is never given to other content.


class State:
    """Versions and facts of one branch. A fork sees what was, and from then on each only its own writes."""

    def __init__(self, facts: Mapping[str, Json] | None = None) -> None:
        self._facts: dict[str, Json] = dict(facts or {})
        self._versions: dict[str, int] = {}
        self._shared = False

    def fork(self) -> State:
        """A branch of its own, which costs nothing until one of the two writes. Also a place to go back to."""
        other = State.__new__(State)
        other._facts, other._versions = self._facts, self._versions
        self._shared = other._shared = True
        return other

    def fact(self, name: str) -> tuple[bool, Json]:
        """Whether it is known, and what it is."""
        return name in self._facts, self._facts.get(name)

    def know(self, facts: Mapping[str, Json]) -> None:
        """These hold now."""
        self._own()
        self._facts.update(facts)

    def wrote(self, resources: Iterable[str]) -> None:
        """These have changed: whatever depended on them is no longer known."""
        self._own()
        for name in resources:
            self._versions[name] = next(_numbers)
            for fact in [fact for fact in self._facts if _covers(name, fact)]:
                del self._facts[fact]

    def digest(self, resources: Iterable[str]) -> str:
        """Equal for as long as nobody on this branch has written to any of them."""
        latest = [
            [name, max((v for wrote, v in self._versions.items() if overlap((wrote,), (name,))), default=0)]
            for name in sorted(resources)
        ]
        return json.dumps(latest)

    def done(self, contract: Contract, arguments: Mapping[str, Any]) -> None:
        """A call has come to its end, whatever came of it: what it may have changed is changed."""
        writes = touch(contract, arguments).writes
        if writes:
            self.wrote(writes)

    def ensured(self, contract: Contract, arguments: Mapping[str, Any]) -> None:
        """A call has answered: what its contract promises holds."""
        if contract.ensures:
            self.know({filled(name, arguments): _value(value, arguments) for name, value in contract.ensures.items()})

    def _own(self) -> None:
        if self._shared:
            self._facts, self._versions, self._shared = dict(self._facts), dict(self._versions), False

    def __repr__(self) -> str:
        return f"<State {len(self._facts)} facts, {len(self._versions)} resources written>"


def unmet(contract: Contract, arguments: Mapping[str, Any], state: State) -> tuple[tuple[Standing, Problem], ...]:
    """The preconditions that do not hold: broken, or not known to hold."""
    found: list[tuple[Standing, Problem]] = []
    for template, schema in contract.requires.items():
        name = filled(template, arguments)
        known, value = state.fact(name)
        if not known:
            wanted = json.dumps(schema, ensure_ascii=False)
            found.append(("unknown", Problem("", f"it is not known whether {name} is {wanted}")))
        elif problems := misfits(schema, value):
            found.append(("broken", Problem("", f"{name} does not hold: {problems[0].message}")))
    return tuple(found)


def _value(value: Json, arguments: Mapping[str, Any]) -> Json:
    """Text that is nothing but one argument is that argument, of whatever kind."""
    if not isinstance(value, str):
        return value
    for name, given in arguments.items():
        if value == f"{{{name}}}":
            same: Json = given
            return same
    return filled(value, arguments) if "{" in value else value


def _covers(wrote: str, fact: str) -> bool:
    return fact.startswith(wrote[:-1]) if wrote.endswith(EVERYTHING) else fact == wrote
