"""One trace through agents and the servers of MCP that their tools ask."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, StateGraph
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from sostenuto.tracing import read_otlp_json, records_of

from .conftest import Scripted, Spans
from .mcp_peers import WAYS, connected, mcp, new_server

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:mcp")

CALL = AIMessage("", tool_calls=[{"name": "twice", "args": {"number": 4}, "id": "call-1"}])
DONE = AIMessage("8")


class State(TypedDict, total=False):
    answer: str


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def peer(spans: Spans) -> Any:
    """A server with one of each; its handlers open spans of their user's."""
    server = new_server()

    @server.tool()  # type: ignore[untyped-decorator]
    def double(number: int) -> int:
        """Doubles a number."""
        with spans.tracer.start_as_current_span("in double"):
            return 2 * number

    @server.resource("memo://today")  # type: ignore[untyped-decorator]
    def memo() -> str:
        """A memo."""
        with spans.tracer.start_as_current_span("in memo"):
            return "buy felt"

    @server.prompt()  # type: ignore[untyped-decorator]
    def greet() -> str:
        """A greeting."""
        with spans.tracer.start_as_current_span("in greet"):
            return "Good morning."

    return server


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def side(spans: Spans, name: str, kind: SpanKind) -> ReadableSpan:
    (found,) = [each for each in spans.named(name) if each.kind is kind]
    return found


def agent_with(session: Any) -> Any:
    """An agent whose tool asks a server."""

    @tool
    async def twice(number: int) -> str:
        """Doubles a number elsewhere."""
        result = await session.call_tool("double", {"number": number})
        return str(result.content[0].text)

    return create_agent(Scripted(answers=[CALL, DONE]), [twice], name="sums")


def graph(name: str, body: Callable[[Any], Any]) -> Any:
    """A graph of one node."""
    made: Any = StateGraph(State)
    return made.add_node("work", body).add_edge(START, "work").compile(name=name)


