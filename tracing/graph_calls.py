"""The wrappers round the tools and chat models of others, so that their spans stand where the work is done.

A class that opens its own spans says so with `_sostenuto_spans = True` and is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from functools import reduce, wraps
from operator import add
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from opentelemetry import context as otel
from opentelemetry import trace

from . import names
from .adopt import Adopted
from .calls import ModelCall, Streamed, ToolCall, model_span, tool_span
from .graph_content import answered, arguments, asked, result_of, said
from .graph_signals import QUIET, Switch, signal
from .graph_usage import Heard
from .spans import Active, Open

_STREAMING = otel.create_key("sostenuto-streaming-model")


def traced_run(run: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
    """`BaseTool.run` with a span round the call."""

    @wraps(run)
    def wrapper(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        if switch.idle() or _own(self):
            return run(self, *args, **kwargs)
        with tool_span(_tool(self, kwargs), quiet=QUIET) as span:
            span.content(lambda: {names.TOOL_ARGUMENTS: arguments(self, _input(args, kwargs))})
            try:
                return _reported(span, run(self, *args, **kwargs))
            except QUIET as error:
                signal(span.span, error)
                raise

    return wrapper


def traced_arun(run: Callable[..., Awaitable[Any]], switch: Switch) -> Callable[..., Awaitable[Any]]:
    """`BaseTool.arun` with a span round the call."""

    @wraps(run)
    async def wrapper(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        if switch.idle() or _own(self):
            return await run(self, *args, **kwargs)
        with tool_span(_tool(self, kwargs), quiet=QUIET) as span:
            span.content(lambda: {names.TOOL_ARGUMENTS: arguments(self, _input(args, kwargs))})
            try:
                return _reported(span, await run(self, *args, **kwargs))
            except QUIET as error:
                signal(span.span, error)
                raise

    return wrapper


def traced_generate(generate: Callable[..., ChatResult], switch: Switch) -> Callable[..., ChatResult]:
    """`BaseChatModel._generate_with_cache` with a span round the call."""

    @wraps(generate)
    def wrapper(
        self: BaseChatModel,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResult:
        if switch.idle() or _own(self) or _in_stream(self):
            return generate(self, messages, stop, *args, **kwargs)
        with model_span(_model(self, stop, kwargs), quiet=QUIET) as span:
            span.content(lambda: asked(messages, kwargs.get("tools")))
            result = generate(self, messages, stop, *args, **kwargs)
            _answered(span, result)
            return result

    return wrapper


def traced_agenerate(
    generate: Callable[..., Awaitable[ChatResult]], switch: Switch
) -> Callable[..., Awaitable[ChatResult]]:
    """`BaseChatModel._agenerate_with_cache` with a span round the call."""

    @wraps(generate)
    async def wrapper(
        self: BaseChatModel,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResult:
        if switch.idle() or _own(self) or _in_stream(self):
            return await generate(self, messages, stop, *args, **kwargs)
        with model_span(_model(self, stop, kwargs), quiet=QUIET) as span:
            span.content(lambda: asked(messages, kwargs.get("tools")))
            result = await generate(self, messages, stop, *args, **kwargs)
            _answered(span, result)
            return result

    return wrapper


def traced_stream(stream: Callable[..., Generator[Any]], switch: Switch) -> Callable[..., Iterator[Any]]:
    """`BaseChatModel.stream` with a span that is current only while a chunk is made."""

    def traced(self: BaseChatModel, *args: Any, **kwargs: Any) -> Iterator[Any]:
        inner = stream(self, *args, **kwargs)
        with _Streaming(self, args, kwargs) as streamed:
            try:
                while True:
                    with streamed.active():
                        try:
                            chunk = next(inner)
                        except StopIteration:
                            return
                    streamed.take(chunk)
                    yield chunk
            finally:
                with streamed.active():
                    inner.close()

    @wraps(stream)
    def wrapper(self: BaseChatModel, *args: Any, **kwargs: Any) -> Iterator[Any]:
        return (stream if switch.idle() or _own(self) else traced)(self, *args, **kwargs)

    return wrapper


def traced_astream(stream: Callable[..., AsyncGenerator[Any]], switch: Switch) -> Callable[..., AsyncIterator[Any]]:
    """`BaseChatModel.astream`, likewise."""

    async def traced(self: BaseChatModel, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        inner = Adopted(stream(self, *args, **kwargs))
        with _Streaming(self, args, kwargs) as streamed:
            try:
                while True:
                    with streamed.active():
                        try:
                            chunk = await inner.next()
                        except StopAsyncIteration:
                            return
                    streamed.take(chunk)
                    yield chunk
            finally:
                with streamed.active():
                    await inner.close()

    @wraps(stream)
    def wrapper(self: BaseChatModel, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        return (stream if switch.idle() or _own(self) else traced)(self, *args, **kwargs)

    return wrapper


class _Streaming:
    """The span of a streamed answer, and what its chunks have told so far."""

    def __init__(self, model: BaseChatModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._model = model
        self._streamed = Streamed(_model(model, kwargs.get("stop"), kwargs, stream=True))
        self.open = self._streamed.open
        self._heard = Heard()
        self._chunks: list[AIMessage] = []
        self._keep = self.open.options.content and self.open.span.is_recording()
        self.open.content(lambda: asked(_messages(model, args, kwargs), kwargs.get("tools")))

    def __enter__(self) -> _Streaming:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        try:
            self.open.set(self._heard.facts())
            if self._chunks:
                self.open.content(lambda: {names.OUTPUT_MESSAGES: [said(_whole(self._chunks), self._heard.about)]})
        finally:
            self._streamed.end(error, QUIET)

    def active(self) -> Active:
        """Makes the span current; a model that does not stream calls its `invoke`, which then opens none."""
        within = trace.set_span_in_context(self.open.span, otel.get_current())
        return Active(otel.set_value(_STREAMING, id(self._model), within))

    def take(self, chunk: object) -> None:
        """Notes what a chunk says of the answer; its content is kept only if it is wanted."""
        self.open.chunk()
        if isinstance(chunk, AIMessage | AIMessageChunk):
            self._heard.take(chunk)
            if self._keep:
                self._chunks.append(chunk)


def _own(caller: object) -> bool:
    return bool(getattr(type(caller), "_sostenuto_spans", False))


def _in_stream(model: BaseChatModel) -> bool:
    return otel.get_value(_STREAMING) == id(model)


def _tool(tool: BaseTool, kwargs: dict[str, Any]) -> ToolCall:
    return ToolCall(tool.name, kwargs.get("tool_call_id"), description=tool.description)


def _input(args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
    """The first argument of a tool's or a model's call, however it is given."""
    return args[0] if args else kwargs.get("tool_input", kwargs.get("input"))


def _messages(model: BaseChatModel, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[BaseMessage]:
    found: Any = _input(args, kwargs)
    return model._convert_input(found).to_messages()


def _whole(chunks: list[AIMessage]) -> AIMessage:
    """The answer that its chunks make up."""
    parts = [each for each in chunks if isinstance(each, AIMessageChunk)]
    return reduce(add, parts) if parts else chunks[-1]


def _reported(span: Open, result: Any) -> Any:
    span.content(lambda: {names.TOOL_RESULT: result_of(result)})
    if isinstance(result, ToolMessage) and result.status == "error":
        span.fail("tool_error", "the tool answered with an error")
    return result


def _model(
    model: BaseChatModel, stop: list[str] | None, kwargs: dict[str, Any], *, stream: bool | None = None
) -> ModelCall:
    """What LangChain's own tracing asks of a model: its parameters under standard names."""
    asked = {key: value for key, value in kwargs.items() if key not in ("stop", "run_manager")}
    told = model._get_ls_params(stop=stop, **asked)
    provider = str(told.get("ls_provider") or "unknown")
    return ModelCall(
        model=str(told.get("ls_model_name") or type(model).__name__),
        provider=names.PROVIDERS.get(provider, provider),
        embedded=False,
        temperature=told.get("ls_temperature"),
        max_tokens=told.get("ls_max_tokens"),
        stop=told.get("ls_stop") or (),
        stream=stream,
    )


def _answered(span: Open, result: ChatResult) -> None:
    first = result.generations[0] if isinstance(result, ChatResult) and result.generations else None
    if isinstance(first, ChatGeneration) and isinstance(first.message, AIMessage):
        heard = Heard()
        heard.take(first.message)
        span.set(heard.facts())
    span.content(lambda: answered(result))
