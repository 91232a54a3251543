"""Opens and closes spans: parents given or ambient, nothing left behind, giving up is not failing.

A span is current only between `__enter__` and `__exit__` of its context manager. A cancelled call or a closed
generator leaves an attribute, an exception leaves `error.type`, an `exception` event and the status ERROR.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from types import TracebackType
from typing import Literal

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider

from . import names
from .names import Facts, Value

Outcome = Literal["done", "error", "cancelled", "closed", "quiet"]
Quiet = tuple[type[BaseException], ...]
"""Exceptions that are signals of a framework, not failures: the span's status stays unset."""

_CONVERSATION = otel.create_key("sostenuto-conversation")


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What is known of a model call before it starts; None is unknown or unset."""

    model: str
    provider: str = "sostenuto"
    conversation: str | None = None
    """None: that of the graph run around it, if any."""
    embedded: bool = True
    """Computed in this process: span kind INTERNAL instead of CLIENT."""
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: Sequence[str] = ()
    stream: bool | None = None
    output: str | None = None
    """`text`, `json` ..."""
    server: str | None = None
    port: int | None = None
    facts: Facts = field(default_factory=dict)
    """More attributes to set at the start, where samplers see them."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """What is known of a tool call before it starts. Arguments and results are content: not recorded."""

    name: str
    id: str | None = None
    kind: str = "function"
    description: str | None = None
    conversation: str | None = None
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Open:
    """A span that is being worked under."""

    span: Span

    def set(self, facts: Facts) -> None:
        """Sets attributes: token counts, KV facts, whatever became known by now."""
        if self.span.is_recording():
            self.span.set_attributes(facts)

    def event(self, name: str, facts: Facts | None = None) -> None:
        """Notes that something happened now."""
        if self.span.is_recording():
            self.span.add_event(name, facts)

    def fail(self, kind: str, message: str = "") -> None:
        """Marks the work as failed though nothing was raised."""
        if self.span.is_recording():
            self.span.set_attribute(names.ERROR_TYPE, kind)
            self.span.set_status(Status(StatusCode.ERROR, message or kind))

    @property
    def context(self) -> SpanContext:
        """Its identity, to be some other span's parent or to be linked to."""
        return self.span.get_span_context()


