"""Requests of the Model Context Protocol as spans: who sends one, who serves it, and how the trace goes along.

Names, kinds and `_meta` are those of OpenTelemetry's conventions for MCP (status Development) and of the protocol's
SEP-414. Nothing here knows the `mcp` package: requests come as what they are on the wire.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from opentelemetry import context as otel
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

from . import names
from .guarded import end
from .names import Value
from .propagate import parent_of_headers, trace_headers
from .spans import Active, Open, apart, current_conversation, inside_tool, note, start

TOOL_ERROR = "tool_error"
"""`error.type` of a tool that answers that it has failed."""


@dataclass(frozen=True, slots=True)
class Message:
    """A request, as far as its span tells of it."""

    method: str
    params: Mapping[str, Any]
    """`name`, `uri`, `arguments` and `_meta`, where there are any."""
    session: str | None = None
    version: str | None = None
    """Of the protocol."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """What its sender has put into `_meta`."""
        found = self.params.get("_meta")
        return found if isinstance(found, Mapping) else {}

    @property
    def trace(self) -> dict[str, str]:
        """The W3C trace context in its `_meta`."""
        found = ((key, self.meta.get(key)) for key in _W3C)
        return {key: value for key, value in found if isinstance(value, str)}

    @property
    def calls(self) -> bool:
        """Whether a tool is called."""
        return self.method == "tools/call"

    @property
    def span(self) -> str:
        """The name of its spans."""
        return f"{self.method} {self._target}" if self._target else self.method

    @property
    def facts(self) -> dict[str, Value]:
        """What both sides say of it at the start."""
        uri = self.params.get("uri")
        found = {
            names.MCP_METHOD: self.method,
            names.MCP_SESSION: self.session,
            names.MCP_VERSION: self.version,
            names.MCP_RESOURCE: None if uri is None else str(uri),
            names.TOOL if self.calls else names.PROMPT: self._target,
        }
        return {name: value for name, value in found.items() if value is not None}

    @property
    def _target(self) -> str | None:
        name = self.params.get("name") if self.method in ("tools/call", "prompts/get") else None
        return name if isinstance(name, str) else None


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request on its way, as either side has it."""

    open: Open
    message: Message
    carried: Mapping[str, str]
    """What the `_meta` of a request that is sent must hold beside what is there already."""

    def answered(self, result: Any) -> None:
        """It was answered. A tool may say that it has failed."""
        if not self.message.calls:
            return
        if _field(result, "isError", "is_error") is True:
            self.open.fail(TOOL_ERROR, "the tool answered with an error")
        self.open.content(lambda: {names.TOOL_RESULT: _said(result)})

    def refused(self, code: int) -> None:
        """It was answered with a JSON-RPC error."""
        self.open.fail(str(code))
        self.open.set({names.RPC_STATUS: str(code)})

    def cancelled(self) -> None:
        """The other side wants no answer any more."""
        self.open.span.set_attribute(names.OUTCOME, "cancelled")


@contextmanager
def sending(message: Message) -> Iterator[Exchange]:
    """`{method} {tool or prompt}`, kind CLIENT, round a request and its answer.

    Inside a tool's span the call is part of that tool's, so that it does not say `execute_tool` once more. A trace
    context that the caller has put into `_meta` himself stays, and is what the other side continues.
    """
    facts = message.facts | names.conversation(current_conversation())
    if message.calls and not inside_tool():
        facts[names.OPERATION] = names.EXECUTE_TOOL
    span = start(message.span, facts, kind=SpanKind.CLIENT)
    given = parent_of_headers(message.trace)
    # What an `mcp` of 2.x sends is the current span's, whatever `_meta` says: so the caller's choice is made current.
    current = span if given is None else trace.NonRecordingSpan(given)
    carried = trace_headers(span.get_span_context()) if given is None else {}
    with _working(span, trace.set_span_in_context(current, otel.get_current()), message) as opened:
        yield Exchange(opened, message, carried)


@contextmanager
def serving(message: Message, headers: Mapping[str, str] | None = None) -> Iterator[Exchange]:
    """`{method} {tool or prompt}`, kind SERVER, round whatever handles a request.

    Parent: what its `_meta` names, else what `headers` name; without headers, the ambient span. Headers are given
    where the ambient context is not that of the request. A tool call that came with a trace context is counted by
    whoever sent it, so only one that came without says `execute_tool`.
    """
    facts = message.facts
    if message.calls and parent_of_headers(message.trace) is None:
        facts[names.OPERATION] = names.EXECUTE_TOOL
    above = _above(message, headers)
    with Active(above):
        span = start(message.span, facts, kind=SpanKind.SERVER)
    with _working(span, trace.set_span_in_context(span, above), message) as opened:
        yield Exchange(opened, message, {})


def _above(message: Message, headers: Mapping[str, str] | None) -> Context:
    """The context in which a request is served: no graph of this process is around it."""
    ambient = apart(otel.get_current())
    parent = parent_of_headers(message.trace) or parent_of_headers(headers or {})
    if parent is not None:
        return trace.set_span_in_context(trace.NonRecordingSpan(parent), ambient)
    return ambient if headers is None else trace.set_span_in_context(trace.INVALID_SPAN, ambient)


@contextmanager
def _working(span: Span, context: Context, message: Message) -> Iterator[Open]:
    opened = Open(span)
    error: BaseException | None = None
    try:
        if message.calls:
            opened.content(lambda: {names.TOOL_ARGUMENTS: message.params.get("arguments") or {}})
        with Active(context):
            yield opened
    except BaseException as raised:
        error = raised
        raise
    finally:
        note(span, error, options=opened.options, policies=opened.policies)
        code = getattr(getattr(error, "error", None), "code", None)
        if isinstance(code, int):  # the package's own exception: how its peer has refused
            opened.set({names.ERROR_TYPE: str(code), names.RPC_STATUS: str(code)})
        end(span)


def _said(result: Any) -> Any:
    """What a tool gave back: as data, if it says it so."""
    data = _field(result, "structuredContent", "structured_content")
    return _field(result, "content") if data is None else data


def _field(result: Any, *spellings: str) -> Any:
    """A field of a result, be it JSON, which has the first spelling, or an object."""
    if isinstance(result, Mapping):
        return result.get(spellings[0])
    return next((getattr(result, each) for each in spellings if hasattr(result, each)), None)


_W3C = ("traceparent", "tracestate")
