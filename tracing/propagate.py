"""A trace that goes on in another process: W3C Trace Context in headers."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_W3C = TraceContextTextMapPropagator()


def trace_headers(place: SpanContext | None) -> dict[str, str]:
    """What a request must carry so that its server's spans stand under this one; nothing for None."""
    carrier: dict[str, str] = {}
    if place is not None:
        _W3C.inject(carrier, set_span_in_context(NonRecordingSpan(place), Context()))
    return carrier


def parent_of_headers(headers: Mapping[str, str]) -> SpanContext | None:
    """The span that a request's headers name as the one above it; None if they name none, or no valid one."""
    found = get_current_span(_W3C.extract(dict(headers), context=Context())).get_span_context()
    return found if found.is_valid else None
