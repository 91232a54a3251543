"""What a program's own samplers, processors and id generators raise stays with them.

OpenTelemetry's SDK lets it through to whoever starts or ends a span, and it promises that tracing raises nothing
(specification, "Error handling in OpenTelemetry"): a program must not fail because it is traced.
"""

from __future__ import annotations

import logging

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span

_log = logging.getLogger(__name__)
_told: set[str] = set()


def stand_in(name: str, context: Context, error: Exception) -> Span:
    """What takes the place of a span that could not be started in this context: its parent, recording nothing."""
    _tell("started", name, error)
    return trace.NonRecordingSpan(trace.get_current_span(context).get_span_context())


def end(span: Span, at: int | None = None) -> None:
    """Ends it, now or at this nanosecond since the epoch. A processor that raises costs what it would have done."""
    try:
        span.end(at)
    except Exception as error:  # anything: it is other people's code
        _tell("ended", getattr(span, "name", "a span"), error)


def _tell(what: str, name: str, error: Exception) -> None:
    """Once for each class of exception: it may be every span's."""
    key = f"{what} {type(error).__qualname__}"
    if key not in _told:
        _told.add(key)
        _log.warning(
            "%r could not be %s properly: a sampler, processor or id generator of the tracer provider raised. The "
            "program goes on without what it would have done; this is said once for each class of exception.",
            name,
            what,
            exc_info=error,
        )
