"""Spans of OpenTelemetry's SDK as OTLP JSON, and as plain values."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from .records import Record, decode


def records_of(spans: Sequence[ReadableSpan]) -> list[Record]:
    """Finished spans of the SDK as plain values, as `read_otlp_json` would give them."""
    return list(decode(encode(spans)))


def encode(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """Spans as one OTLP JSON trace request: ids in hex, 64-bit integers as strings, enums as numbers."""
    resources: dict[Any, tuple[Resource, dict[Any, tuple[Any, list[dict[str, Any]]]]]] = {}
    for span in spans:
        _, scopes = resources.setdefault(span.resource, (span.resource, {}))
        scope = span.instrumentation_scope
        scopes.setdefault(scope, (scope, []))[1].append(_span(span))
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes(resource.attributes)},
                "scopeSpans": [_scope(scope, found) for scope, found in scopes.values()],
            }
            for resource, scopes in resources.values()
        ]
    }


def _scope(scope: Any, spans: list[dict[str, Any]]) -> dict[str, Any]:
    if scope is None:
        return {"spans": spans}
    told = {"name": scope.name, "version": scope.version or ""}
    return {"scope": told, "spans": spans} | ({"schemaUrl": scope.schema_url} if scope.schema_url else {})


def _span(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    if context is None:
        raise ValueError(f"span {span.name!r} has no context: it was not made by a tracer")
    found: dict[str, Any] = {
        "traceId": format_trace_id(context.trace_id),
        "spanId": format_span_id(context.span_id),
        "flags": _flags(int(context.trace_flags), span.parent is not None and span.parent.is_remote),
        "name": span.name,
        "kind": span.kind.value + 1,  # OTLP keeps 0 for unspecified
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": _attributes(span.attributes),
        "droppedAttributesCount": span.dropped_attributes,
        "events": [
            {
                "timeUnixNano": str(each.timestamp),
                "name": each.name,
                "attributes": _attributes(each.attributes),
            }
            for each in span.events
        ],
        "links": [
            {
                "traceId": format_trace_id(each.context.trace_id),
                "spanId": format_span_id(each.context.span_id),
                "flags": _flags(int(each.context.trace_flags), each.context.is_remote),
                "attributes": _attributes(each.attributes),
            }
            for each in span.links
        ],
        "status": {"code": span.status.status_code.value}
        | ({"message": span.status.description} if span.status.description else {}),
    }
    if context.trace_state:
        found["traceState"] = context.trace_state.to_header()
    if span.parent is not None:
        found["parentSpanId"] = format_span_id(span.parent.span_id)
    return found


def _flags(flags: int, remote: bool) -> int:
    """The W3C flags, and whether the parent came from another process (bits 8 and 9 of OTLP's `flags`)."""
    return flags | 0x100 | (0x200 if remote else 0)


def _attributes(attributes: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in (attributes or {}).items()]


def _value(value: object) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            # JSON knows no NaN and no infinity; protobuf's JSON form writes them as strings.
            return {"doubleValue": value if math.isfinite(value) else _NOT_FINITE[str(value)]}
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode("ascii")}
        case Mapping():
            return {"kvlistValue": {"values": _attributes(value)}}
        case list() | tuple():
            return {"arrayValue": {"values": [_value(each) for each in value]}}
    return {"stringValue": str(value)} if value is not None else {}


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
