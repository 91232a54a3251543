"""A provider with exporters, for programs that have none."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from .console import Console
from .encode import encode
from .sender import Sender


def provider(
    service_name: str | None = None,
    *,
    trace_file: str | Path | None = None,
    otlp: bool | str = False,
    console: bool = False,
    grace: float = 5.0,
) -> TracerProvider:
    """A tracer provider of its own; it does not become the global one. Call its `shutdown` when done.

    `service_name`: without one it is OTEL_SERVICE_NAME, or `sostenuto`. `trace_file`: spans are appended to it
    as OTLP JSON lines as they end. `console`: traces are printed to standard error as trees. `otlp`: spans are
    sent by OTLP, to a URL (`http://HOST:4318`, `grpc://HOST:4317`), or for True to wherever the standard
    OTEL_EXPORTER_OTLP_* variables say; see `otlp.exporter`. A collector that is not there never blocks the
    program: a warning says so once, and `shutdown` waits `grace` seconds for it at most. Raises `BadEndpoint`,
    and `MissingExporter` if the protocol's exporter is not installed.
    """
    resource = Resource.create({"service.name": service_name} if service_name else None)
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # the SDK's, when nobody says
        resource = resource.merge(Resource({"service.name": "sostenuto"}))
    made = TracerProvider(resource=resource)
    if otlp:
        made.add_span_processor(Sender(otlp, grace=grace))
    if trace_file is not None:
        made.add_span_processor(SimpleSpanProcessor(OTLPJsonFile(trace_file)))
    if console:
        made.add_span_processor(SimpleSpanProcessor(Console()))
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
