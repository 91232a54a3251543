"""A provider with exporters, for programs that have none; the only place that knows OpenTelemetry's SDK."""

from __future__ import annotations

import base64
import json
import math
import threading
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace import format_span_id, format_trace_id

from .errors import MissingExporter
from .records import Record, decode


def provider(
    service_name: str = "sostenuto", *, trace_file: str | Path | None = None, otlp: bool | str = False
) -> TracerProvider:
    """A tracer provider of its own; it does not become the global one.

    `trace_file`: spans are appended to it as OTLP JSON lines as they end. `otlp`: they are sent by OTLP over
    HTTP, to this URL, or for True to wherever the standard `OTEL_EXPORTER_OTLP_*` variables say (port 4318 of
    this machine by default). Call its `shutdown` when done. Raises `MissingExporter` if the OTLP exporter is
    not installed.
    """
    made = TracerProvider(resource=Resource.create({"service.name": service_name}))
    if trace_file is not None:
        made.add_span_processor(SimpleSpanProcessor(OTLPJsonFile(trace_file)))
    if otlp:
        made.add_span_processor(BatchSpanProcessor(_otlp(otlp)))
    return made


class OTLPJsonFile(SpanExporter):
    """Writes spans as OTLP JSON lines, one trace request a line, as OTLP's file exporter does."""

    def __init__(self, path: str | Path) -> None:
        self._file = open(path, "a", encoding="utf-8")
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<OTLPJsonFile {self._file.name}{' closed' if self._file.closed else ''}>"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Writes them and hands them to the system; fails, without raising, once the file is closed."""
        line = json.dumps(encode(spans), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        with self._lock:
            if self._file.closed:
                return SpanExportResult.FAILURE
            self._file.write(line + "\n")
            self._file.flush()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file."""
        with self._lock:
            self._file.close()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True: every export has flushed already."""
        return True


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


def _otlp(to: bool | str) -> SpanExporter:
    try:
        module = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    except ImportError as error:
        raise MissingExporter from error
    made: SpanExporter = module.OTLPSpanExporter(endpoint=to) if isinstance(to, str) else module.OTLPSpanExporter()
    return made


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
