"""One call of the model: who asks, for what, and how its answer is told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from ...scheduler import ProgramId
from ...tools import ArgumentsDelta, CallBegun, Delta, TextDelta, read_choice, read_tools
from ...tracing import Open, parent_from
from ..answer import Answer, Answering
from ..ask import Ask
from ..calling import calling, tell_answer
from ..host import Host
from ..sampling import Sampling
from ..ticket import Chunk, Piece
from .langgraph_messages import KEY, read_messages, write_message
from .langgraph_whence import Whence
from .langgraph_wrap import Lifecycle, lifecycle_of, program_of
from .response_format import schema_of


class Call:
    """From LangChain's arguments to a question, and from its answer to LangChain's results."""

    def __init__(
        self, host: Host, messages: Sequence[BaseMessage], sampling: Sampling, whence: Whence, given: Mapping[str, Any]
    ) -> None:
        self._host = host
        self._whence = whence
        self._lifecycle: Lifecycle | None = lifecycle_of(whence.handlers)
        joined = self._lifecycle.join(whence.above, host, whence.tenant) if self._lifecycle else None
        tools = read_tools(given.get("tools") or ())
        self._ask = Ask(
            messages=read_messages(messages, model=host.engine.fingerprint),
            tools=tools,
            granted=None if given.get("granted") is None else read_tools(given["granted"]),
            choice=read_choice(given.get("tool_choice"), tools),
            parallel=bool(given.get("parallel_tool_calls", True)),
            returns=bool(given.get("returns", True)),
            constrain=bool(given["constrain"]),
            schema=schema_of(given.get("response_format")),
            sampling=sampling,
            program=joined or _program(whence, messages),
            tended=joined is not None,
            branch=whence.branch,
            tenant=whence.tenant,
            codec=given["codec"],
            timeout=given["timeout"],
        )

    def ask(self) -> Answering:
        """Hand the question in."""
        with self._span.current():
            self._answering = self._host.ask(self._ask)
        if self._lifecycle is not None:
            self._lifecycle.asked(self._whence.above, self._whence.namespace)
        return self._answering

    @contextmanager
    def span(self, *, stream: bool) -> Iterator[Open]:
        """The model's span: under the node that called, or where a wrapped run's own tracer says it stands."""
        # A stream's reader must not find the span current between two chunks.
        under, thread = parent_from(self._whence.manager), self._whence.thread
        with calling(
            self._host, self._ask, conversation=thread, stream=stream, parent=under, current=not stream
        ) as opened:
            self._span = opened
            yield opened

    def result(self, answer: Answer, span: Open) -> ChatResult:
        """A whole answer."""
        message = self._told(answer, span)
        info = {"finish_reason": message.response_metadata["finish_reason"]}
        return ChatResult(generations=[ChatGeneration(message=message, generation_info=info)])

    def parts(self, answering: Answering, chunk: Chunk, span: Open) -> Iterator[ChatGenerationChunk]:
        """What a chunk adds to the stream; the last one carries usage and ids."""
        if isinstance(chunk, Piece):
            span.chunk()
        for delta in answering.take(chunk):
            yield _part(delta)
        if answering.answer is None:
            return
        told = self._told(answering.answer, span)
        last = AIMessageChunk(content="", chunk_position="last", invalid_tool_calls=told.invalid_tool_calls)
        last.usage_metadata, last.response_metadata = told.usage_metadata, told.response_metadata
        yield ChatGenerationChunk(message=last, generation_info={"finish_reason": answering.answer.reason})

    def _told(self, answer: Answer, span: Open) -> AIMessage:
        tell_answer(span, answer, self._host)
        if self._lifecycle is not None and self._host.can.fork:
            context = (*self._answering.prompt, *answer.tokens)
            self._lifecycle.moments.came(self._whence, self._host, context, codec=self._ask.codec)
        return write_message(answer, model=self._host.engine.name, fingerprint=self._host.engine.fingerprint)


def _program(whence: Whence, messages: Sequence[BaseMessage]) -> ProgramId:
    """Without a wrapped graph or a thread, a conversation is known by what we said in it."""
    said = (m.response_metadata.get(KEY) for m in reversed(messages) if isinstance(m, AIMessage))
    before = next((ours["program"] for ours in said if isinstance(ours, dict) and "program" in ours), None)
    if whence.thread or before is None:
        return program_of(whence.tenant, whence.thread or f"alone-{uuid4()}")
    return ProgramId(before)


def _part(delta: Delta) -> ChatGenerationChunk:
    match delta:
        case TextDelta(text=text):
            return ChatGenerationChunk(message=AIMessageChunk(content=text))
        case CallBegun(index=index, id=name, name=tool):
            piece = tool_call_chunk(name=tool, args="", id=name, index=index)
        case ArgumentsDelta(index=index, text=text):
            piece = tool_call_chunk(name=None, args=text, id=None, index=index)
    return ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=[piece]))
