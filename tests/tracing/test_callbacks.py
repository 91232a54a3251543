"""What a callback handler alone can trace."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from opentelemetry import trace

from sostenuto.tracing import GraphTracer, instrument, names, parent_from

TREE = """
invoke_agent sums
  run_step model
  run_step tools
    execute_tool add
  run_step tools
    execute_tool double
  run_step model
""".strip().split("\n")
ASK: Any = {"messages": [("user", "go")]}


@pytest.fixture
def quiet_agent(models: Any, rounds: Any) -> Any:
    @tool
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    @tool
    def double(a: int) -> int:
        """Doubles."""
        return 2 * a

    return create_agent(models["plain"](answers=[rounds[0], rounds[-1]]), [add, double], name="sums")


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_handler_alone_gives_runs_nodes_and_tools(quiet_agent: Any, spans: Any, way: str) -> None:
    handler = GraphTracer(spans.provider)
    config: Any = {"callbacks": [handler]}
    if way == "sync":
        quiet_agent.invoke(ASK, config)
    else:
        asyncio.run(quiet_agent.ainvoke(ASK, config))
    steps = spans.named("run_step model")
    assert [each.attributes["langgraph.step"] for each in steps] == [1, 3]
    assert sorted(spans.tree()) == sorted(TREE)
    assert spans.one("execute_tool add").attributes["gen_ai.tool.call.id"] == "add-1"
    assert repr(handler) == "<GraphTracer 0 open>"
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_an_agent_without_a_name_is_an_agent_all_the_same(models: Any, spans: Any) -> None:
    agent = create_agent(models["plain"](answers=[AIMessage("hi")]), [])
    agent.invoke(ASK, {"callbacks": [GraphTracer(spans.provider)]})
    assert spans.one("invoke_agent LangGraph").attributes[names.AGENT] == "LangGraph"
    undo = instrument(spans.provider)
    agent.invoke(ASK)
    undo()
    assert len(spans.named("invoke_agent LangGraph")) == 2


def test_it_is_silent_while_langgraph_is_instrumented(agent: Any, traced: Any) -> None:
    handler = GraphTracer(traced.provider)
    agent.invoke(ASK, {"callbacks": [handler]})
    assert len(traced.named("invoke_agent sums")) == 1
    assert len(traced.named("run_step model")) == 4
    assert repr(handler) == "<GraphTracer 0 open>"


def test_a_model_finds_its_parent_by_its_run(spans: Any, models: Any) -> None:
    own: Any = models["own"]
    found: list[Any] = []

    class Asking(own):  # type: ignore[misc]
        def _generate(
            self,
            messages: Any,
            stop: Any = None,
            run_manager: CallbackManagerForLLMRun | None = None,
            **kwargs: Any,
        ) -> Any:
            found.append(parent_from(run_manager))
            return super()._generate(messages)

    agent = create_agent(Asking(answers=[AIMessage("hi")]), [], name="a")
    agent.invoke(ASK, {"callbacks": [GraphTracer(spans.provider)]})
    agent.invoke(ASK)
    assert found[0] == spans.one("run_step model").context
    assert found[1] is None


def test_a_cancelled_run_leaves_nothing_open(spans: Any, models: Any) -> None:
    async def main() -> None:
        started = asyncio.Event()

        @tool
        async def wait() -> str:
            """Waits for ever."""
            started.set()
            await asyncio.Event().wait()
            return "never"

        call = {"name": "wait", "args": {}, "id": "1"}
        model = models["plain"](answers=[AIMessage("", tool_calls=[call])])
        graph = create_agent(model, [wait], name="slow")
        running = asyncio.create_task(graph.ainvoke(ASK, {"callbacks": [handler]}))
        await started.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    handler = GraphTracer(spans.provider)
    asyncio.run(main())
    assert repr(handler) == "<GraphTracer 0 open>"
    assert spans.one("execute_tool wait").attributes["sostenuto.outcome"] == "cancelled"
    assert spans.failed() == []
    assert len(spans.tree()) == 4


def test_the_ambient_span_is_the_parent_of_the_run(quiet_agent: Any, spans: Any) -> None:
    with spans.tracer.start_as_current_span("request"):
        quiet_agent.invoke(ASK, {"callbacks": [GraphTracer(spans.provider)]})
    assert spans.path(spans.one("invoke_agent sums")) == ["request", "invoke_agent sums"]
