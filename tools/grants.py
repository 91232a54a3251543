"""Grants: who may call which tool, with which arguments, how often and until when. They can be narrowed, never widened.

A grant's code is made with its parent's, the first one's with a secret key (as macaroons are chained: Birgisson et al.,
NDSS 2014). So whoever holds a grant can make narrower ones of it and nobody can make a wider one.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .contracts import EFFECTS, Effects, misfits
from .errors import BadSchema, BadTool, Problem
from .grants_names import canonical, tool_digest
from .places import Json
from .schema import check_schema
from .spec import Tool


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The most that a node of a graph may do with a tool."""

    constraint: Mapping[str, Json] = field(default_factory=dict)
    """A JSON Schema that the arguments must fit besides the tool's own."""
    calls: int | None = None
    """How often in one session, forks and rollbacks and all."""
    seconds: float | None = None
    """How long, from when it is first needed in a session."""
    effects: Effects = "external"
    """What the tool's contract may say at most."""

    def __post_init__(self) -> None:
        """Raises BadTool for what could not be kept."""
        try:
            check_schema(self.constraint)
        except BadSchema as bad:
            raise BadTool("?", f"a constraint with, at {bad.path or '/'}, {bad.found}", bad.expected) from bad
        if '"$ref"' in json.dumps(self.constraint):
            raise BadTool("?", "a constraint that refers to another schema", "one that is written out")
        if self.calls is not None and self.calls < 0:
            raise BadTool("?", f"calls {self.calls}", "0 or more, or None for any number")
        if self.seconds is not None and not self.seconds > 0:
            raise BadTool("?", f"seconds {self.seconds}", "a number above 0, or None for ever")
        if self.effects not in EFFECTS:
            raise BadTool("?", f"effects {self.effects!r}", f"one of {', '.join(EFFECTS)}")


@dataclass(frozen=True, slots=True)
class Holder:
    """For whom a grant is, and for which tool. Empty text is anyone, in all but the tool and its digest."""

    tenant: str
    tool: str
    digest: str
    """Of the tool as it was when it was granted: one that has changed since is another tool."""
    server: str = ""
    session: str = ""
    task: str = ""
    """The run of a node."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A right. Made by `Book`; one that was made or changed by hand fails its check."""

    id: str
    serial: int
    """Grows with every grant, so that all of a session's can be revoked at once."""
    parent: str
    holder: Holder
    constraint: Mapping[str, Json]
    effects: Effects
    calls: int | None
    since: float
    until: float | None
    """Seconds since 1970, as `since`."""
    issuer: str
    reason: str
    mac: str = ""

    def signed(self, key: bytes) -> Grant:
        """The same with its code under a key."""
        return replace(self, mac=_mac(self, key))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a chain of grants does not allow a call."""

    code: str
    """missing, forged, foreign, revoked, early, expired, spent, changed, effects or constraint."""
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that somebody wants to make."""

    holder: Holder
    arguments: Mapping[str, Any]
    effects: Effects


def holder_of(tool: Tool, tenant: str, *, server: str = "", session: str = "", task: str = "") -> Holder:
    """Who would make a call of this tool, as it is now."""
    return Holder(tenant, tool.name, tool_digest(tool), server, session, task)


def genuine(chain: Sequence[Grant], key: bytes) -> bool:
    """Whether each was made of the one before it, and none allows more than that one. The first needs the key."""
    secret, before = key, None
    for grant in chain:
        if not hmac.compare_digest(grant.mac, _mac(grant, secret)):
            return False
        if grant.parent != (before.id if before else "") or (before and not _within(grant, before)):
            return False
        secret, before = bytes.fromhex(grant.mac), grant
    return bool(chain)


def refusal(chain: Sequence[Grant], asked: Asked, now: float) -> Refusal | None:
    """What a genuine chain has against a call at this time; None if it allows it. Every link must allow it."""
    if not chain:
        return Refusal("missing", (Problem("", f"no grant for {asked.holder.tool}"),))
    for grant in chain:
        if found := _against(grant, asked, now):
            return found
    problems = [problem for grant in chain for problem in misfits(grant.constraint, dict(asked.arguments))]
    return Refusal("constraint", tuple(dict.fromkeys(problems))) if problems else None


def narrowed(tool: Tool, constraints: Sequence[Mapping[str, Json]]) -> Tool:
    """The tool as a grammar should see it under these constraints; its name, and what a model reads, stay."""
    parts = [part for part in constraints if part]
    if not parts:
        return tool
    schema: dict[str, Any] = dict(tool.parameters)
    properties: dict[str, Any] = dict(schema.get("properties", {}))
    rest: list[Mapping[str, Json]] = []
    for part in parts:
        stated: Any = part.get("properties", {})
        for name, inner in stated.items():
            properties[name] = _both(properties[name], inner) if name in properties else inner
        wanted: Any = part.get("required", [])
        schema["required"] = list(dict.fromkeys([*schema.get("required", []), *wanted]))
        if others := {key: value for key, value in part.items() if key not in ("properties", "required", "type")}:
            rest.append(others)
    schema["properties"] = properties
    if rest:
        schema["allOf"] = [*schema.get("allOf", []), *rest]
    return replace(tool, parameters=schema)


def _both(one: Any, other: Any) -> Any:
    if not isinstance(one, Mapping) or not isinstance(other, Mapping):
        return {"allOf": [one, other]}
    same = all(one[key] == other[key] for key in one.keys() & other.keys())
    return {**one, **other} if same else {"allOf": [one, other]}


def _against(grant: Grant, asked: Asked, now: float) -> Refusal | None:
    for name in ("tenant", "tool", "server", "session", "task"):
        held, wanted = getattr(grant.holder, name), getattr(asked.holder, name)
        if held and held != wanted:
            return Refusal("foreign", (Problem("", f"the grant is for another {name}"),))
    if grant.holder.digest != asked.holder.digest:
        return Refusal("changed", (Problem("", f"{grant.holder.tool} has changed since it was granted"),))
    if now < grant.since:
        return Refusal("early", (Problem("", "the grant does not hold yet"),))
    if grant.until is not None and now >= grant.until:
        return Refusal("expired", (Problem("", "the grant's time is over"),))
    if EFFECTS.index(asked.effects) > EFFECTS.index(grant.effects):
        told = f"{asked.holder.tool} is {asked.effects}, and the grant allows {grant.effects} at most"
        return Refusal("effects", (Problem("", told),))
    return None


def _within(grant: Grant, parent: Grant) -> bool:
    for name in ("tenant", "tool", "digest", "server", "session", "task"):
        held = getattr(parent.holder, name)
        if held and getattr(grant.holder, name) != held:
            return False
    return (
        _least(grant.calls, parent.calls) == grant.calls
        and _least(grant.until, parent.until) == grant.until
        and grant.since >= parent.since
        and EFFECTS.index(grant.effects) <= EFFECTS.index(parent.effects)
    )


def _least(one: float | None, other: float | None) -> float | None:
    return other if one is None else one if other is None else min(one, other)


def _mac(grant: Grant, key: bytes) -> str:
    body = {name: getattr(grant, name) for name in _SIGNED}
    body["holder"] = [getattr(grant.holder, name) for name in Holder.__slots__]
    return hmac.new(key, canonical(body).encode(), "sha256").hexdigest()


_SIGNED = tuple(name for name in Grant.__slots__ if name != "mac")
