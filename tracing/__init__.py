"""Traces of agents that go round in circles: OpenTelemetry spans for graphs, nodes, tools, models, engine.

    from sostenuto.tracing import instrument, provider
    undo = instrument(provider(trace_file="run.jsonl"))

Opening a span imports OpenTelemetry's API and nothing else. The names that need LangGraph, or the SDK, are
imported when they are first asked for: a program without a graph must not pay a second for one.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from opentelemetry.trace import TracerProvider

from .errors import BadTraceFile, MissingExporter, OtherProvider, TracingError
from .names import Facts, Value
from .propagate import parent_of_headers, trace_headers
from .records import Record, read_otlp_json
from .spans import ModelCall, Open, ToolCall, model_span, tool_span, tracer, work_span
from .tree import render_tree

__all__ = [
    "BadTraceFile",
    "Facts",
    "GraphTracer",
    "MissingExporter",
    "ModelCall",
    "OTLPJsonFile",
    "Open",
    "OtherProvider",
    "Record",
    "ToolCall",
    "TracingError",
    "Value",
    "instrument",
    "instrumented",
    "model_span",
    "parent_from",
    "parent_of_headers",
    "provider",
    "read_otlp_json",
    "records_of",
    "render_tree",
    "tool_span",
    "trace_headers",
    "tracer",
    "work_span",
]

_LAZY = {
    "GraphTracer": ".graph_callbacks",
    "OTLPJsonFile": ".setup",
    "instrumented": ".graph",
    "parent_from": ".graph_callbacks",
    "provider": ".setup",
    "records_of": ".setup",
}


def instrument(tracer_provider: TracerProvider | None = None, *, supersteps: bool = True) -> Callable[[], None]:
    """Traces every LangGraph run of this process; returns what undoes it. See `graph.instrument`."""
    from .graph import instrument as put_in  # only now: it imports LangGraph

    return put_in(tracer_provider, supersteps=supersteps)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {sorted(__all__)}")
    value = getattr(import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
