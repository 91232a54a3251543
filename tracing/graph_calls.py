"""The wrappers round the tools and chat models of others, so that their spans stand where the work is done.

A class that opens its own spans says so with `_sostenuto_spans = True` and is left alone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import BaseTool
from opentelemetry import context as otel
from opentelemetry import trace

from . import names
from .graph_hooks import QUIET, Switch, signal
from .names import Value
from .spans import Active, ModelCall, Open, ToolCall, model_span, note, tool_span

_STREAMING = otel.create_key("sostenuto-streaming-model")


def traced_run(run: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
    """`BaseTool.run` with a span round the call."""

    @wraps(run)
    def wrapper(self: BaseTool, *args: Any, **kwargs: Any) -> Any:
        if switch.idle() or _own(self):
            return run(self, *args, **kwargs)
        with tool_span(_tool(self, kwargs), quiet=QUIET) as span:
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
        self: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> ChatResult:
        if switch.idle() or _own(self) or _in_stream(self):
            return generate(self, messages, stop, *args, **kwargs)
        with model_span(_model(self, stop, kwargs), quiet=QUIET) as span:
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
        self: BaseChatModel, messages: list[BaseMessage], stop: list[str] | None = None, *args: Any, **kwargs: Any
    ) -> ChatResult:
        if switch.idle() or _own(self) or _in_stream(self):
            return await generate(self, messages, stop, *args, **kwargs)
        with model_span(_model(self, stop, kwargs), quiet=QUIET) as span:
            result = await generate(self, messages, stop, *args, **kwargs)
            _answered(span, result)
            return result

    return wrapper


def traced_stream(stream: Callable[..., Iterator[Any]], switch: Switch) -> Callable[..., Iterator[Any]]:
    """`BaseChatModel.stream` with a span that is current only while a chunk is made."""

    @wraps(stream)
    def wrapper(self: BaseChatModel, *args: Any, **kwargs: Any) -> Iterator[Any]:
        inner = stream(self, *args, **kwargs)
        if switch.idle() or _own(self):
            yield from inner
            return
        with _Streamed(self, kwargs) as streamed:
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
                    inner.close()  # type: ignore[attr-defined]

    return wrapper


def traced_astream(
    stream: Callable[..., AsyncIterator[Any]], switch: Switch
) -> Callable[..., AsyncIterator[Any]]:
    """`BaseChatModel.astream`, likewise."""

    @wraps(stream)
    async def wrapper(self: BaseChatModel, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        inner = stream(self, *args, **kwargs)
        if switch.idle() or _own(self):
            async for chunk in inner:
                yield chunk
            return
        with _Streamed(self, kwargs) as streamed:
            try:
                while True:
                    with streamed.active():
                        try:
                            chunk = await anext(inner)
                        except StopAsyncIteration:
                            return
                    streamed.take(chunk)
                    yield chunk
            finally:
                with streamed.active():
                    await inner.aclose()  # type: ignore[attr-defined]

    return wrapper
