"""Hints from outside about what to keep: the field's envelope, its five verbs, and an answer to every hint.

The envelope is that of vLLM and SGLang (`kv_hints`, protocol 0.1): a list of actions, each with its own type, version
and payload. A hint is a wish. One that is unknown or malformed changes nothing and is answered `rejected` with the
reason; its neighbours are heard all the same. Nothing here changes anything: it reads, checks and answers.

Payloads (times in seconds, tokens counted from a context's beginning, `stop` excluded):

    every verb  target: {"session": str, "branch": str} | {"mark": str} | {"blocks": [hex, ...]}
    Share       width: branches that are about to start from there
    Prefetch    tier: where to; "device" if it is not said
    Demote      tier: where to; if it is not said, only the order of eviction changes
    Pin         seconds, ranges: [{"start", "stop", "priority", "seconds"}, ...]
    Retain      ranges, or steps: steps of its graph until the session runs again (`priority_at`)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from .errors import MalformedHint
from .hashes import BlockHash
from .ranges import DEFAULT_PRIORITY, HIGHEST_PRIORITY, Range

PROTOCOL = "0.1"
ACTION_VERSION = "1"
MOST_ACTIONS = 64
"""In one envelope."""
LONGEST_NAME = 512
"""Of ids and names, in characters."""
LONGEST_S = 1e9
"""Some thirty years: a time that is as good as for ever, and still a number."""
MOST_ITEMS = 65536
"""Blocks of a target: a bound on what one hint may cost."""
MOST_RANGES = 64
"""In one hint. Every page of a context is looked for in every range, so this is what a hint costs for each block."""

Outcome = Literal["accepted", "clipped", "deferred", "rejected", "missing"]


@dataclass(frozen=True, slots=True)
class KvHintAction:
    """One versioned wish."""

    action_id: str
    action_type: str
    action_version: str
    payload: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KvHintsEnvelope:
    """What one message wishes for."""

    protocol_version: str
    message_id: str
    actions: tuple[KvHintAction, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Which context a hint is about: exactly one of the three ways to say it."""

    session: str | None = None
    branch: str = "main"
    mark: str | None = None
    blocks: tuple[BlockHash, ...] = ()
    """A chain, from its first block on."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many branches are about to start from a context."""

    target: Target
    width: int = 2


@dataclass(frozen=True, slots=True)
class Prefetch:
    """A context will be wanted soon: bring it up."""

    target: Target
    tier: str = "device"


@dataclass(frozen=True, slots=True)
class Demote:
    """A context will not be wanted soon: let it go first, or bring it down."""

    target: Target
    tier: str | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """Never evict a context until a time: a lease, within budgets."""

    target: Target
    until: float
    ranges: tuple[Range, ...] = ()


@dataclass(frozen=True, slots=True)
class Retain:
    """Evict a context later, or sooner, than others."""

    target: Target
    ranges: tuple[Range, ...]


Verb = Share | Prefetch | Demote | Pin | Retain


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one hint."""

    action_id: str
    outcome: Outcome
    why: str
    asked: int = 0
    """Pages that were asked for."""
    granted: int = 0
    """Pages for which the wish was granted; with `deferred`, those for which it is being carried out, or has been."""
    cap: int | None = None
    """Pages that the sender may have at most, if that is what decided."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What was understood of a message, in its order, and the answers to what was not."""

    message_id: str
    wishes: tuple[tuple[KvHintAction, Verb], ...]
    answers: tuple[Reply, ...]


def hear(data: object, *, now: float) -> Heard:
    """Everything that can be understood of a JSON object; never raises.

    A message that is no envelope is answered as a whole, under an empty action id.
    """
    try:
        message = envelope(data)
    except MalformedHint as fault:
        return Heard("", (), (Reply("", "rejected", str(fault)),))
    wishes, answers, seen = [], [], set()
    for action in message.actions:
        try:
            if action.action_id in seen:
                raise MalformedHint("its action_id was used before in this message: give each its own")
            wishes.append((action, understand(action, now=now)))
        except MalformedHint as fault:
            answers.append(Reply(action.action_id, "rejected", str(fault)))
        seen.add(action.action_id)
    return Heard(message.message_id, tuple(wishes), tuple(answers))


