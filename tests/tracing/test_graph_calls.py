"""Spans of other people's tools and models, and none where somebody opens their own."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.messages import AIMessage
from langchain_core.tools import StructuredTool, ToolException, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

ASK: Any = {"messages": [("user", "go")]}
USED = {"input_tokens": 20, "output_tokens": 2, "total_tokens": 22, "output_token_details": {"reasoning": 1}}


def test_a_model_span_says_what_was_asked_and_used(agent: Any, traced: Any) -> None:
    agent.invoke(ASK)
    first, *_, last = traced.named("chat Scripted")
    assert first.kind is SpanKind.CLIENT
    told = first.attributes
    assert told["gen_ai.operation.name"] == "chat"
    assert told["gen_ai.request.model"] == "Scripted"
    assert (told["gen_ai.usage.input_tokens"], told["gen_ai.usage.output_tokens"]) == (10, 3)
    assert told["gen_ai.usage.cache_read.input_tokens"] == 8
    assert told["gen_ai.usage.cache_creation.input_tokens"] == 2
    assert told["gen_ai.usage.cache_write.input_tokens"] == 2
    assert last.attributes["gen_ai.response.finish_reasons"] == ("stop",)
    assert last.attributes["gen_ai.response.model"] == "scripted-1"


@pytest.mark.parametrize(
    ("langchain", "convention"),
    [("google_vertexai", "gcp.vertex_ai"), ("azure", "azure.ai.openai"), ("openai", "openai"), (None, "unknown")],
)
def test_a_provider_has_the_name_that_the_conventions_give_it(
    traced: Any, models: Any, langchain: str | None, convention: str
) -> None:
    class Served(models["plain"]):  # type: ignore[misc, name-defined]
        def _get_ls_params(self, **_: Any) -> Any:
            return {"ls_provider": langchain}

    Served(answers=[AIMessage("hi")]).invoke("x")
    assert traced.one("chat Served").attributes["gen_ai.provider.name"] == convention


def test_what_a_model_does_lands_under_its_span(traced: Any, models: Any) -> None:
    def inside() -> None:
        with traced.tracer.start_as_current_span("http"):
            pass

    model = models["plain"](answers=[AIMessage("hi")], inside=inside)
    model.invoke("x")
    asyncio.run(model.ainvoke("x"))
    model.batch(["x", "y"])
    assert traced.tree() == ["chat Scripted", "  http"] * 4


def test_a_streamed_answer_is_one_span_that_its_reader_never_sees(traced: Any, models: Any) -> None:
    def inside() -> None:
        assert trace.get_current_span() is not trace.INVALID_SPAN

    answer = AIMessage("one two", usage_metadata=USED, response_metadata={"finish_reason": "stop"})
    model = models["streaming"](answers=[answer], inside=inside)
    for _ in model.stream("x"):
        assert trace.get_current_span() is trace.INVALID_SPAN

    async def consume() -> None:
        async for _ in model.astream("x"):
            assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(consume())
    assert traced.tree() == ["chat Streaming", "chat Streaming"]
    for span in traced.all:
        assert [each.name for each in span.events] == ["first_chunk"]
        assert span.attributes["gen_ai.request.stream"] is True
        assert span.attributes["gen_ai.usage.input_tokens"] == 20
        assert span.attributes["gen_ai.usage.reasoning.output_tokens"] == 1
        assert span.attributes["gen_ai.response.finish_reasons"] == ("stop",)


def test_a_model_that_cannot_stream_has_one_span_when_streamed(traced: Any, models: Any) -> None:
    list(models["plain"](answers=[AIMessage("hi")]).stream("x"))

    async def consume() -> None:
        async for _ in models["plain"](answers=[AIMessage("hi")]).astream("x"):
            pass

    asyncio.run(consume())
    assert traced.tree() == ["chat Scripted", "chat Scripted"]


def test_a_streamed_answer_given_up_ends_its_span_without_error(traced: Any, models: Any) -> None:
    running = models["streaming"](answers=[AIMessage("one two three")]).stream("x")
    next(running)
    running.close()
    assert traced.one("chat Streaming").attributes["sostenuto.outcome"] == "closed"
    assert traced.failed() == []


def test_a_model_that_opens_its_own_spans_is_left_alone(traced: Any, models: Any) -> None:
    model = models["own"](answers=[AIMessage("hi")])
    create_agent(model, [], name="a").invoke(ASK)
    list(model.stream("x"))
    assert traced.tree() == ["invoke_agent a", "  superstep 1", "    run_step model"]


def test_a_model_that_fails_says_how(traced: Any, models: Any) -> None:
    def inside() -> None:
        raise TimeoutError("too long")

    with pytest.raises(TimeoutError):
        models["plain"](answers=[AIMessage("hi")], inside=inside).invoke("x")
    span = traced.one("chat Scripted")
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "TimeoutError")


def test_a_tool_span_says_which_call_it_answers_and_nothing_of_its_content(agent: Any, traced: Any) -> None:
    agent.invoke(ASK)
    told = [dict(each.attributes) for each in traced.named("execute_tool add")]
    assert told[0] == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.call.id": "add-1",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.description": "Adds.",
    }


def test_a_sync_tool_called_async_has_one_span(traced: Any) -> None:
    add = StructuredTool.from_function(lambda a: a + 1, name="add", description="Adds one.")
    assert asyncio.run(add.ainvoke({"a": 1})) == 2
    assert traced.tree() == ["execute_tool add"]


def test_a_tool_that_answers_with_an_error_has_failed_though_nothing_was_raised(traced: Any) -> None:
    @tool
    def sulk() -> str:
        """Refuses."""
        raise ToolException("no")

    sulk.handle_tool_error = True
    sulk.invoke({"name": "sulk", "args": {}, "id": "1", "type": "tool_call"})
    span = traced.one("execute_tool sulk")
    assert (span.status.status_code, span.attributes["error.type"]) == (StatusCode.ERROR, "tool_error")


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_tool_that_asks_a_person_has_not_failed(traced: Any, models: Any, way: str) -> None:
    @tool
    def ask() -> str:
        """Asks."""
        return str(interrupt("may I?"))

    call = {"name": "ask", "args": {}, "id": "1"}
    model = models["plain"](answers=[AIMessage("", tool_calls=[call]), AIMessage("thanks")])
    agent = create_agent(model, [ask], name="polite", checkpointer=InMemorySaver())
    thread: Any = {"configurable": {"thread_id": "t"}}
    turns: list[Any] = [ASK, Command(resume="yes")]
    for value in turns:
        if way == "sync":
            agent.invoke(value, thread)
        else:
            asyncio.run(agent.ainvoke(value, thread))
    first, second = traced.named("execute_tool ask")
    assert [each.name for each in first.events] == ["interrupt"]
    assert second.events == ()
    assert traced.failed() == []


ODD: list[Any] = [
    {},
    {"total_cost": 0},
    {"total_tokens": 3},
    ["no", "usage"],
    {"input_tokens": 1.5, "output_tokens": None, "total_tokens": 2},
    {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6, "input_token_details": None},
    {"input_tokens": 4, "output_tokens": 2, "total_tokens": 6, "output_token_details": "none"},
]


@pytest.mark.parametrize("usage", ODD, ids=str)
def test_whatever_a_model_says_of_its_usage_its_answer_comes_and_its_span_ends(
    traced: Any, models: Any, usage: Any
) -> None:
    answer = AIMessage("as ever")
    answer.usage_metadata = usage  # LangChain's own cache puts such things there, unchecked
    model = models["plain"](answers=[answer])
    assert model.invoke("q").content == "as ever"
    assert asyncio.run(model.ainvoke("q")).content == "as ever"
    assert [chunk.content for chunk in model.stream("q")] == ["as ever"]
    counted = (
        {"gen_ai.usage.input_tokens": 4, "gen_ai.usage.output_tokens": 2} if "input_token_details" in usage else {}
    )
    chats = traced.named("chat Scripted")
    assert len(chats) == 3
    for chat in chats:
        told = {name: value for name, value in chat.attributes.items() if name.startswith("gen_ai.usage")}
        assert counted.items() <= told.items()


def test_an_answer_out_of_langchains_own_cache_comes_as_it_does_without_us(traced: Any, models: Any) -> None:
    model = models["plain"](answers=[AIMessage("once", usage_metadata=USED), AIMessage("twice")], cache=InMemoryCache())
    assert [model.invoke("q").content, model.invoke("q").content] == ["once", "once"]
    assert [one.attributes.get("gen_ai.usage.input_tokens") for one in traced.named("chat Scripted")] == [20, 20]
