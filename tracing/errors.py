"""What can go wrong with traces.

TracingError
├── MissingExporter     the OTLP exporter is asked for and not installed
├── BadTraceFile        a line of a trace file is not OTLP JSON
└── OtherProvider       LangGraph is already instrumented for another provider
"""

from __future__ import annotations


class TracingError(Exception):
    """Any fault of tracing; never raised inside a traced program's own calls."""


class MissingExporter(TracingError, ImportError):
    """OTLP over HTTP is asked for, and its exporter is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "sending spans by OTLP needs opentelemetry-exporter-otlp-proto-http, which is not installed: "
            "pip install 'sostenuto[otlp]', or write them to a file with trace_file="
        )


class BadTraceFile(TracingError, ValueError):
    """A line of a trace file is not an OTLP JSON object."""

    def __init__(self, path: str, line: int, found: str) -> None:
        super().__init__(
            f"{path}, line {line}: expected one OTLP JSON object with 'resourceSpans', found {found}; "
            "cut the line out, or give a file written by OTLPJsonFile"
        )


class OtherProvider(TracingError, RuntimeError):
    """LangGraph is already instrumented, and its spans go to another provider."""

    def __init__(self) -> None:
        super().__init__(
            "LangGraph is already instrumented for another tracer provider: call the undo that instrument() "
            "returned before instrumenting it for this one"
        )
