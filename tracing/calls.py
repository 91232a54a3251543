"""Calls of models and tools: their spans, how they come along, and what is counted of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from opentelemetry.context import get_current
from opentelemetry.trace import Span, SpanContext, SpanKind, Tracer

from . import names
from .meters import Meters, Watch, clock, meters, watch
from .names import Facts, Value
from .options import Options, in_use
from .spans import (
    NOTHING,
    Active,
    Open,
    Quiet,
    current_conversation,
    failure,
    finish,
    in_tool,
    off,
    start,
    suppressed,
    working,
)


@dataclass(frozen=True, slots=True)
class ModelCall:
    """What is known of a model call before it starts; None is unknown or unset."""

    model: str
    provider: str = "sostenuto"
    conversation: str | None = None
    """None: that of the graph run around it, if any."""
    embedded: bool = True
    """Computed in this process: span kind INTERNAL instead of CLIENT."""
    served: bool = False
    """Answered for a client elsewhere, who counts it: our metrics of clients leave it out."""
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
    """What is known of a tool call before it starts."""

    name: str
    id: str | None = None
    kind: str = "function"
    description: str | None = None
    conversation: str | None = None
    facts: Facts = field(default_factory=dict)


class Progress:
    """A model call on its way: when its chunks came, what it used."""

    __slots__ = ("_begun", "_call", "_first", "_last", "_per_chunk", "_to", "_used")

    def __init__(self, call: ModelCall, to: tuple[Meters, ...]) -> None:
        self._call = call
        self._to = to
        self._begun = clock()
        self._first: float | None = None
        self._last = 0.0
        self._used: dict[str, Value] = {}

    def take(self, facts: Facts) -> None:
        """Keeps what is counted at the end."""
        if self._to:
            self._used |= {name: facts[name] for name in _COUNTED if name in facts}

    def chunk(self, span: Span) -> None:
        """Times a chunk; the first one is an event and an attribute as well."""
        now = clock()
        if self._first is None:
            self._first = now
            span.add_event(names.EVENT_FIRST_CHUNK)
            span.set_attribute(names.FIRST_CHUNK, now - self._begun)
        elif self._to:
            for each in self._to:
                each.record(names.CLIENT_PER_CHUNK, now - self._last, self._facts)
        self._last = now

    def end(self, error: str | None) -> None:
        """Counts the call."""
        error = error or _text(self._used.get(names.ERROR_TYPE))
        failed: Facts = {} if error is None else {names.ERROR_TYPE: error}
        for each in self._to:
            each.record(names.CLIENT_DURATION, clock() - self._begun, {**self._facts, **failed})
            if self._first is not None:
                each.record(names.CLIENT_FIRST_CHUNK, self._first - self._begun, self._facts)
            for name, kind in _TOKENS:
                if isinstance(tokens := self._used.get(name), int):
                    each.record(names.CLIENT_TOKENS, tokens, {**self._facts, names.TOKEN_TYPE: kind})

    @property
    def _facts(self) -> dict[str, Value]:
        call = self._call
        return {names.OPERATION: names.CHAT, names.PROVIDER: call.provider, names.REQUEST_MODEL: call.model}


class Streamed:
    """The span of a streamed answer, which is current only when its owner makes it so. Its owner calls `end`."""

    def __init__(self, call: ModelCall) -> None:
        self._progress = _progress(call, in_use())
        self.open = Open(start_model(call), course=self._progress)

    def end(self, error: BaseException | None, quiet: Quiet = ()) -> None:
        """Ends the span and counts the call."""
        finish(self.open.span, error, quiet=quiet, options=self.open.options, policies=self.open.policies)
        self._progress.end(failure(error, quiet))


@contextmanager
def model_span(
    call: ModelCall,
    *,
    parent: SpanContext | None = None,
    tracer: Tracer | None = None,
    quiet: Quiet = (),
    current: bool = True,
) -> Iterator[Open]:
    """`chat {model}` round a model call. Parent: the one given, else the ambient current span.

    A generator takes `current=False`, so that whoever it yields to does not find the span; it makes the span current
    piece by piece, with its `current()`.
    """
    unseen = tracer is None and off()
    if suppressed() or (unseen and not meters()):
        yield NOTHING
        return
    span = None if unseen else start_model(call, parent=parent, tracer=tracer)
    with _calling(span, _progress(call, in_use()), parent, quiet, current=current) as opened:
        yield opened


@contextmanager
def tool_span(
    call: ToolCall, *, parent: SpanContext | None = None, tracer: Tracer | None = None, quiet: Quiet = ()
) -> Iterator[Open]:
    """`execute_tool {tool}` round a tool call. Parent: the one given, else the ambient current span."""
    unseen = tracer is None and off()
    if suppressed() or (unseen and not meters()):
        yield NOTHING
        return
    name = f"{names.EXECUTE_TOOL} {call.name}"
    span = None if unseen else start(name, facts_of_tool(call), parent=parent, tracer=tracer)
    timed = watch(names.TOOL_DURATION, {names.OPERATION: names.EXECUTE_TOOL, names.TOOL: call.name})
    with _calling(span, _Tool(timed), parent, quiet) as opened, Active(in_tool(get_current())):
        yield opened


def start_model(call: ModelCall, *, parent: SpanContext | None = None, tracer: Tracer | None = None) -> Span:
    """The span of `model_span`, not current; whoever starts it calls `finish`."""
    kind = SpanKind.INTERNAL if call.embedded else SpanKind.CLIENT
    return start(f"{names.CHAT} {call.model}", _of_model(call), parent=parent, tracer=tracer, kind=kind)


def facts_of_tool(call: ToolCall) -> dict[str, Value]:
    """What a tool's span says at its start."""
    found: Mapping[str, Value | None] = {
        names.OPERATION: names.EXECUTE_TOOL,
        names.TOOL: call.name,
        names.TOOL_CALL_ID: call.id,
        names.TOOL_TYPE: call.kind,
        names.TOOL_DESCRIPTION: call.description or None,
    }
    return _present(found) | names.conversation(call.conversation or current_conversation()) | dict(call.facts)


class _Tool:
    """A tool call on its way: it may fail though nothing is raised."""

    __slots__ = ("_failed", "_timed")

    def __init__(self, timed: Watch) -> None:
        self._timed = timed
        self._failed: str | None = None

    def take(self, facts: Facts) -> None:
        self._failed = _text(facts.get(names.ERROR_TYPE)) or self._failed

    def chunk(self, span: Span) -> None:
        """Tools do not stream."""

    def end(self, error: str | None) -> None:
        self._timed.end(error or self._failed)


@contextmanager
def _calling(
    span: Span | None, course: Progress | _Tool, parent: SpanContext | None, quiet: Quiet, *, current: bool = True
) -> Iterator[Open]:
    """Works under a span, or under none where only numbers are wanted, and ends both as the work ended."""
    error: BaseException | None = None
    try:
        if span is None:
            yield Open(NOTHING.span, course=course)
        else:
            with working(Open(span, course=course), parent, quiet, current=current) as opened:
                yield opened
    except BaseException as raised:
        error = raised
        raise
    finally:
        course.end(failure(error, quiet))


def _progress(call: ModelCall, options: Options) -> Progress:
    return Progress(call, () if call.served else meters(options))


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


def _present(found: Mapping[str, Value | None]) -> dict[str, Value]:
    return {key: value for key, value in found.items() if value is not None}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


_COUNTED = (names.INPUT_TOKENS, names.OUTPUT_TOKENS, names.ERROR_TYPE)
_TOKENS = ((names.INPUT_TOKENS, "input"), (names.OUTPUT_TOKENS, "output"))