async def test_one_trace_leads_from_the_agent_into_the_servers_handler(traced: Spans, way: str) -> None:
    async with connected(peer(traced), way) as session:
        traced.exporter.clear()
        agent = agent_with(session)
        told = await agent.ainvoke({"messages": [("user", "2 * 4?")]})
    assert told["messages"][-1].content == "8"
    assert traced.path(traced.one("in double")) == [
        "invoke_agent sums",
        "superstep 2",
        "run_step tools",
        "execute_tool twice",
        "tools/call double",
        "tools/call double",
        "in double",
    ]
    client, server = traced.named("tools/call double")
    assert (client.kind, server.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
    assert len({each.context.trace_id for each in traced.all}) == 1
    assert traced.failed() == []


async def test_a_tool_call_says_execute_tool_once(traced: Spans, way: str) -> None:
    async with connected(peer(traced), way) as session:
        agent = agent_with(session)
        await agent.ainvoke({"messages": [("user", "2 * 4?")]})
        under_a_tool = [each.name for each in traced.all if told(each).get("gen_ai.operation.name") == "execute_tool"]
        traced.exporter.clear()
        await session.call_tool("double", {"number": 4})
    alone = [each for each in traced.all if told(each).get("gen_ai.operation.name") == "execute_tool"]
    assert under_a_tool == ["execute_tool twice"]
    assert [(each.name, each.kind) for each in alone] == [("tools/call double", SpanKind.CLIENT)]
    assert [told(each)["gen_ai.tool.name"] for each in traced.named("tools/call double")] == ["double", "double"]


async def test_what_an_agent_inside_a_tool_calls_is_a_tool_call_of_its_own(traced: Spans) -> None:
    async with connected(peer(traced)) as session:

        async def ask(state: State) -> State:
            await session.call_tool("double", {"number": 1})
            return state

        inner = graph("inner", ask)

        @tool
        async def twice(number: int) -> str:
            """Asks another graph."""
            await inner.ainvoke({})
            return str(number)

        await twice.ainvoke({"number": 1})
    assert told(side(traced, "tools/call double", SpanKind.CLIENT))["gen_ai.operation.name"] == "execute_tool"


async def test_each_request_has_a_span_on_both_sides_that_says_what_it_is_about(traced: Spans, way: str) -> None:
    async with connected(peer(traced), way) as session:
        await session.list_tools()
        await session.read_resource("memo://today")
        await session.get_prompt("greet")
    versions = set()
    for name in ("tools/list", "resources/read", "prompts/get greet"):
        client, server = side(traced, name, SpanKind.CLIENT), side(traced, name, SpanKind.SERVER)
        assert traced.parent(server) is client
        assert told(client) == told(server)
        assert told(client)["mcp.method.name"] == name.split()[0]
        versions.add(told(client)["mcp.protocol.version"])
    assert len(versions) == 1
    assert told(side(traced, "resources/read", SpanKind.CLIENT))["mcp.resource.uri"] == "memo://today"
    assert told(side(traced, "prompts/get greet", SpanKind.CLIENT))["gen_ai.prompt.name"] == "greet"
    assert [traced.path(traced.one(f"in {each}"))[-2] for each in ("memo", "greet")] == [
        "resources/read",
        "prompts/get greet",
    ]
    begun = "initialize" if way == "streams" else "server/discover"
    assert [each.kind for each in traced.named(begun)] == [SpanKind.CLIENT, SpanKind.SERVER]
    assert not [each.name for each in traced.all if each.name.startswith("notifications/")]


async def test_a_request_belongs_to_its_graphs_conversation_and_its_handler_does_not(traced: Spans) -> None:
    server = peer(traced)
    handled = graph("handled", lambda state: state)

    @tool
    def remember(text: str) -> str:
        """Remembers."""
        return text

    @server.tool()  # type: ignore[untyped-decorator]
    async def think() -> str:
        """Runs a graph, and uses a tool."""
        await handled.ainvoke({})
        return str(await remember.ainvoke({"text": "all of it"}))

    async def ask(state: State) -> State:
        async with connected(server) as session:  # so that the server runs where the graph runs
            await session.call_tool("think", {})
        return state

    await graph("asking", ask).ainvoke({}, {"configurable": {"thread_id": "anna"}})
    client, server_side = traced.named("tools/call think")
    assert told(client)["gen_ai.conversation.id"] == "anna"
    assert "gen_ai.conversation.id" not in told(server_side)
    used = traced.one("execute_tool remember")
    assert "gen_ai.conversation.id" not in told(used)
    assert traced.parent(used) is traced.parent(traced.one("invoke_workflow handled")) is server_side


async def test_a_server_in_another_process_goes_on_with_the_trace(traced: Spans, tmp_path: Path) -> None:
    file, program = tmp_path / "server.jsonl", Path(__file__).with_name("mcp_server.py")
    server = mcp.StdioServerParameters(command=sys.executable, args=[str(program), str(file)], env=dict(os.environ))
    async with mcp.stdio_client(server) as (read, write), mcp.ClientSession(read, write) as session:
        await session.initialize()
        agent = agent_with(session)
        with traced.tracer.start_as_current_span("caller") as caller:
            await agent.ainvoke({"messages": [("user", "2 * 4?")]})
    elsewhere = {each.span_id: each for each in read_otlp_json(file)}
    here = {each.span_id: each for each in records_of(traced.all)}
    assert {each.scope for each in elsewhere.values()} == {"sostenuto", "a user"}
    (span,) = [each for each in elsewhere.values() if each.name == "in double"]
    assert span.trace_id == f"{caller.get_span_context().trace_id:032x}"
    path = [span]
    while (above := path[-1].parent_id) is not None:
        path.append((elsewhere | here)[above])
    assert [(each.name, each.kind) for each in path] == [
        ("in double", "internal"),
        ("tools/call double", "server"),
        ("tools/call double", "client"),
        ("execute_tool twice", "internal"),
        ("run_step tools", "internal"),
        ("superstep 2", "internal"),
        ("invoke_agent sums", "internal"),
        ("caller", "internal"),
    ]


async def test_the_caller_finds_his_own_span_current_after_a_request(traced: Spans, way: str) -> None:
    async with connected(peer(traced), way) as session:
        with traced.tracer.start_as_current_span("caller") as caller:
            await session.call_tool("double", {"number": 4})
            assert trace.get_current_span() is caller
            await session.list_tools()
            assert trace.get_current_span() is caller
        assert trace.get_current_span() is trace.INVALID_SPAN
    below = [each.name for each in traced.all if (above := traced.parent(each)) is not None and above.name == "caller"]
    assert set(below) == {"tools/call double", "tools/list"}
