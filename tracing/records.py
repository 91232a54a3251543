"""Spans as plain values, read from OTLP JSON: our own files, a collector's, or what a query answered."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import hexdigits
from typing import IO, Any

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
    scope: str = ""
    """The name of the instrumentation that made it."""

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) / 1e9


def read_otlp_json(path: str | Path, *, faults: list[BadTraceFile] | None = None) -> list[Record]:
    """The spans of a file of OTLP JSON, in its order; objects for metrics and logs are passed over.

    Usually an object a line. Objects over several lines, a list of them, and the `result` of a query of
    Jaeger's are read too. Raises `BadTraceFile` naming the line, and OSError if the file cannot be read. Given
    a list of `faults`, what cannot be read is put there and left out: a killed process leaves half a line.
    """
    with open(path, "rb") as file:
        return read_spans(file, str(path), faults=faults)


def read_spans(file: IO[bytes], name: str, *, faults: list[BadTraceFile] | None = None) -> list[Record]:
    """The same from what is open already, such as a pipe: it is read once, from where it stands to its end."""
    found: list[Record] = []
    for number, text, value in _objects(file):
        try:
            if isinstance(value, Exception):
                raise value
            found += list(decode(value))  # all of an object or nothing
        except _BROKEN as error:
            fault = BadTraceFile(name, number, _found(text, error))
            if faults is None:
                raise fault from error
            faults.append(fault)
    return found


def decode(request: Mapping[str, Any]) -> Iterator[Record]:
    """The spans of one OTLP JSON trace request; what is null there is as good as absent."""
    if "result" in request and "resourceSpans" not in request:
        request = request["result"]
    if "resourceSpans" not in request and ("resourceMetrics" in request or "resourceLogs" in request):
        return
    for group in request["resourceSpans"] or ():
        resource = _attributes(group.get("resource") or {})
        for scope in group.get("scopeSpans") or ():
            named = str((scope.get("scope") or {}).get("name") or "")
            for span in scope.get("spans") or ():
                yield _record(span, resource, named)


def traces(spans: Iterable[Record]) -> dict[str, list[Record]]:
    """Spans by trace, traces and spans in the order in which they began; of equals the longer one first.

    A span that is there twice, because it was sent again or written by two exporters, is taken once.
    """
    found: dict[str, dict[str, Record]] = {}
    for span in sorted(spans, key=lambda span: (span.start, -span.end, span.span_id)):
        found.setdefault(span.trace_id, {}).setdefault(span.span_id, span)
    return {trace: list(each.values()) for trace, each in found.items()}


def family(spans: Sequence[Record]) -> tuple[list[Record], dict[str, list[Record]]]:
    """The spans of one trace that have no parent among them, and those under each, by its id.

    Every span is reached from the top: where broken ids make a ring of parents, its first span stands there.
    """
    known = {span.span_id: span for span in spans}
    below: dict[str, list[Record]] = {span.span_id: [] for span in spans}
    roots = [span for span in spans if span.parent_id not in known]
    for span in spans:
        if span.parent_id in known:
            below[span.parent_id].append(span)
    reached = set(_reached(roots, below))
    for span in spans:
        if span.span_id not in reached:
            below[span.parent_id or ""].remove(span)
            roots.append(span)
            reached.update(_reached([span], below))
    return roots, below


def _reached(tops: Sequence[Record], below: Mapping[str, Sequence[Record]]) -> Iterator[str]:
    waiting = list(tops)
    while waiting:
        yield (one := waiting.pop()).span_id
        waiting += below[one.span_id]


def _objects(file: IO[bytes]) -> Iterator[tuple[int, str, Any]]:
    """The JSON objects of a file, each with the line in which it begins and how it begins; errors where none is."""
    begun = False
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        value: Any
        try:
            value = json.loads(line)
        except _BROKEN as error:
            if not begun:  # an object over several lines
                yield from _whole(line + file.read(), number)
                return
            value = error
        begun = True
        yield from _each(number, line[:160].decode(errors="replace"), value)


def _whole(data: bytes, number: int) -> Iterator[tuple[int, str, Any]]:
    """The same of what begins in this line, wherever its lines end; behind an error it goes on with the next line."""
    text = data.decode("utf-8-sig", errors="replace")
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        if text[at].isspace():
            number += text[at] == "\n"
            at += 1
            continue
        value: Any
        try:
            value, end = decoder.raw_decode(text, at)
        except _BROKEN as error:
            value, end = error, at + len(text[at:].partition("\n")[0])
        yield from _each(number, text[at : at + 40], value)
        number += text.count("\n", at, end)
        at = end


def _each(number: int, text: str, value: Any) -> Iterator[tuple[int, str, Any]]:
    for one in value if isinstance(value, list) else [value]:
        yield number, text, one


def _found(text: str, error: Exception) -> str:
    match error:
        case KeyError():
            why = f"no {error}"
        case json.JSONDecodeError():
            why = error.msg  # its line would be one of the object's
        case _:
            why = str(error)
    return f"{text[:40].strip()!r} ({why})"


def _record(span: Mapping[str, Any], resource: Mapping[str, Any], scope: str) -> Record:
    status = span.get("status") or {}
    start = int(span.get("startTimeUnixNano") or 0)
    return Record(
        trace_id=_id(span["traceId"], 32),
        span_id=_id(span["spanId"], 16),
        parent_id=_id(span.get("parentSpanId") or "", 16) or None,
        name=str(span.get("name") or ""),
        kind=_named(_KINDS, span.get("kind") or 0, "SPAN_KIND_"),
        start=start,
        end=max(start, int(span.get("endTimeUnixNano") or 0)),
        status=_named(_STATUSES, status.get("code") or 0, "STATUS_CODE_"),
        message=str(status.get("message") or ""),
        attributes=_attributes(span),
        events=tuple(
            Event(str(each.get("name") or ""), int(each.get("timeUnixNano") or 0), _attributes(each))
            for each in span.get("events") or ()
        ),
        links=tuple(
            LinkTo(_id(each["traceId"], 32), _id(each["spanId"], 16), _attributes(each))
            for each in span.get("links") or ()
        ),
        resource=resource,
        scope=scope,
    )


def _id(text: str, digits: int) -> str:
    """Ids are hex in OTLP JSON; protobuf's own JSON form, which some write instead, has them in base64."""
    if len(text) in (0, digits) and set(text) <= set(hexdigits):
        return text.lower()
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error is one, and so is what it says of letters beyond ASCII
        raw = b""
    if 2 * len(raw) != digits:
        raise ValueError(f"expected an id of {digits} hexadecimal digits, found {text!r}")
    return raw.hex()


def _named(names: Sequence[str], found: int | str, prefix: str) -> str:
    """Enums are numbers in OTLP JSON; some write their names."""
    if isinstance(found, str) and not found.isdigit():
        return names[names.index(found.removeprefix(prefix).lower())]
    return names[int(found)]


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {each["key"]: _value(each.get("value") or {}) for each in holder.get("attributes") or ()}


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
            return tuple(_value(each or {}) for each in items.get("values") or ())
        case {"kvlistValue": items}:
            return {each["key"]: _value(each.get("value") or {}) for each in items.get("values") or ()}
    return None


_BROKEN = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)
"""What is raised where text is no JSON, or JSON is no OTLP."""
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_STATUSES = ("unset", "ok", "error")