class Active:
    """Makes an OpenTelemetry context current within a `with`, and only there."""

    __slots__ = ("_context", "_token")

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = otel.attach(self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A coroutine thrown away with its event loop is closed from a foreign context: nothing to restore.
        if kind is GeneratorExit and otel.get_current() is not self._context:
            return
        otel.detach(self._token)


_given: TracerProvider | None = None


def use_provider(given: TracerProvider | None) -> None:
    """Sends spans opened without a tracer to this provider from now on; None: to the global one."""
    global _given
    _given = given


def tracer(provider: TracerProvider | None = None) -> Tracer:
    """Our tracer of this provider, else of the one in use, else of the global one."""
    provider = provider or _given
    if provider is not None:
        return provider.get_tracer(names.SCOPE, _version(), names.SCHEMA_URL)
    return trace.get_tracer(names.SCOPE, _version(), schema_url=names.SCHEMA_URL)


def off() -> bool:
    """Whether no span would be recorded: no provider anywhere, or spans are suppressed here."""
    return suppressed() or (
        _given is None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
    )


def suppressed() -> bool:
    """Whether somebody asked for no spans in this context, as exporters do round their own calls."""
    return bool(otel.get_value("suppress_instrumentation") or otel.get_value(otel._SUPPRESS_INSTRUMENTATION_KEY))


def in_conversation(context: Context, id: str | None) -> Context:
    """A context whose model and tool spans belong to this conversation; None changes nothing."""
    return context if id is None else otel.set_value(_CONVERSATION, id, context)


def current_conversation() -> str | None:
    """The conversation of the graph run around this call, if any."""
    found = otel.get_value(_CONVERSATION)
    return found if isinstance(found, str) else None


@contextmanager
def model_span(
    call: ModelCall, *, parent: SpanContext | None = None, tracer: Tracer | None = None, quiet: Quiet = ()
) -> Iterator[Open]:
    """`chat {model}` round a model call. Parent: the one given, else the ambient current span."""
    if suppressed() or (tracer is None and off()):
        yield _NOTHING
        return
    with _working(start_model(call, parent=parent, tracer=tracer), parent, quiet) as opened:
        yield opened


@contextmanager
def tool_span(
    call: ToolCall, *, parent: SpanContext | None = None, tracer: Tracer | None = None, quiet: Quiet = ()
) -> Iterator[Open]:
    """`execute_tool {tool}` round a tool call. Parent: the one given, else the ambient current span."""
    if suppressed() or (tracer is None and off()):
        yield _NOTHING
        return
    span = start(f"{names.EXECUTE_TOOL} {call.name}", _of_tool(call), parent=parent, tracer=tracer)
    with _working(span, parent, quiet) as opened:
        yield opened


@contextmanager
def work_span(
    name: str, facts: Facts, *, parent: SpanContext | None = None, tracer: Tracer | None = None
) -> Iterator[Open]:
    """A span of the engine's own work (`prefill`, `decode`, `kv.restore` ...). Parent as above."""
    if suppressed() or (tracer is None and off()):
        yield _NOTHING
        return
    with _working(start(name, facts, parent=parent, tracer=tracer), parent, ()) as opened:
        yield opened


def start_model(call: ModelCall, *, parent: SpanContext | None = None, tracer: Tracer | None = None) -> Span:
    """The span of `model_span`, not current, for streams; whoever starts it calls `finish`."""
    kind = SpanKind.INTERNAL if call.embedded else SpanKind.CLIENT
    return start(f"{names.CHAT} {call.model}", _of_model(call), parent=parent, tracer=tracer, kind=kind)


def start(
    name: str,
    facts: Facts,
    *,
    parent: SpanContext | None = None,
    tracer: Tracer | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
) -> Span:
    """A span that is not current; whoever starts it calls `finish`."""
    chosen = tracer or _tracer()
    return chosen.start_span(name, context=under(parent), kind=kind, attributes=facts)


def finish(span: Span, error: BaseException | None = None, *, quiet: Quiet = ()) -> Outcome:
    """Ends a span as its work ended, and says how that was."""
    outcome = note(span, error, quiet=quiet)
    span.end()
    return outcome


def note(span: Span, error: BaseException | None, *, quiet: Quiet = ()) -> Outcome:
    """Writes on a span how its work ended, without ending it."""
    match error:
        case None:
            return "done"
        case asyncio.CancelledError():
            span.set_attribute(names.OUTCOME, "cancelled")
            return "cancelled"
        case GeneratorExit():
            span.set_attribute(names.OUTCOME, "closed")
            return "closed"
        case _ if isinstance(error, quiet):
            return "quiet"
    span.set_attribute(names.ERROR_TYPE, type_name(error))
    span.record_exception(error)
    span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    return "error"


def under(parent: SpanContext | None) -> Context:
    """The ambient context, with this span as the current one if it is given."""
    ambient = otel.get_current()
    if parent is None:
        return ambient
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), ambient)


def type_name(error: BaseException) -> str:
    """The class of an exception as `error.type` wants it: module and name, builtins bare."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


@contextmanager
def _working(span: Span, parent: SpanContext | None, quiet: Quiet) -> Iterator[Open]:
    error: BaseException | None = None
    try:
        with Active(trace.set_span_in_context(span, under(parent))):
            yield Open(span)
    except BaseException as raised:
        error = raised
        raise
    finally:
        finish(span, error, quiet=quiet)


def _of_model(call: ModelCall) -> dict[str, Value]:
    found: Mapping[str, Value | None] = {
        names.OPERATION: names.CHAT,
        names.PROVIDER: call.provider,
        names.REQUEST_MODEL: call.model,
        names.REQUEST_MAX_TOKENS: call.max_tokens,
        names.REQUEST_TEMPERATURE: call.temperature,
        names.REQUEST_TOP_P: call.top_p,
        names.REQUEST_TOP_K: call.top_k,
        names.REQUEST_SEED: call.seed,
        names.REQUEST_STOP: tuple(call.stop) or None,
        names.REQUEST_STREAM: call.stream,
        names.OUTPUT_TYPE: call.output,
        names.SERVER_ADDRESS: call.server,
        names.SERVER_PORT: call.port,
    }
    return _present(found) | names.conversation(call.conversation or current_conversation()) | dict(call.facts)


def _of_tool(call: ToolCall) -> dict[str, Value]:
    found: Mapping[str, Value | None] = {
        names.OPERATION: names.EXECUTE_TOOL,
        names.TOOL: call.name,
        names.TOOL_CALL_ID: call.id,
        names.TOOL_TYPE: call.kind,
        names.TOOL_DESCRIPTION: call.description or None,
    }
    return _present(found) | names.conversation(call.conversation or current_conversation()) | dict(call.facts)


def _present(found: Mapping[str, Value | None]) -> dict[str, Value]:
    return {key: value for key, value in found.items() if value is not None}


@cache
def _version() -> str:
    try:
        return version(names.SCOPE)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "0"


_tracer = tracer  # the functions above have a parameter of this name
_NOTHING = Open(trace.INVALID_SPAN)
