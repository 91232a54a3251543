"""How runs end: interrupted and resumed, cancelled, dropped, failed, retried."""

from __future__ import annotations

import asyncio
import gc
import operator
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphRecursionError
from langgraph.graph import START, StateGraph
from langgraph.types import Command, RetryPolicy, interrupt
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from sostenuto.tracing.graph_run import GraphRun


class State(TypedDict):
    seen: Annotated[list[str], operator.add]


THREAD: RunnableConfig = {"configurable": {"thread_id": "t"}}


def asking() -> Any:
    def ask(state: State) -> dict[str, Any]:
        return {"seen": [interrupt("well?")]}

    def after(state: State) -> dict[str, Any]:
        return {"seen": ["after"]}

    graph = StateGraph(State).add_node("ask", ask).add_node("after", after)
    return graph.add_edge(START, "ask").add_edge("ask", "after")


def invoke(graph: Any, value: Any, config: RunnableConfig = THREAD) -> Any:
    return graph.invoke(value, config)


def ainvoke(graph: Any, value: Any, config: RunnableConfig = THREAD) -> Any:
    return asyncio.run(graph.ainvoke(value, config))


def stream(graph: Any, value: Any, config: RunnableConfig = THREAD) -> Any:
    return list(graph.stream(value, config, stream_mode="updates"))


CALLS = pytest.mark.parametrize("call", [invoke, ainvoke, stream])


@CALLS
def test_an_interrupt_is_an_event_and_the_resumed_run_links_back(traced: Any, call: Any) -> None:
    saver = InMemorySaver()
    call(asking().compile(checkpointer=saver), {"seen": []})
    call(asking().compile(checkpointer=saver), Command(resume="yes"))  # as another process would
    first, second = traced.named("invoke_workflow LangGraph")
    node = traced.named("run_step ask")[0]
    assert traced.failed() == []
    assert node.attributes["langgraph.status"] == first.attributes["langgraph.status"] == "interrupt"
    (event,) = [each for each in node.events if each.name == "interrupt"]
    assert len(event.attributes["langgraph.interrupt.ids"]) == 1
    assert first.attributes["langgraph.resumed"] == "none"
    assert second.attributes["langgraph.resumed"] == "interrupt"
    assert second.context.trace_id != first.context.trace_id
    assert traced.links(second, "resume") == [first.context.span_id]
    assert second.attributes["langgraph.resumed_from.span_id"] == f"{first.context.span_id:016x}"
    assert second.attributes["langgraph.resumed_from.trace_id"] == f"{first.context.trace_id:032x}"
    assert second.attributes["langgraph.status"] == "done"


@CALLS
def test_a_stop_before_a_node_is_an_interrupt_and_going_on_resumes_it(traced: Any, call: Any) -> None:
    graph = StateGraph(State).add_node("a", lambda state: {"seen": ["a"]}).add_edge(START, "a")
    whole = graph.compile(checkpointer=InMemorySaver(), interrupt_before=["a"])
    call(whole, {"seen": []})
    call(whole, None)
    first, second = traced.named("invoke_workflow LangGraph")
    assert first.attributes["langgraph.status"] == "interrupt"
    assert [each.name for each in first.events] == ["interrupt"]
    assert second.attributes["langgraph.resumed"] == "interrupt"
    assert traced.links(second, "resume") == [first.context.span_id]


def test_an_interrupt_in_a_subgraph_leaves_no_error_anywhere(traced: Any) -> None:
    inner = asking().compile(name="inner")
    outer = StateGraph(State).add_node("sub", inner).add_edge(START, "sub")
    whole = outer.compile(checkpointer=InMemorySaver(), name="outer")
    whole.invoke({"seen": []}, THREAD)
    whole.invoke(Command(resume="yes"), THREAD)
    assert traced.failed() == []
    status = [each.attributes["langgraph.status"] for each in traced.named("invoke_workflow inner")]
    assert status == ["interrupt", "done"]


def test_a_crashed_run_is_taken_up_and_an_edited_one_is_a_fork(traced: Any) -> None:
    broken = [True]

    def node(state: State) -> dict[str, Any]:
        if broken[0]:
            raise RuntimeError("power cut")
        return {"seen": ["a"]}

    graph = StateGraph(State).add_node("a", node).add_edge(START, "a").compile(checkpointer=InMemorySaver())
    with pytest.raises(RuntimeError):
        graph.invoke({"seen": []}, THREAD)
    broken[0] = False
    graph.invoke(None, THREAD)
    graph.update_state(THREAD, {"seen": ["edited"]}, as_node="__start__")
    graph.invoke(None, THREAD)
    old = [each for each in graph.get_state_history(THREAD) if each.next == ("a",)][-1]
    graph.invoke(None, old.config)
    runs = traced.named("invoke_workflow LangGraph")
    assert [each.attributes["langgraph.resumed"] for each in runs] == ["none", "crash", "fork", "replay"]
    ids = [each.context.span_id for each in runs]
    assert [traced.links(each, "resume") for each in runs] == [[], [ids[0]], [ids[1]], [ids[0]]]
    assert runs[3].attributes["langgraph.checkpoint_id"] == old.config["configurable"]["checkpoint_id"]