def envelope(data: object) -> KvHintsEnvelope:
    """The envelope in a JSON object; raises MalformedHint where it is none. Payloads are not looked into."""
    found = _mapping(data, "an envelope")
    version = _name(found, "protocol_version")
    if version.split(".")[0] != PROTOCOL.split(".")[0]:
        raise MalformedHint(f"protocol_version {version!r} is not spoken here: this is {PROTOCOL}")
    actions = _list(found, "actions", MOST_ACTIONS)
    return KvHintsEnvelope(version, _name(found, "message_id"), tuple(map(_action, actions)))


def understand(action: KvHintAction, *, now: float) -> Verb:
    """What an action asks for, its times counted from `now`; raises MalformedHint for what is not understood."""
    reader = _READERS.get(action.action_type.lower())
    if reader is None:
        raise MalformedHint(f"action_type {action.action_type!r} is none of {', '.join(_READERS)}")
    if action.action_version.split(".")[0] != ACTION_VERSION:
        what = f"{action.action_type} version {action.action_version!r}"
        raise MalformedHint(f"{what} is not spoken here: this is {ACTION_VERSION}")
    return reader(action.payload, now)


def priority_at(steps: int) -> int:
    """The priority of a context whose agent runs again after so many steps of its graph.

    KVFlow (arXiv 2507.07400) evicts by steps to execution, the largest first. Here they become
    priorities, so that they compete with others: 100 for the one that is about to run, four less a step, and never
    as low as what nothing is known of.
    """
    return max(DEFAULT_PRIORITY + 1, HIGHEST_PRIORITY - 4 * steps)


def answer(action: KvHintAction, *, asked: int, granted: int, why: str, cap: int | None = None) -> Reply:
    """The answer to a wish that was heard, by its counts: all, some, or none of the pages that are known."""
    outcome: Outcome = (
        "missing" if not asked else "accepted" if granted >= asked else "clipped" if granted else "rejected"
    )
    return Reply(action.action_id, outcome, why, asked, granted, cap)


def deferred(action: KvHintAction, *, asked: int, granted: int = 0, why: str) -> Reply:
    """The answer to a wish that is being carried out, or will be when it can."""
    return Reply(action.action_id, "deferred", why, asked, granted)


def _action(data: object) -> KvHintAction:
    found = _mapping(data, "an action")
    payload = _mapping(found.get("payload", {}), "a payload")
    return KvHintAction(
        _name(found, "action_id"),
        _name(found, "action_type"),
        _name(found, "action_version"),
        MappingProxyType(payload),
    )


def _share(payload: Mapping[str, Any], now: float) -> Verb:
    _only(payload, "target", "width")
    return Share(_target(payload), _count({"width": 2, **payload}, "width", least=1))


def _prefetch(payload: Mapping[str, Any], now: float) -> Verb:
    _only(payload, "target", "tier")
    return Prefetch(_target(payload), _name(payload, "tier") if "tier" in payload else "device")


def _demote(payload: Mapping[str, Any], now: float) -> Verb:
    _only(payload, "target", "tier")
    return Demote(_target(payload), _name(payload, "tier") if "tier" in payload else None)


def _pin(payload: Mapping[str, Any], now: float) -> Verb:
    _only(payload, "target", "seconds", "ranges")
    if "seconds" not in payload:
        raise MalformedHint("a pin needs seconds: every pin has an end")
    return Pin(_target(payload), now + _seconds(payload), _ranges(payload, now) if "ranges" in payload else ())


