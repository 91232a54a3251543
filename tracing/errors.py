"""What can go wrong with traces.

TracingError
├── MissingExporter     an OTLP exporter is asked for and not installed
├── BadEndpoint         an address that spans cannot be sent to
├── BadTraceFile        a line of a trace file is not OTLP JSON
├── BadOption           an option of tracing has a value of the wrong kind
└── OtherOptions        LangGraph is already instrumented with other options
    └── OtherProvider   for another provider, that is
"""

from __future__ import annotations


class TracingError(Exception):
    """Any fault of tracing; never raised inside a traced program's own calls."""


class MissingExporter(TracingError, ImportError):
    """OTLP is asked for over a protocol whose exporter is not installed."""

    def __init__(self, protocol: str, extra: str) -> None:
        super().__init__(
            f"sending spans by OTLP over {protocol} needs opentelemetry-exporter-otlp-proto-{protocol.lower()}, which "
            f"is not installed: pip install 'sostenuto[{extra}]', or write them to a file with trace_file="
        )


class BadEndpoint(TracingError, ValueError):
    """An address that spans cannot be sent to, or a protocol that nobody here speaks."""

    def __init__(self, found: object, why: str) -> None:
        super().__init__(
            "expected True, False or the text of an address: http://HOST:4318 or https://... for OTLP over HTTP, or "
            f"grpc://HOST:4317 or grpcs://... for OTLP over gRPC; found {found!r}: {why}"
        )


class BadTraceFile(TracingError, ValueError):
    """A line of a trace file is not an OTLP JSON object."""

    def __init__(self, path: str, line: int, found: str) -> None:
        super().__init__(
            f"{path}, line {line}: expected one OTLP JSON object with 'resourceSpans', found {found}; "
            "cut the line out, or give a file that trace_file= wrote"
        )
        self.line = line
        self.found = found


class BadOption(TracingError, TypeError):
    """An option of tracing has a value of the wrong kind."""

    def __init__(self, name: str, found: object, expected: str) -> None:
        super().__init__(f"{name}: found {found!r}, expected {expected}")


class OtherOptions(TracingError, RuntimeError):
    """LangGraph is already instrumented, with other options."""

    def __init__(self, differing: list[str]) -> None:
        super().__init__(
            f"LangGraph is already instrumented with another {' and '.join(differing)}: call the undo that "
            "instrument() returned before instrumenting it anew, or ask for the same"
        )


class OtherProvider(OtherOptions):
    """LangGraph is already instrumented, and its spans or metrics go to another provider."""
