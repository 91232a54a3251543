"""Opens and closes spans: parents given or ambient, nothing left behind, giving up is not failing.

A span is current only between `__enter__` and `__exit__` of its context manager. A cancelled call or a closed
generator leaves an attribute, an exception leaves `error.type`, an `exception` event and the status ERROR. All our
attributes pass through `start`, `tell` and `note`, so whatever a program has chosen (`Options`) holds for every span.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Protocol
from weakref import WeakKeyDictionary

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider

from . import content, dialects, names
from .content import type_name
from .guarded import end, stand_in
from .meters import meters
from .names import Facts
from .options import Options, in_use
from .version import version

Outcome = Literal["done", "error", "cancelled", "closed", "quiet"]
Quiet = tuple[type[BaseException], ...]
"""Exceptions that are signals of a framework, not failures: the span's status stays unset."""

RUN = otel.create_key("sostenuto-graph-run")
"""Where in a context the graph run around it is found."""
_CONVERSATION = otel.create_key("sostenuto-conversation")
_TOOL = otel.create_key("sostenuto-tool")


class Course(Protocol):
    """Whoever wants to know how a call comes along."""

    def take(self, facts: Facts) -> None:
        """Something became known of it."""

    def chunk(self, span: Span) -> None:
        """A piece of its answer is here."""


@dataclass(frozen=True, slots=True)
class Happened:
    """Something that happened in a span, and when: nanoseconds since the epoch."""

    name: str
    at: int
    facts: Facts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Open:
    """A span that is being worked under."""

    span: Span
    options: Options = field(default_factory=in_use)
    course: Course | None = None
    policies: content.Policies = field(default_factory=content.policies)

    def set(self, facts: Facts) -> None:
        """Sets attributes: token counts, KV facts, whatever became known by now."""
        if self.course is not None:
            self.course.take(facts)
        tell(self.span, facts, self.options)

    def content(self, make: content.Make) -> None:
        """Records what was said, if that is wanted: `make` is called only then."""
        if self.options.content and self.span.is_recording():
            tell(self.span, content.written(make, self.options, self.policies), self.options)

    def chunk(self) -> None:
        """Notes that a piece of a streamed answer is here."""
        if self.course is not None:
            self.course.chunk(self.span)

    def current(self) -> AbstractContextManager[None]:
        """Makes the span current within a `with`, for a piece of work in a generator; only there."""
        return Active(trace.set_span_in_context(self.span)) if self.context.is_valid else nullcontext()

    def event(self, name: str, facts: Facts | None = None) -> None:
        """Notes that something happened now."""
        if self.span.is_recording():
            self.span.add_event(name, facts)

    def fail(self, kind: str, message: str = "") -> None:
        """Marks the work as failed though nothing was raised. The message is no place for content."""
        self.set({names.ERROR_TYPE: kind})
        self.span.set_status(Status(StatusCode.ERROR, message or kind))

    def ended(self, facts: Facts, *, at: int, events: Sequence[Happened] = ()) -> None:
        """Its work was over then (nanoseconds since the epoch), and this is known now."""
        self.set(facts)
        for event in events:
            self.span.add_event(event.name, event.facts, event.at)
        end(self.span, at)

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


def tracer(provider: TracerProvider | None = None) -> Tracer:
    """Our tracer of this provider, else of the one in use, else of the global one."""
    chosen = provider or in_use().tracer_provider or trace.get_tracer_provider()
    # A provider makes a new tracer at every call, which takes as long as a span.
    found = _tracers.get(chosen)
    if found is None:
        found = _tracers.setdefault(chosen, chosen.get_tracer(names.SCOPE, version(), names.SCHEMA_URL))
    return found


def off() -> bool:
    """Whether no span would be recorded: no provider anywhere, or spans are suppressed here."""
    return suppressed() or _nowhere()


def idle() -> bool:
    """Whether nothing would come of tracing: no span, and nobody who counts."""
    return suppressed() or (_nowhere() and not meters())


def suppressed() -> bool:
    """Whether somebody asked for no spans in this context, as exporters do round their own calls."""
    here = otel.get_current()
    return bool(here.get("suppress_instrumentation") or here.get(otel._SUPPRESS_INSTRUMENTATION_KEY))


def in_conversation(context: Context, id: str | None) -> Context:
    """A context whose model and tool spans belong to this conversation; None changes nothing."""
    return context if id is None else otel.set_value(_CONVERSATION, id, context)


def current_conversation() -> str | None:
    """The conversation of the graph run around this call, if any."""
    found = otel.get_value(_CONVERSATION)
    return found if isinstance(found, str) else None


def in_tool(context: Context) -> Context:
    """A context inside a tool call: what is asked of others there is part of that call."""
    return otel.set_value(_TOOL, otel.get_value(RUN, context) or True, context)