def _retain(payload: Mapping[str, Any], now: float) -> Verb:
    _only(payload, "target", "ranges", "steps", "seconds")
    target = _target(payload)
    if ("ranges" in payload) == ("steps" in payload):
        raise MalformedHint("a Retain has either ranges or steps")
    if "ranges" in payload:
        _only(payload, "target", "ranges")
        return Retain(target, _ranges(payload, now))
    until = now + _seconds(payload) if "seconds" in payload else math.inf
    return Retain(target, (Range(0, None, priority_at(_count(payload, "steps")), until),))


_READERS: Mapping[str, Callable[[Mapping[str, Any], float], Verb]] = MappingProxyType(
    {"share": _share, "prefetch": _prefetch, "demote": _demote, "pin": _pin, "retain": _retain}
)


def _target(payload: Mapping[str, Any]) -> Target:
    found = _mapping(payload.get("target"), "a target")
    _only(found, "session", "branch", "mark", "blocks")
    if sum(key in found for key in ("session", "mark", "blocks")) != 1 or (
        "branch" in found and "session" not in found
    ):
        raise MalformedHint(f"a target is a session (and its branch), a mark or blocks; found {sorted(found)}")
    if "session" in found:
        return Target(session=_name(found, "session"), branch=_name(found, "branch") if "branch" in found else "main")
    if "mark" in found:
        return Target(mark=_name(found, "mark"))
    names = _list(found, "blocks", MOST_ITEMS)
    try:
        blocks = tuple(BlockHash(bytes.fromhex(each)) for each in names)
    except (TypeError, ValueError) as fault:
        raise MalformedHint(f"blocks are names in hex: {fault}") from fault
    if not blocks:
        raise MalformedHint("a target of no blocks is none")
    return Target(blocks=blocks)


def _ranges(payload: Mapping[str, Any], now: float) -> tuple[Range, ...]:
    ranges = tuple(_range(each, now) for each in _list(payload, "ranges", MOST_RANGES))
    if not ranges:
        raise MalformedHint("no ranges say nothing: leave them out, or give one")
    return ranges


def _range(data: object, now: float) -> Range:
    found = _mapping(data, "a range")
    _only(found, "start", "stop", "priority", "seconds")
    stop = None if found.get("stop") is None else _count(found, "stop")
    start = _count(found, "start") if "start" in found else 0
    until = now + _seconds(found) if "seconds" in found else math.inf
    try:
        return Range(start, stop, _count(found, "priority"), until)
    except ValueError as fault:
        raise MalformedHint(str(fault)) from fault


def _mapping(data: object, what: str) -> dict[str, Any]:
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise MalformedHint(f"{what} is a JSON object; found {type(data).__name__}")
    return dict(data)


def _only(found: Mapping[str, Any], *known: str) -> None:
    if unknown := sorted(found.keys() - set(known)):
        raise MalformedHint(f"{', '.join(unknown)} is not understood here: there are {', '.join(known)}")


def _name(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        raise MalformedHint(f"{key} is a text of 1 to {LONGEST_NAME} characters; found {_short(value)}")
    return value


def _count(found: Mapping[str, Any], key: str, *, least: int = 0) -> int:
    value = found.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise MalformedHint(f"{key} is a whole number from {least} on; found {_short(value)}")
    return value


def _seconds(found: Mapping[str, Any]) -> float:
    value = found["seconds"]
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LONGEST_S:
        raise MalformedHint(f"seconds is a number above 0, of {LONGEST_S:g} at most; found {_short(value)}")
    return float(value)


def _list(found: Mapping[str, Any], key: str, most: int) -> Sequence[Any]:
    value = found.get(key)
    if not isinstance(value, list | tuple) or len(value) > most:
        raise MalformedHint(f"{key} is a list of at most {most}; found {_short(value)}")
    return value


def _short(value: object) -> str:
    """What was found, in few words: it may be anything, of any size."""
    if isinstance(value, list | tuple):
        return f"{len(value)} items"
    text = repr(value) if isinstance(value, str | int | float | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."
