"""Tools that `langchain-mcp-adapters` makes of those of MCP servers, in one trace and counted once."""

from __future__ import annotations

from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from opentelemetry.trace import SpanKind

from .conftest import Scripted, Spans
from .mcp_peers import connected, new_server

adapters: Any = pytest.importorskip(
    "langchain_mcp_adapters.tools", reason="needs langchain-mcp-adapters: make test-mcp", exc_type=ImportError
)

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ANSWERS = [AIMessage("", tool_calls=[{"name": "double", "args": {"number": 4}, "id": "1"}]), AIMessage("8")]


async def test_an_adapters_tool_is_one_tool_call_with_the_servers_part_under_it(traced: Spans) -> None:
    server = new_server()

    @server.tool()  # type: ignore[untyped-decorator]
    def double(number: int) -> int:
        """Doubles a number."""
        with traced.tracer.start_as_current_span("in double"):
            return 2 * number

    async with connected(server) as session:
        tools = await adapters.load_mcp_tools(session)
        traced.exporter.clear()
        agent: Any = create_agent(Scripted(answers=ANSWERS), tools, name="sums")
        told = await agent.ainvoke({"messages": [("user", "2 * 4?")]})
    assert told["messages"][-1].content == "8"
    (path,) = [traced.path(each) for each in traced.named("in double")]
    assert path == [
        "invoke_agent sums",
        "superstep 2",
        "run_step tools",
        "execute_tool double",
        "tools/call double",
        "tools/call double",
        "in double",
    ]
    calls = [each for each in traced.all if (each.attributes or {}).get("gen_ai.operation.name") == "execute_tool"]
    assert [(each.name, each.kind) for each in calls] == [("execute_tool double", SpanKind.INTERNAL)]
    assert traced.failed() == []