def test_a_new_turn_of_a_conversation_links_to_the_one_before(traced: Any) -> None:
    graph = StateGraph(State).add_node("a", lambda state: {"seen": ["a"]}).add_edge(START, "a")
    whole = graph.compile(checkpointer=InMemorySaver())
    whole.invoke({"seen": []}, THREAD)
    whole.invoke({"seen": []}, THREAD)
    first, second = traced.named("invoke_workflow LangGraph")
    assert second.attributes["langgraph.resumed"] == "none"
    assert traced.links(second, "previous") == [first.context.span_id]
    assert "langgraph.resumed_from.trace_id" not in second.attributes


def slow_agent(models: Any, started: asyncio.Event) -> Any:
    @tool
    async def wait() -> str:
        """Waits for ever."""
        started.set()
        await asyncio.Event().wait()
        return "never"

    call = {"name": "wait", "args": {}, "id": "1"}
    return create_agent(models["plain"](answers=[AIMessage("", tool_calls=[call])]), [wait], name="slow")


CHAIN = ["invoke_agent slow", "superstep 2", "run_step tools", "execute_tool wait"]


def test_a_cancelled_tool_ends_and_is_no_error(traced: Any, models: Any) -> None:
    async def main() -> None:
        started = asyncio.Event()
        running = asyncio.create_task(slow_agent(models, started).ainvoke({"messages": [("user", "go")]}))
        await started.wait()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running

    asyncio.run(main())
    found = traced.one("execute_tool wait")
    assert traced.path(found) == CHAIN
    assert found.attributes["sostenuto.outcome"] == "cancelled"
    assert traced.one("run_step tools").attributes["langgraph.status"] == "cancelled"
    assert traced.one("invoke_agent slow").attributes["langgraph.status"] == "cancelled"
    assert traced.failed() == []
    assert len(traced.tree()) == 7


def test_a_stream_closed_while_a_tool_waits_ends_everything(traced: Any, models: Any) -> None:
    async def main() -> None:
        running = slow_agent(models, asyncio.Event()).astream({"messages": [("user", "go")]}, stream_mode="tasks")
        async for item in running:
            if item["name"] == "tools":
                break
        # Closed from another task than the one that read it, as web servers do.
        await asyncio.create_task(running.aclose())

    asyncio.run(main())
    assert traced.one("invoke_agent slow").attributes["sostenuto.outcome"] == "closed"
    assert traced.failed() == []
    assert traced.tree()[0] == "invoke_agent slow"


async def drop(graph: Any, value: Any) -> None:
    async for _ in graph.astream(value):
        break
    gc.collect()


def test_a_stream_dropped_early_ends_its_run(traced: Any, agent: Any, caplog: Any) -> None:
    asyncio.run(drop(agent, {"messages": [("user", "go")]}))
    root = traced.one("invoke_agent sums")
    assert root.attributes["langgraph.status"] == "cancelled"
    assert root.status.status_code is StatusCode.UNSET
    assert caplog.messages == []
    assert traced.tree()[0] == "invoke_agent sums"


def test_a_sync_stream_dropped_early_ends_its_run(traced: Any, agent: Any) -> None:
    for _ in agent.stream({"messages": [("user", "go")]}):
        break
    gc.collect()
    assert traced.one("invoke_agent sums").attributes["sostenuto.outcome"] == "closed"
    assert traced.failed() == []


def test_a_stream_may_be_read_by_several_tasks(traced: Any, agent: Any, caplog: Any) -> None:
    async def main() -> None:
        running = agent.astream({"messages": [("user", "go")]})
        with suppress(StopAsyncIteration):
            while True:
                await asyncio.create_task(anext(running))

    asyncio.run(main())
    assert traced.one("invoke_agent sums").attributes["langgraph.status"] == "done"
    assert caplog.messages == []


@pytest.mark.parametrize("call", [invoke, ainvoke])
def test_an_exception_marks_the_node_and_the_run(traced: Any, call: Any) -> None:
    def fall(state: State) -> dict[str, Any]:
        raise LookupError("lost")

    graph = StateGraph(State).add_node("fall", fall).add_edge(START, "fall").compile()
    with pytest.raises(LookupError):
        call(graph, {"seen": []})
    assert sorted(traced.failed()) == ["invoke_workflow LangGraph", "run_step fall"]
    node = traced.one("run_step fall")
    assert node.attributes["error.type"] == "LookupError"
    assert node.attributes["langgraph.status"] == "error"
    (event,) = node.events
    assert (event.name, event.attributes["exception.type"]) == ("exception", "LookupError")


