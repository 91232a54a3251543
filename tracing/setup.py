"""A provider with exporters, for programs that have none."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from .console import Console
from .encode import encode
from .sender import Sender

_log = logging.getLogger(__name__)


def provider(
    service_name: str | None = None,
    *,
    trace_file: str | Path | None = None,
    otlp: bool | str = False,
    console: bool = False,
    grace: float = 5.0,
) -> TracerProvider:
    """A tracer provider of its own; it does not become the global one. Call its `shutdown` when done.

    `service_name`: without one it is OTEL_SERVICE_NAME, or `sostenuto`. `trace_file`: spans are appended to it as
    OTLP JSON lines as they end; a full disk costs spans, and a warning, once. `console`: traces are printed to
    standard error as trees. `otlp`: spans are sent by OTLP, to a URL (`http://HOST:4318`, `grpc://HOST:4317`), or
    for True to wherever the standard OTEL_EXPORTER_OTLP_* variables say; see `otlp.exporter`. A collector that is
    not there never blocks the program: a warning says so once, and `shutdown` waits `grace` seconds for it at most.
    Raises `BadEndpoint`, and `MissingExporter` if the protocol's exporter is not installed.
    """
    resource = Resource.create({"service.name": service_name} if service_name else None)
    if str(resource.attributes["service.name"]).startswith("unknown_service"):  # the SDK's, when nobody says
        resource = resource.merge(Resource({"service.name": "sostenuto"}))
    made = TracerProvider(resource=resource)
    if otlp is not False:
        made.add_span_processor(Sender(otlp, grace=grace))
    if trace_file is not None:
        made.add_span_processor(SimpleSpanProcessor(OTLPJsonFile(trace_file)))
    if console:
        made.add_span_processor(SimpleSpanProcessor(Console()))
    return made


class OTLPJsonFile(SpanExporter):
    """Writes spans as OTLP JSON lines, one trace request a line, as OTLP's file exporter does.

    Raises OSError if the file cannot be opened, and never later: what cannot be written is lost, and a warning
    says so, once.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = str(path)
        # Unbuffered: a buffer would keep what could not be written, and fail with it again and again.
        self._file = open(path, "ab", buffering=0)
        self._lock = threading.Lock()
        self._torn = self._warned = False

    def __repr__(self) -> str:
        return f"<OTLPJsonFile {self._path}{' closed' if self._file.closed else ''}>"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Hands them to the system; fails, without raising, if it does not take them or the file is closed."""
        line = json.dumps(encode(spans), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        rest = f"{line}\n".encode(errors="backslashreplace")  # a lone surrogate as JSON escapes it
        with self._lock:
            if self._file.closed:
                return SpanExportResult.FAILURE
            try:
                self._write(rest)
            except OSError as error:
                self._warn(error)
                return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Closes the file."""
        with self._lock:
            try:
                self._file.close()
            except OSError as error:  # some file systems say only now that they could not write
                self._warn(error)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True: every export has been handed over already."""
        return True

    def _write(self, rest: bytes) -> None:
        if self._torn:  # half a line stands there: end it, so that this one can be read
            rest = b"\n" + rest
        while rest:
            written = self._file.write(rest)
            rest = rest[written:]
            self._torn = bool(rest) and (self._torn or written > 0)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            self._warned = True
            _log.warning(
                "spans could not be written to %s: %s. The program goes on, and what it traces is lost until the file "
                "can be written again; this is said once.",
                self._path,
                error,
            )
