"""What our own model and our server record of what was said: nothing, unless it is wanted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from openai import OpenAI
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sostenuto.runtime.doors.langgraph import ChatSostenuto
from sostenuto.runtime.host import Host
from sostenuto.tracing import instrument

from ..conftest import Say, said
from .conftest import WEATHER

SECRET = "Tokyo"
CALL: Any = {"id": "call-0", "name": "get_weather", "args": {"city": SECRET}}
INSTRUCTIONS = [{"type": "text", "content": "Be brief."}]
ASKED = [
    {"role": "user", "parts": [{"type": "text", "content": f"Is it {SECRET}?"}]},
    {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "call-0", "name": "get_weather", "arguments": {"city": SECRET}}],
    },
    {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call-0", "response": f"sun in {SECRET}"}]},
]

Traced = Callable[..., dict[str, Any]]


@pytest.fixture
def traced(client: OpenAI, quick: Host, say: Say) -> Iterator[Traced]:
    """One call of the model by a door; the attributes of its span."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))

    def call(by: str, *, stream: bool, **options: Any) -> dict[str, Any]:
        say(said("get_weather", city=SECRET))
        exporter.clear()
        undo = instrument(provider, **options)
        try:
            _DOORS[by](client, quick, stream)
        finally:
            undo()
        spans = exporter.get_finished_spans()
        (span,) = (each for each in spans if each.name.startswith("chat "))
        told = [(dict(each.attributes or {}), each.events) for each in spans]
        assert options.get("content") or SECRET not in repr(told)
        return dict(span.attributes or {})

    yield call
    provider.shutdown()


@pytest.mark.parametrize("by", ["http", "langchain"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_models_span_has_its_messages_only_on_demand(traced: Traced, by: str, stream: bool) -> None:
    told = traced(by, stream=stream, content=True)
    assert json.loads(told["gen_ai.system_instructions"]) == INSTRUCTIONS
    asked = json.loads(told["gen_ai.input.messages"])
    assert asked == ASKED
    (answer,) = json.loads(told["gen_ai.output.messages"])
    (part,) = answer["parts"]
    assert (answer["role"], answer["finish_reason"]) == ("assistant", "tool_call")
    assert (part["type"], part["name"], part["arguments"]) == ("tool_call", "get_weather", {"city": SECRET})
    (tool,) = json.loads(told["gen_ai.tool.definitions"])
    assert (tool["name"], tool["parameters"]["required"]) == ("get_weather", ["city"])
    assert "gen_ai.input.messages" not in traced(by, stream=stream)


@pytest.mark.parametrize("by", ["http", "langchain"])
def test_a_models_span_says_how_its_answer_came_and_ended(traced: Traced, quick: Host, by: str) -> None:
    told = traced(by, stream=True)
    assert told["gen_ai.response.model"] == told["gen_ai.request.model"] == quick.engine.name
    assert told["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert told["gen_ai.response.id"] == told["sostenuto.turn.id"]
    assert told["gen_ai.response.time_to_first_chunk"] >= 0
    assert "gen_ai.response.time_to_first_chunk" not in traced(by, stream=False)


@pytest.mark.parametrize("way", ["sync", "async"])
def test_the_reader_of_a_stream_never_finds_the_models_span(quick: Host, way: str) -> None:
    model = ChatSostenuto(host=quick, max_tokens=3)
    found: list[Any] = []

    async def consume() -> None:
        async for _ in model.astream("Hello"):
            found.append(trace.get_current_span())

    undo = instrument(TracerProvider(shutdown_on_exit=False))
    try:
        if way == "async":
            asyncio.run(consume())
        else:
            found += [trace.get_current_span() for _ in model.stream("Hello")]
    finally:
        undo()
    assert len(found) > 2
    assert set(found) == {trace.INVALID_SPAN}


def _by_http(client: OpenAI, host: Host, stream: bool) -> None:
    function = {"name": "get_weather", "arguments": json.dumps(CALL["args"])}
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": f"Is it {SECRET}?"},
        {"role": "assistant", "tool_calls": [{"id": "call-0", "type": "function", "function": function}]},
        {"role": "tool", "tool_call_id": "call-0", "content": f"sun in {SECRET}"},
    ]
    tools: Any = [WEATHER]
    answer: Any = client.chat.completions.create(model="default", messages=messages, tools=tools, stream=stream)
    if stream:
        list(answer)


def _by_langchain(client: OpenAI, host: Host, stream: bool) -> None:
    messages = [
        SystemMessage("Be brief."),
        HumanMessage(f"Is it {SECRET}?"),
        AIMessage("", tool_calls=[CALL]),
        ToolMessage(f"sun in {SECRET}", tool_call_id="call-0"),
    ]
    model = ChatSostenuto(host=host).bind_tools([WEATHER])
    if stream:
        list(model.stream(messages))
    else:
        model.invoke(messages)


_DOORS: dict[str, Callable[[OpenAI, Host, bool], None]] = {"http": _by_http, "langchain": _by_langchain}