def test_when_one_task_fails_its_siblings_are_cancelled_not_failed(traced: Any) -> None:
    async def fall(state: State) -> dict[str, Any]:
        await asyncio.sleep(0)
        raise LookupError("lost")

    async def wait(state: State) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    graph = StateGraph(State).add_node("fall", fall).add_node("wait", wait)
    whole = graph.add_edge(START, "fall").add_edge(START, "wait").compile()
    with pytest.raises(LookupError):
        asyncio.run(whole.ainvoke({"seen": []}))
    assert traced.one("run_step wait").attributes["langgraph.status"] == "cancelled"
    assert sorted(traced.failed()) == ["invoke_workflow LangGraph", "run_step fall"]


@pytest.mark.parametrize("call", [invoke, ainvoke])
def test_every_attempt_has_a_span_and_only_what_failed_is_an_error(traced: Any, call: Any) -> None:
    tries: list[int] = []

    def shaky(state: State) -> dict[str, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("again")
        with traced.tracer.start_as_current_span("work"):
            return {"seen": ["a"]}

    again = RetryPolicy(initial_interval=0, jitter=False, max_attempts=3)
    graph = StateGraph(State).add_node("shaky", shaky, retry_policy=again).add_edge(START, "shaky")
    call(graph.compile(), {"seen": []})
    assert traced.tree()[2:] == [
        "    run_step shaky",
        *("      attempt 1", "      attempt 2", "      attempt 3", "        work"),
    ]
    assert sorted(traced.failed()) == ["attempt 1", "attempt 2"]
    node = traced.one("run_step shaky")
    assert (node.attributes["langgraph.attempts"], node.attributes["langgraph.status"]) == (3, "done")


def test_a_node_that_runs_out_of_time_ends_after_its_attempt(traced: Any) -> None:
    async def slow(state: State) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    graph = StateGraph(State).add_node("slow", slow, timeout=0.01).add_edge(START, "slow").compile()
    with pytest.raises(Exception, match="slow"):
        asyncio.run(graph.ainvoke({"seen": []}))
    node, attempt = traced.one("run_step slow"), traced.one("attempt 1")
    assert attempt.attributes["sostenuto.outcome"] == "cancelled"
    assert node.status.status_code is StatusCode.ERROR
    assert node.end_time >= attempt.end_time


def test_a_handoff_to_the_parent_graph_is_an_event(traced: Any) -> None:
    def leave(state: State) -> Command[str]:
        return Command(goto="other", graph=Command.PARENT)

    inner = StateGraph(State).add_node("leave", leave).add_edge(START, "leave").compile(name="inner")
    outer = StateGraph(State).add_node("sub", inner).add_node("other", lambda state: {"seen": ["o"]})
    outer.add_edge(START, "sub").compile().invoke({"seen": []})
    assert traced.failed() == []
    (event,) = traced.one("run_step leave").events
    assert (event.name, event.attributes["langgraph.goto"]) == ("handoff", ("other",))
    assert traced.one("run_step sub").attributes["langgraph.goto"] == ("other",)


def test_too_many_steps_is_an_error_of_the_run_alone(traced: Any) -> None:
    graph = StateGraph(State).add_node("a", lambda state: {"seen": ["a"]})
    whole = graph.add_edge(START, "a").add_edge("a", "a").compile()
    with pytest.raises(GraphRecursionError):
        whole.invoke({"seen": []}, {"recursion_limit": 4})
    assert traced.failed() == ["invoke_workflow LangGraph"]
    assert [each.attributes["langgraph.visit"] for each in traced.named("run_step a")] == [1, 2, 3, 4]


def test_an_async_generator_node_keeps_its_spans_inside(traced: Any) -> None:
    async def gen(state: State) -> AsyncIterator[dict[str, Any]]:
        with traced.tracer.start_as_current_span("inside"):
            await asyncio.sleep(0)
        yield {"seen": ["g"]}

    graph = StateGraph(State).add_node("gen", gen).add_edge(START, "gen").compile()

    async def main() -> None:
        async for _ in graph.astream({"seen": []}, stream_mode="custom"):
            assert trace.get_current_span() is trace.INVALID_SPAN

    asyncio.run(main())
    assert traced.path(traced.one("inside"))[-2] == "run_step gen"


def test_a_stream_left_open_when_its_event_loop_ends_is_closed_with_it(traced: Any, agent: Any, caplog: Any) -> None:
    kept: list[Any] = []

    async def main() -> None:
        kept.append(agent.astream({"messages": [("user", "go")]}, stream_mode="tasks"))
        await anext(kept[0])

    for _ in range(8):  # the loop closes its generators in no order
        asyncio.run(main())
        kept.clear()
    assert len(traced.named("invoke_agent sums")) == 8
    assert traced.failed() == []
    assert caplog.messages == []


def test_nothing_of_a_finished_run_is_kept(traced: Any, agent: Any) -> None:
    def runs() -> int:
        gc.collect()
        # The type itself is looked at: asking foreign objects for their class may run code of theirs.
        return sum(type(each) is GraphRun for each in gc.get_objects())

    for _ in range(3):
        agent.invoke({"messages": [("user", "go")]})
        asyncio.run(agent.ainvoke({"messages": [("user", "go")]}))
    assert runs() == 0
