"""Cyclic agents as trees of spans: sync, async and streamed, with parallel tools."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from opentelemetry import trace

TREE = """
invoke_agent sums
  superstep 1
    run_step model
      chat Scripted
  superstep 2
    run_step tools
      execute_tool add
        in add
    run_step tools
      execute_tool double
  superstep 3
    run_step model
      chat Scripted
  superstep 4
    run_step tools
      execute_tool add
        in add
    run_step tools
      execute_tool double
  superstep 5
    run_step model
      chat Scripted
  superstep 6
    run_step tools
      execute_tool add
        in add
    run_step tools
      execute_tool double
  superstep 7
    run_step model
      chat Scripted
""".strip().split("\n")
ASK = {"messages": [("user", "go")]}


def run_sync(agent: Any) -> None:
    agent.invoke(ASK)


def run_async(agent: Any) -> None:
    asyncio.run(agent.ainvoke(ASK))


def run_stream(agent: Any) -> None:
    for _ in agent.stream(ASK, stream_mode=["messages", "updates"]):
        assert trace.get_current_span() is trace.INVALID_SPAN


def run_astream(agent: Any) -> None:
    async def consume() -> None:
        async for _ in agent.astream(ASK, stream_mode=["messages", "updates"], subgraphs=True):
            assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(consume())


WAYS = pytest.mark.parametrize("run", [run_sync, run_async, run_stream, run_astream])


@WAYS
def test_a_cyclic_agent_with_parallel_tools_is_one_tree(agent: Any, traced: Any, run: Any) -> None:
    run(agent)
    assert traced.tree() == TREE
    assert traced.failed() == []
