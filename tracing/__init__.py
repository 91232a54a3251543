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

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from .calls import ModelCall, ToolCall, model_span, tool_span
from .content import type_name
from .errors import BadEndpoint, BadOption, BadTraceFile, MissingExporter, OtherOptions, OtherProvider, TracingError
from .names import Facts, Value
from .options import Options, Redact, in_use, use
from .propagate import parent_of_headers, trace_headers
from .records import Record, read_otlp_json
from .spans import Happened, Open, off, tracer, work_span
from .summary import Summary, summarize
from .summary_text import render_summary
from .told import Place, begin_span, here, tell_span
from .tree import render_tree
from .turn_numbers import TurnNumbers, held, hold_ended, record_turn

__all__ = [
    "BadEndpoint",
    "BadOption",
    "BadTraceFile",
    "Facts",
    "GraphTracer",
    "Happened",
    "MissingExporter",
    "ModelCall",
    "OTLPJsonFile",
    "Open",
    "Options",
    "OtherOptions",
    "OtherProvider",
    "Place",
    "Record",
    "Redact",
    "Summary",
    "ToolCall",
    "TracingError",
    "TurnNumbers",
    "Value",
    "begin_span",
    "held",
    "here",
    "hold_ended",
    "in_use",
    "instrument",
    "instrumented",
    "model_span",
    "off",
    "parent_from",
    "parent_of_headers",
    "provider",
    "read_otlp_json",
    "record_turn",
    "records_of",
    "render_summary",
    "render_tree",
    "summarize",
    "tell_span",
    "tool_span",
    "trace_headers",
    "tracer",
    "type_name",
    "use",
    "work_span",
]

_LAZY = {
    "GraphTracer": ".graph_callbacks",
    "OTLPJsonFile": ".setup",
    "instrumented": ".graph",
    "parent_from": ".graph_callbacks",
    "provider": ".setup",
    "records_of": ".encode",
}


def instrument(
    tracer_provider: TracerProvider | None = None,
    *,
    meter_provider: MeterProvider | None = None,
    supersteps: bool = True,
    content: bool = False,
    redact: Redact | None = None,
    openinference: bool = False,
    langfuse: bool = False,
) -> Callable[[], None]:
    """Traces every LangGraph run of this process; returns what undoes it.

    Spans and metrics go to the given providers, else to the global ones. `supersteps=False` leaves out the span per
    superstep. `content` records messages, arguments, results and the text of exceptions; `redact` sees each piece of
    it first, by the name of its attribute, and gives what is recorded instead, or None for nothing. `openinference`
    and `langfuse` add the names that Phoenix and Langfuse know. Called again with the same arguments it changes
    nothing and returns the same undo. Callers of a graph never find one of its spans current, neither between the
    items of a stream nor afterwards. Raises `BadOption` for a value of the wrong kind, and `OtherOptions` (its kind
    `OtherProvider` for providers) if it is already on with other arguments.
    """
    options = Options(
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        supersteps=supersteps,
        content=content,
        redact=redact,
        openinference=openinference,
        langfuse=langfuse,
    )
    from .graph import instrument as put_in  # only now: it imports LangGraph

    return put_in(options)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it offers {sorted(__all__)}")
    value = getattr(import_module(_LAZY[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
