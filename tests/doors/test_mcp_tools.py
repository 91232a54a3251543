"""Graphs whose tools are those of MCP servers: guarded, traced once, stepped up, killed under way."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import ToolException
from opentelemetry.trace import SpanKind

from ..execute.mcp_peers import Guarded, little, over_http, program, until
from ..tracing.conftest import Scripted, Spans
from .test_attacks import KEY, Bench
from .test_executor import BOTH, alone, asked, results

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:mcp")

from sostenuto.runtime.doors.langgraph import ToolGuard  # noqa: E402
from sostenuto.runtime.doors.langgraph_mcp import mcp_tools  # noqa: E402
from sostenuto.runtime.execute.audit import Audit, verify_file  # noqa: E402
from sostenuto.runtime.execute.authority import Authority  # noqa: E402
from sostenuto.runtime.execute.executor import Executor  # noqa: E402
from sostenuto.runtime.execute.mcp import McpServer  # noqa: E402
from sostenuto.runtime.execute.policy import Policy  # noqa: E402
from sostenuto.runtime.execute.providers import TokenExchange  # noqa: E402
from sostenuto.tools.contracts import Contract  # noqa: E402
from sostenuto.tools.grants import Ceiling  # noqa: E402
from sostenuto.tracing import instrument  # noqa: E402

READ = Contract("read")


@BOTH
def test_arguments_of_a_servers_tool_are_checked_before_it_is_asked(run: Any) -> None:
    asked_for: list[int] = []
    here = little()
    here.remove_tool("twice")

    def twice(n: int) -> int:
        asked_for.append(n)
        return 2 * n

    here.add_tool(twice, description="Doubles.")
    with McpServer("here", here) as server:
        graph = alone(*mcp_tools(server))
        calls = asked(*[("twice", each) for each in ({"n": "4"}, {}, {"n": 4, "zz": 1}, {"n": 4})])
        found = results(run(graph, calls))
    assert [each.status for each in found] == ["error"] * 3 + ["success"]
    assert (found[3].content, found[3].artifact, asked_for) == ("8", {"result": 8}, [4])


def test_a_server_that_breaks_its_word_about_results_is_not_believed(tmp_path: Path) -> None:
    from mcp.server import Server
    from mcp.types import CallToolResult, ListToolsResult, TextContent, Tool

    promise = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    answers: list[Any] = [{"n": 1}, {"n": "one"}, None]

    async def listed(ctx: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name="count", input_schema={"type": "object"}, output_schema=promise)])

    async def called(ctx: Any, params: Any) -> CallToolResult:
        return CallToolResult(content=[TextContent(text="told")], structured_content=answers.pop(0))

    with McpServer("here", Server("here", on_list_tools=listed, on_call_tool=called)) as server:
        graph = alone(*mcp_tools(server))
        found = [results(graph.invoke(asked(("count", {}))))[0] for _ in range(3)]
    assert [each.status for each in found] == ["success", "error", "error"]
    assert "/n" in str(found[1].content)


@BOTH
@pytest.mark.parametrize(("contract", "told"), [(READ, "failed"), (Contract("write"), "not known")])
def test_a_server_that_is_killed_in_a_call_is_told_and_the_run_goes_on_with_another(
    tmp_path: Path, contract: Contract, told: str, run: Any
) -> None:
    bench = Bench(tmp_path / "audit.jsonl")
    executor = Executor(Policy({"hang": contract}), audit=bench.audit)
    with McpServer("there", program(tmp_path)) as server:
        graph = alone(*mcp_tools(server), executor=executor)
        killer = threading.Thread(target=lambda: os.kill(int(until(tmp_path / "begun")), signal.SIGKILL))
        killer.start()
        (first,) = results(run(graph, asked(("hang", {}))))
        killer.join(30)
        (second,) = results(run(graph, asked(("number", {}))))
    assert (first.status, told in str(first.content)) == ("error", True)
    assert (second.status, str(second.content) == (tmp_path / "begun").read_text()) == ("success", False)
    assert bench.told == [("hang", "failed" if contract is READ else "unknown"), ("number", "ran")]
    assert "0 running | <Slots 0 taken, 0 waiting>" in repr(executor)
    bench.audit.close()


def test_megabytes_of_a_server_never_reach_the_model(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        (found,) = results(alone(*mcp_tools(server)).invoke(asked(("shout", {}))))
    assert (found.status, "2000000 characters" in str(found.content)) == ("error", True)


def test_a_schema_that_changes_is_denied_and_recorded_and_a_grant_of_one_server_is_none_for_another(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path / "audit.jsonl")
    here, other = little(), little()
    grants = {"twice": Ceiling()}
    with McpServer("here", here, fresh=0) as server, McpServer("other", other) as stranger:
        graph = alone(*mcp_tools(server), executor=bench.executor, grants=grants)
        assert results(graph.invoke(asked(("twice", {"n": 1}))))[0].status == "success"
        here.remove_tool("twice")
        here.add_tool(lambda n, password: n, name="twice", description="Doubles.")
        (found,) = results(graph.invoke(asked(("twice", {"n": 1}))))
        assert (found.status, "has changed" in str(found.content)) == ("error", True)
        assert bench.told == [("twice", "changed"), ("twice", "ran")]
        alone(*mcp_tools(stranger), executor=bench.executor, grants=grants).invoke(asked(("twice", {"n": 1})))
        with pytest.raises(ValueError, match="two servers have a tool 'twice'"):
            mcp_tools(server, stranger)
    bench.audit.close()
    assert verify_file(bench.path, KEY).faults == ()
    assert {"here", "other"} <= set(bench.path.read_text().split('"'))


@BOTH
def test_a_server_over_http_that_asks_for_more_scope_is_called_again_with_it(run: Any, tmp_path: Path) -> None:
    sent: list[str] = []

    def login(request: httpx.Request) -> httpx.Response:
        sent.append(httpx.QueryParams(request.content.decode())["scope"])
        return httpx.Response(200, json={"access_token": "narrow", "expires_in": 60})

    transport = httpx.MockTransport(login)
    exchange = TokenExchange(
        "https://login.example/token",
        subject=lambda required: "users",
        scopes=lambda required: [],
        audience="https://sums.example",
        client=httpx.Client(transport=transport),
        async_client=httpx.AsyncClient(transport=transport),
    )
    path = tmp_path / "audit.jsonl"
    door = Guarded(little().streamable_http_app(), "narrow", "sums:write")
    with Audit(path, KEY) as audit, over_http(door) as address, McpServer("sums", address) as server:
        executor = Executor(authority=Authority(providers=[exchange]), audit=audit)
        graph = alone(*mcp_tools(server), executor=executor, grants={"twice": Ceiling()})
        (found,) = results(run(graph, asked(("twice", {"n": 4}))))
    assert (found.status, found.content, sent) == ("success", "8", ["sums:write"])
    assert door.seen == [None, "Bearer narrow"]
    assert "narrow" not in path.read_text() + str(found)


async def test_a_call_has_one_span_of_a_tool_and_the_clients_under_it() -> None:
    spans = Spans()
    undo = instrument(spans.provider)
    try:
        answers = [AIMessage("", tool_calls=[{"name": "twice", "args": {"n": 4}, "id": "1"}]), AIMessage("8")]
        with McpServer("here", little()) as server:
            spans.exporter.clear()
            model = Scripted(answers=answers)
            agent: Any = create_agent(model, mcp_tools(server), middleware=[ToolGuard()], name="sums")
            told = await agent.ainvoke({"messages": [("user", "2 * 4?")]})
    finally:
        undo()
    assert told["messages"][-1].content == "8"
    calls = [each for each in spans.all if (each.attributes or {}).get("gen_ai.operation.name") == "execute_tool"]
    assert [(each.name, each.kind) for each in calls] == [("execute_tool twice", SpanKind.INTERNAL)]
    (client,) = [each for each in spans.named("tools/call twice") if each.kind is SpanKind.CLIENT]
    assert spans.path(client) == [
        "invoke_agent sums",
        "superstep 2",
        "run_step tools",
        "execute_tool twice",
        "tools/call twice",
    ]
    assert len(spans.named("tools/call twice")) == 2, "the server's own is the other"


def test_without_a_guard_they_are_tools_like_others(tmp_path: Path) -> None:
    with McpServer("there", program(tmp_path)) as server:
        tools = {each.name: each for each in mcp_tools(server)}
        assert tools["twice"].invoke({"n": 4}) == "8"
        assert asyncio.run(tools["twice"].ainvoke({"n": 5})) == "10"
        with pytest.raises(ToolException, match="nobody knows"):
            tools["fail"].invoke({})
