"""What a tool does to the world: its effects, the resources it touches, what must hold before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias, get_args
from urllib.parse import quote

from .errors import BadSchema, BadTool, Problem
from .places import Json
from .schema import check_schema
from .validate import Validator

Effects: TypeAlias = Literal["pure", "read", "write", "external"]
"""`pure` only computes, `read` looks, `write` changes what it names, `external` may do anything at all."""
EFFECTS: tuple[Effects, ...] = get_args(Effects)
"""From the most harmless to the one of which least is known."""
EVERYTHING = "*"
"""The resource that stands for all of them."""


@dataclass(frozen=True, slots=True)
class Contract:
    """An operator's word about a tool. What a server says of its own tools is a hint, and never becomes one by itself.

    Resources and facts are named by text in which `{argument}` stands for an argument of the call, and a `*` at the
    end for anything: `db:orders/{id}`, `fs:/repo/*`.
    """

    effects: Effects = "external"
    idempotent: bool = False
    """Done twice is done once: it may be tried again. Pure tools and reads are so by nature."""
    commutes: bool = False
    """Its calls may run in any order with other calls of one turn."""
    reads: tuple[str, ...] = ()
    """Resources its result depends on; nothing said of a `read` is everything."""
    writes: tuple[str, ...] = ()
    """Resources it changes; nothing said of a `write` or an `external` is everything."""
    requires: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    """Facts that must hold before it is called, each with a JSON Schema of what it must be."""
    ensures: Mapping[str, Json] = field(default_factory=dict)
    """Facts that hold once it has answered; text in them may name arguments."""
    returns: Mapping[str, Json] | None = None
    """A JSON Schema of its result; what does not fit never reaches the model as a result."""
    cache: bool = False
    """Its result is kept for as long as what it reads has not changed."""

    def __post_init__(self) -> None:
        """Raises BadTool for a contract that contradicts itself."""
        if self.effects not in EFFECTS:
            raise BadTool("?", f"effects {self.effects!r}", f"one of {', '.join(EFFECTS)}")
        if self.harmless and (self.writes or self.ensures):
            raise BadTool("?", f"a {self.effects} tool that changes something", "no `writes` and no `ensures`")
        if self.effects == "pure" and self.reads:
            raise BadTool("?", "a pure tool that reads resources", "`read` as its effects")
        if self.cache and not (self.effects == "pure" or (self.effects == "read" and self.reads)):
            raise BadTool("?", f"a cache for a tool that is {self.effects}", "a pure one, or a read that says of what")
        for name, schema in [*self.requires.items(), *([("returns", self.returns)] if self.returns else [])]:
            try:
                check_schema(schema)
            except BadSchema as bad:
                raise BadTool("?", f"{name} at {bad.path or '/'}: {bad.found}", bad.expected) from bad

    @property
    def harmless(self) -> bool:
        """It changes nothing: cutting it off, or calling it again, does no damage."""
        return self.effects in ("pure", "read")

    @property
    def repeatable(self) -> bool:
        """A second attempt does no more than the first."""
        return self.harmless or self.idempotent


UNDECLARED = Contract()
"""Of a tool of which nobody has said anything: it may do anything."""


@dataclass(frozen=True, slots=True)
class Touch:
    """What one call touches, its arguments filled in."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    commutes: bool = False

    def conflicts(self, other: Touch) -> bool:
        """Whether the order of the two can make a difference."""
        if self.commutes and other.commutes:
            return False
        return overlap(self.writes, (*other.writes, *other.reads)) or overlap(self.reads, other.writes)


def touch(contract: Contract, arguments: Mapping[str, Any]) -> Touch:
    """What a call touches, the facts that it requires and ensures among it.

    An argument that is not there touches whatever stands at its place.
    """
    reads, writes = contract.reads, contract.writes
    if not reads and contract.effects in ("read", "external"):
        reads = (EVERYTHING,)
    if not writes and not contract.harmless:
        writes = (EVERYTHING,)
    return Touch(
        tuple(filled(name, arguments) for name in (*reads, *contract.requires)),
        tuple(filled(name, arguments) for name in (*writes, *contract.ensures)),
        contract.commutes,
    )


def waits(touches: Sequence[Touch]) -> tuple[frozenset[int], ...]:
    """For every call of a turn, the earlier ones that must be over before it begins.

    Reads wait for nothing but earlier writes of what they read; writes wait for whatever earlier call they disturb.
    Nobody waits for a later call, so nobody waits in a circle.
    """
    return tuple(
        frozenset(before for before in range(place) if touches[before].conflicts(each))
        for place, each in enumerate(touches)
    )


def overlap(left: Sequence[str], right: Sequence[str]) -> bool:
    """Whether two sets of resources have one in common."""
    return any(_same(one, other) for one in left for other in right)


def filled(name: str, arguments: Mapping[str, Any]) -> str:
    """A name with its arguments; what an argument says can neither add a part to it nor widen it."""
    parts = name.split("{")
    text = parts[0]
    for part in parts[1:]:
        argument, closed, rest = part.partition("}")
        if not closed:
            raise BadTool("?", f"the name {name!r}", "a } for every {")
        if argument not in arguments:
            return text + EVERYTHING
        text += quote(str(arguments[argument]), safe="") + rest
    return text


def misfits(schema: Mapping[str, Json], value: Json) -> tuple[Problem, ...]:
    """What about a value does not fit a schema that a contract or a grant names."""
    return checker(schema).problems(value)


def checker(schema: Mapping[str, Json]) -> Validator:
    """One for a schema, kept: it is made once for schemas that read the same."""
    return _validator(json.dumps(schema))


@lru_cache(maxsize=1024)
def _validator(schema: str) -> Validator:
    return Validator(json.loads(schema))


def _same(one: str, other: str) -> bool:
    if one.endswith(EVERYTHING):
        stem = one[:-1]
        return other.startswith(stem) or (other.endswith(EVERYTHING) and stem.startswith(other[:-1]))
    return one == other or (other.endswith(EVERYTHING) and one.startswith(other[:-1]))
