"""A provider that keeps its spans, a model that says what it is told, and the agent that most tests run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from pydantic import Field

from sostenuto.tracing import instrument


class Spans:
    """What was recorded, with questions tests ask of it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("a user")

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def named(self, name: str) -> list[ReadableSpan]:
        """In the order in which they began."""
        return sorted((each for each in self.all if each.name == name), key=lambda each: each.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        (found,) = self.named(name)
        return found

    def parent(self, span: ReadableSpan) -> ReadableSpan | None:
        above = span.parent.span_id if span.parent else None
        return next((each for each in self.all if each.context.span_id == above), None)

    def path(self, span: ReadableSpan) -> list[str]:
        """The names from the root to the span."""
        above = self.parent(span)
        return [*(self.path(above) if above else []), span.name]

    def tree(self) -> list[str]:
        """One name a line, indented by two; parallel tasks in the order in which they were planned."""

        def order(span: ReadableSpan) -> tuple[str, int]:
            return str((span.attributes or {}).get("langgraph.path", "")), span.start_time or 0

        def lines(above: int | None, depth: int) -> Iterator[str]:
            here = [each for each in self.all if (each.parent.span_id if each.parent else None) == above]
            for each in sorted(here, key=order):
                yield "  " * depth + each.name
                yield from lines(each.context.span_id, depth + 1)

        found = list(lines(None, 0))
        assert len(found) == len(self.all), "a span whose parent was never ended"
        return found

    def links(self, span: ReadableSpan, why: str) -> list[int]:
        return [each.context.span_id for each in span.links if (each.attributes or {})["sostenuto.link"] == why]

    def failed(self) -> list[str]:
        return [each.name for each in self.all if each.status.status_code is StatusCode.ERROR]


class Scripted(BaseChatModel):
    """Says its answers one after the other; streams word by word."""

    answers: list[AIMessage]
    said: list[int] = Field(default_factory=list)
    inside: Callable[[], None] | None = None

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _next(self) -> AIMessage:
        if self.inside is not None:
            self.inside()
        self.said.append(1)
        return self.answers[(len(self.said) - 1) % len(self.answers)].model_copy()

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._next())])


class Streaming(Scripted):
    """The same, word by word."""

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        answer = self._next()
        for word in str(answer.content).split():
            yield ChatGenerationChunk(message=AIMessageChunk(content=word))
        last = AIMessageChunk(
            content="", usage_metadata=answer.usage_metadata, response_metadata=answer.response_metadata
        )
        yield ChatGenerationChunk(message=last)


class Own(Scripted):
    """A model that opens its own spans."""

    _sostenuto_spans = True


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def traced(spans: Spans) -> Iterator[Spans]:
    """LangGraph instrumented for the test; afterwards the ambient span is as it was."""
    undo = instrument(spans.provider)
    yield spans
    undo()
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.fixture
def rounds() -> list[AIMessage]:
    """Three rounds of two calls each, and an answer."""
    calls = [
        AIMessage(
            "",
            tool_calls=[
                {"name": "add", "args": {"a": each, "b": 1}, "id": f"add-{each}"},
                {"name": "double", "args": {"a": each}, "id": f"double-{each}"},
            ],
            usage_metadata={
                "input_tokens": 10 * each,
                "output_tokens": 3,
                "total_tokens": 10 * each + 3,
                "input_token_details": {"cache_read": 8 * each, "cache_creation": 2},
            },
        )
        for each in (1, 2, 3)
    ]
    return [
        *calls,
        AIMessage("done", response_metadata={"finish_reason": "stop", "model_name": "scripted-1"}),
    ]


@pytest.fixture
def agent(rounds: list[AIMessage], traced: Spans) -> Any:
    """A cyclic agent with two tools; each opens a span of its user's."""

    @tool
    def add(a: int, b: int) -> int:
        """Adds."""
        with traced.tracer.start_as_current_span("in add"):
            return a + b

    @tool
    def double(a: int) -> int:
        """Doubles."""
        return 2 * a

    return create_agent(Scripted(answers=rounds), [add, double], name="sums")


@pytest.fixture
def models() -> dict[str, type[Scripted]]:
    return {"plain": Scripted, "streaming": Streaming, "own": Own}
