"""Spans as plain values, read from OTLP JSON lines."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import BadTraceFile


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a span."""

    name: str
    time: int
    """Nanoseconds since the epoch."""
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LinkTo:
    """A span that another one points to without standing under it."""

    trace_id: str
    span_id: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Record:
    """A finished span. Ids are lower-case hex."""

    trace_id: str
    span_id: str
    parent_id: str | None
    name: str
    kind: str
    """`internal`, `server`, `client`, `producer` or `consumer`."""
    start: int
    end: int
    """Nanoseconds since the epoch."""
    status: str = "unset"
    """`unset`, `ok` or `error`."""
    message: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Event] = ()
    links: Sequence[LinkTo] = ()
    resource: Mapping[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e9


def read_otlp_json(path: str | Path) -> list[Record]:
    """The spans of a file of OTLP JSON lines, in its order. Raises `BadTraceFile` naming the line."""
    found: list[Record] = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                found.extend(decode(json.loads(line)))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise BadTraceFile(str(path), number, f"{line[:40].strip()!r} ({error})") from error
    return found


def decode(request: Mapping[str, Any]) -> Iterator[Record]:
    """The spans of one OTLP JSON trace request."""
    for group in request["resourceSpans"]:
        resource = _attributes(group.get("resource", {}))
        for scope in group.get("scopeSpans", ()):
            for span in scope.get("spans", ()):
                yield _record(span, resource)


def _record(span: Mapping[str, Any], resource: Mapping[str, Any]) -> Record:
    status = span.get("status", {})
    return Record(
        trace_id=span["traceId"],
        span_id=span["spanId"],
        parent_id=span.get("parentSpanId") or None,
        name=span["name"],
        kind=_KINDS[int(span.get("kind", 0))],
        start=int(span["startTimeUnixNano"]),
        end=int(span["endTimeUnixNano"]),
        status=_STATUSES[int(status.get("code", 0))],
        message=status.get("message", ""),
        attributes=_attributes(span),
        events=tuple(
            Event(each["name"], int(each["timeUnixNano"]), _attributes(each)) for each in span.get("events", ())
        ),
        links=tuple(LinkTo(each["traceId"], each["spanId"], _attributes(each)) for each in span.get("links", ())),
        resource=resource,
    )


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {each["key"]: _value(each["value"]) for each in holder.get("attributes", ())}


def _value(value: Mapping[str, Any]) -> Any:
    match value:
        case {"stringValue": str(text)}:
            return text
        case {"boolValue": bool(truth)}:
            return truth
        case {"intValue": number}:
            return int(number)
        case {"doubleValue": number}:
            return float(number)
        case {"bytesValue": str(text)}:
            return base64.b64decode(text)
        case {"arrayValue": items}:
            return tuple(_value(each) for each in items.get("values", ()))
        case {"kvlistValue": items}:
            return {each["key"]: _value(each["value"]) for each in items.get("values", ())}
    return None


_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