def inside_tool() -> bool:
    """Whether a tool call is around this one, and no graph between the two."""
    found = otel.get_value(_TOOL)
    return found is not None and found is (otel.get_value(RUN) or True)


def apart(context: Context) -> Context:
    """The same context for somebody who was called from elsewhere: around him is no graph, conversation or tool."""
    return Context({key: value for key, value in context.items() if key not in (RUN, _CONVERSATION, _TOOL)})


@contextmanager
def work_span(
    name: str, facts: Facts, *, parent: SpanContext | None = None, tracer: Tracer | None = None
) -> Iterator[Open]:
    """A span of the engine's own work (`constrain`, `kv.fork` ...). Parent: given, else ambient; without one, none."""
    alone = parent is None and not trace.get_current_span().get_span_context().is_valid
    if alone or suppressed() or (tracer is None and off()):
        yield NOTHING
        return
    with working(Open(start(name, facts, parent=parent, tracer=tracer)), parent, ()) as opened:
        yield opened


def start(
    name: str,
    facts: Facts,
    *,
    parent: SpanContext | None = None,
    tracer: Tracer | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Sequence[Link] = (),
    begun: int | None = None,
    options: Options | None = None,
) -> Span:
    """A span that is not current; whoever starts it calls `finish`. `begun`: nanoseconds since the epoch."""
    options = options or in_use()
    if options.dialects:
        facts = dialects.at_start(facts, options, links=links, outermost=otel.get_value(RUN) is None)
    chosen = tracer or _tracer(options.tracer_provider)
    context = under(parent)
    try:
        return chosen.start_span(name, context, kind, facts, links, begun)
    except Exception as error:  # anything: samplers, processors and id generators are the program's
        return stand_in(name, context, error)


def tell(span: Span, facts: Facts, options: Options | None = None) -> None:
    """Sets attributes that became known later, in all the words that are asked for."""
    if facts and span.is_recording():
        options = options or in_use()
        span.set_attributes(dialects.later(facts, options) if options.dialects else facts)


def finish(
    span: Span,
    error: BaseException | None = None,
    *,
    quiet: Quiet = (),
    options: Options | None = None,
    policies: content.Policies = (),
) -> Outcome:
    """Ends a span as its work ended, and says how that was."""
    outcome = note(span, error, quiet=quiet, options=options, policies=policies)
    end(span)
    return outcome


def note(
    span: Span,
    error: BaseException | None,
    *,
    quiet: Quiet = (),
    options: Options | None = None,
    policies: content.Policies = (),
) -> Outcome:
    """Writes on a span how its work ended, without ending it. What an exception says is content."""
    outcome = outcome_of(error, quiet)
    if outcome in ("cancelled", "closed"):
        span.set_attribute(names.OUTCOME, outcome)
    if error is not None and outcome == "error" and span.is_recording():
        options = options or in_use()
        tell(span, {names.ERROR_TYPE: type_name(error)}, options)
        span.add_event(names.EXCEPTION, content.of_exception(error, options, policies))
        span.set_status(Status(StatusCode.ERROR, type(error).__name__))
    return outcome


def outcome_of(error: BaseException | None, quiet: Quiet = ()) -> Outcome:
    """How work has ended that ended with this."""
    match error:
        case None:
            return "done"
        case asyncio.CancelledError():
            return "cancelled"
        case GeneratorExit():
            return "closed"
    return "quiet" if isinstance(error, quiet) else "error"


def failure(error: BaseException | None, quiet: Quiet = ()) -> str | None:
    """The `error.type` of work that ended with this; None if it has not failed."""
    return type_name(error) if error is not None and outcome_of(error, quiet) == "error" else None


def under(parent: SpanContext | None) -> Context:
    """The ambient context, with this span as the current one if it is given."""
    ambient = otel.get_current()
    if parent is None:
        return ambient
    return trace.set_span_in_context(trace.NonRecordingSpan(parent), ambient)


@contextmanager
def working(opened: Open, parent: SpanContext | None, quiet: Quiet, *, current: bool = True) -> Iterator[Open]:
    """Works under a span, which is current meanwhile unless that is not wanted, and ends it."""
    error: BaseException | None = None
    try:
        with Active(trace.set_span_in_context(opened.span, under(parent))) if current else nullcontext():
            yield opened
    except BaseException as raised:
        error = raised
        raise
    finally:
        finish(opened.span, error, quiet=quiet, options=opened.options, policies=opened.policies)


def _nowhere() -> bool:
    return in_use().tracer_provider is None and isinstance(trace.get_tracer_provider(), _NOBODY)


_tracers: WeakKeyDictionary[TracerProvider, Tracer] = WeakKeyDictionary()
_tracer = tracer  # the functions above have a parameter of this name
_NOBODY = (trace.ProxyTracerProvider, trace.NoOpTracerProvider)
NOTHING = Open(trace.INVALID_SPAN)
"""What is given out where nothing is traced."""
