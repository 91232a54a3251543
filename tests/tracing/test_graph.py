"""Cyclic agents as trees of spans: sync, async and streamed, with parallel tools."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable
from typing import Annotated, Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.types import Send
from opentelemetry import trace

from sostenuto.tracing import instrument

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
ASK: Any = {"messages": [("user", "go")]}


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


def test_the_attributes_say_which_step_visit_and_task_a_node_is(agent: Any, traced: Any) -> None:
    agent.invoke(ASK, {"configurable": {"thread_id": "t-1"}})
    root = traced.one("invoke_agent sums").attributes
    assert root["gen_ai.operation.name"] == "invoke_agent"
    assert root["gen_ai.agent.name"] == "sums"
    assert root["gen_ai.conversation.id"] == root["session.id"] == root["langgraph.thread_id"] == "t-1"
    assert (root["langgraph.steps"], root["langgraph.status"]) == (7, "done")
    models = [each.attributes for each in traced.named("run_step model")]
    assert [each["langgraph.visit"] for each in models] == [1, 2, 3, 4]
    assert [each["langgraph.step"] for each in models] == [1, 3, 5, 7]
    assert models[0]["langgraph.goto"] == ("tools", "tools")
    assert models[1]["langgraph.triggers"] == ("branch:to:model",)
    tools = [each.attributes for each in traced.named("run_step tools")]
    assert sorted(each["langgraph.visit"] for each in tools) == [1, 1, 2, 2, 3, 3]
    assert len({each["langgraph.task.id"] for each in tools}) == 6
    assert {each["langgraph.path"] for each in tools} == {"__pregel_push/0/False", "__pregel_push/1/False"}
    step = traced.one("superstep 2").attributes
    assert (step["langgraph.step.tasks"], step["langgraph.step.nodes"]) == (2, ("tools", "tools"))
    assert {each.attributes["session.id"] for each in traced.all if each.name.startswith("execute")} == {"t-1"}


@WAYS
def test_links_lead_to_who_sent_a_task_and_to_the_visit_before(agent: Any, traced: Any, run: Any) -> None:
    run(agent)
    models = traced.named("run_step model")
    adds = [traced.parent(each) for each in traced.named("execute_tool add")]
    doubles = [traced.parent(each) for each in traced.named("execute_tool double")]
    ids = [each.context.span_id for each in models]
    assert [traced.links(each, "trigger") for each in adds] == [[each] for each in ids[:3]]
    assert [traced.links(each, "visit") for each in adds] == [[]] + [[each.context.span_id] for each in adds[:2]]
    for at, model in enumerate(models[1:]):
        assert set(traced.links(model, "trigger")) == {adds[at].context.span_id, doubles[at].context.span_id}
        assert traced.links(model, "visit") == [ids[at]]


@WAYS
def test_a_step_ends_with_its_last_task_and_children_lie_within_parents(agent: Any, traced: Any, run: Any) -> None:
    run(agent)
    for span in traced.all:
        above = traced.parent(span)
        if above is not None:
            assert above.start_time <= span.start_time
            assert span.end_time <= above.end_time
    for step in (each for each in traced.all if each.name.startswith("superstep")):
        inside = [each.end_time for each in traced.all if traced.parent(each) is step]
        assert step.end_time == max(inside)


def test_the_callers_span_is_the_parent_and_stays_current(agent: Any, traced: Any) -> None:
    with traced.tracer.start_as_current_span("request") as request:
        agent.invoke(ASK)
        assert trace.get_current_span() is request
        for _ in agent.stream(ASK):
            assert trace.get_current_span() is request
    assert traced.tree()[:2] == ["request", "  invoke_agent sums"]
    assert len([each for each in traced.tree() if each == "  invoke_agent sums"]) == 2


class State(TypedDict):
    seen: Annotated[list[str], operator.add]


def say(word: str, *, then: Callable[[], None] | None = None) -> Any:
    def node(state: State) -> dict[str, Any]:
        if then is not None:
            then()
        return {"seen": [word]}

    return node


def test_a_join_links_to_all_that_it_waited_for_even_from_different_steps(traced: Any) -> None:
    graph = StateGraph(State)
    for name in ("long", "longer", "short", "end"):
        graph.add_node(name, say(name))
    graph.add_edge(START, "long")
    graph.add_edge(START, "short")
    graph.add_edge("long", "longer")
    graph.add_edge(["longer", "short"], "end")
    graph.compile().invoke({"seen": []})
    end = traced.one("run_step end")
    wanted = {traced.one(f"run_step {each}").context.span_id for each in ("longer", "short")}
    assert set(traced.links(end, "trigger")) == wanted


def test_what_a_sibling_writes_in_the_same_step_did_not_start_a_node(traced: Any) -> None:
    graph = StateGraph(State).add_node("a", say("a")).add_node("b", say("b"))
    graph.add_edge(START, "a").add_edge(START, "b").add_edge("a", "b")
    graph.compile().invoke({"seen": []}, {"max_concurrency": 1})
    first, second = traced.named("run_step b")
    assert traced.links(first, "trigger") == []
    assert traced.links(second, "trigger") == [traced.one("run_step a").context.span_id]


def test_what_a_checkpointer_does_stands_under_the_run_not_under_a_node_that_is_over(traced: Any) -> None:
    class Saver(InMemorySaver):
        def put(self, *args: Any, **kwargs: Any) -> Any:
            with traced.tracer.start_as_current_span("put"):
                return super().put(*args, **kwargs)

    graph = StateGraph(State).add_node("a", say("a")).add_edge(START, "a").compile(checkpointer=Saver())
    graph.invoke({"seen": []}, {"configurable": {"thread_id": "t"}}, durability="sync")
    assert {tuple(traced.path(each)) for each in traced.named("put")} == {("invoke_workflow LangGraph", "put")}


def test_each_send_links_to_its_own_sender(traced: Any) -> None:
    graph = StateGraph(State)
    graph.add_node("a", say("a"))
    graph.add_node("b", say("b"))
    graph.add_node("worker", say("worker"))
    graph.add_edge(START, "a")
    graph.add_edge(START, "b")
    for name in ("a", "b"):
        graph.add_conditional_edges(name, lambda state, name=name: [Send("worker", {"from": name})], ["worker"])
    graph.compile().invoke({"seen": []})
    first, second = sorted(traced.named("run_step worker"), key=lambda each: each.attributes["langgraph.path"])
    assert traced.links(first, "trigger") == [traced.one("run_step a").context.span_id]
    assert traced.links(second, "trigger") == [traced.one("run_step b").context.span_id]


@pytest.mark.parametrize("run", [run_sync, run_async, run_astream])
def test_a_graph_called_in_a_node_stands_under_that_node(agent: Any, traced: Any, run: Any) -> None:
    inner = StateGraph(State).add_node("deep", say("deep")).add_edge(START, "deep").compile(name="inner")
    outer = StateGraph(State).add_node("call", lambda state: inner.invoke(state)).add_node("sub", inner)
    whole = outer.add_edge(START, "call").add_edge("call", "sub").compile(name="outer")
    run(whole)
    assert traced.tree() == [
        "invoke_workflow outer",
        "  superstep 1",
        "    run_step call",
        "      invoke_workflow inner",
        "        superstep 1",
        "          run_step deep",
        "  superstep 2",
        "    run_step sub",
        "      invoke_workflow inner",
        "        superstep 1",
        "          run_step deep",
    ]


def test_an_agent_used_as_a_tool_stands_under_the_call(traced: Any, models: Any) -> None:
    inner: Any = create_agent(models["plain"](answers=[AIMessage("deep")]), [], name="expert")

    @tool
    def ask(question: str) -> str:
        """Asks the expert."""
        return str(inner.invoke({"messages": [("user", question)]})["messages"][-1].content)

    call = {"name": "ask", "args": {"question": "?"}, "id": "1"}
    model = models["plain"](answers=[AIMessage("", tool_calls=[call]), AIMessage("done")])
    create_agent(model, [ask], name="chief").invoke(ASK)
    (chat,) = [each for each in traced.named("chat Scripted") if "invoke_agent expert" in traced.path(each)]
    assert traced.path(chat) == [
        "invoke_agent chief",
        "superstep 2",
        "run_step tools",
        "execute_tool ask",
        "invoke_agent expert",
        "superstep 1",
        "run_step model",
        "chat Scripted",
    ]


def test_tasks_of_the_functional_api_stand_under_their_caller(traced: Any) -> None:
    @task
    def part(number: int) -> int:
        return number + 1

    @entrypoint()
    def whole(number: int) -> int:
        futures = [part(number), part(number + 1)]
        return sum(each.result() for each in futures)

    assert whole.invoke(1) == 5
    assert traced.tree() == [
        "invoke_workflow LangGraph",  # what the functional API names it
        *("  superstep 0", "    run_step whole"),
        *("      run_step part", "      run_step part"),
    ]


def test_tasks_of_an_async_functional_program_stand_under_their_caller(traced: Any) -> None:
    @task
    async def part(number: int) -> int:
        return number + 1

    @entrypoint()
    async def whole(number: int) -> int:
        return sum(await asyncio.gather(part(number), part(number + 1)))

    assert asyncio.run(whole.ainvoke(1)) == 5
    assert [traced.path(each)[-2] for each in traced.named("run_step part")] == ["run_step whole"] * 2


def test_many_runs_at_once_keep_apart(agent: Any, traced: Any, rounds: Any) -> None:
    async def both() -> None:
        configs = [{"configurable": {"thread_id": str(each)}} for each in range(5)]
        await asyncio.gather(*(agent.ainvoke(ASK, each) for each in configs))

    asyncio.run(both())
    roots = traced.named("invoke_agent sums")
    assert len({each.context.trace_id for each in roots}) == 5
    for root in roots:
        mine = [each for each in traced.all if each.context.trace_id == root.context.trace_id]
        assert {each.attributes["session.id"] for each in mine if "session.id" in each.attributes} == {
            root.attributes["session.id"]
        }


def test_supersteps_can_be_left_out(spans: Any) -> None:
    undo = instrument(spans.provider, supersteps=False)
    try:
        StateGraph(State).add_node("a", say("a")).add_edge(START, "a").compile().invoke({"seen": []})
    finally:
        undo()
    assert spans.tree() == ["invoke_workflow LangGraph", "  run_step a"]
    assert spans.one("invoke_workflow LangGraph").attributes["langgraph.steps"] == 1
