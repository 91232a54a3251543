"""What the span of a run says at its end, and a tracer that is switched on or off while runs go on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy
from opentelemetry import trace

from sostenuto.tests.tracing.programs.parts import EMPTY, THREAD, Seen
from sostenuto.tracing import instrument


def invoke(graph: Any, config: Any = None, **more: Any) -> Any:
    return graph.invoke(EMPTY, config, **more)


def ainvoke(graph: Any, config: Any = None, **more: Any) -> Any:
    return asyncio.run(graph.ainvoke(EMPTY, config, **more))


CALLS = pytest.mark.parametrize("call", [invoke, ainvoke])


def two(**first: Any) -> Any:
    graph = StateGraph(Seen).add_node("a", lambda state: {"seen": ["a"]}, **first).add_edge(START, "a")
    return graph.add_node("b", lambda state: {"seen": ["b"]}).add_edge("a", "b")


@CALLS
@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
def test_a_run_names_the_checkpoint_that_it_left_last(traced: Any, call: Any, durability: str) -> None:
    graph = two().compile(checkpointer=InMemorySaver())
    call(graph, THREAD, durability=durability)
    last = graph.get_state(THREAD).config["configurable"]["checkpoint_id"]
    assert traced.one("invoke_workflow LangGraph").attributes["langgraph.checkpoint_id.end"] == last


@CALLS
def test_a_run_without_a_checkpointer_names_none(traced: Any, call: Any) -> None:
    call(two().compile())
    assert "langgraph.checkpoint_id.end" not in traced.one("invoke_workflow LangGraph").attributes


def test_an_inner_graph_does_not_speak_for_the_outer_one(traced: Any) -> None:
    outer = StateGraph(Seen).add_node("sub", two().compile(name="inner")).add_edge(START, "sub")
    graph = outer.compile(checkpointer=InMemorySaver(), name="outer")
    graph.invoke(EMPTY, THREAD, durability="sync")
    last = graph.get_state(THREAD).config["configurable"]["checkpoint_id"]
    ends = [
        traced.one(f"invoke_workflow {each}").attributes["langgraph.checkpoint_id.end"] for each in ("outer", "inner")
    ]
    assert ends[0] == last != ends[1]


@CALLS
def test_a_node_served_from_the_cache_is_named_and_has_no_span(traced: Any, call: Any) -> None:
    policy = CachePolicy(key_func=lambda *given, **more: "same")
    graph = two(cache_policy=policy).compile(cache=InMemoryCache())
    call(graph)
    call(graph)
    first, second = traced.named("invoke_workflow LangGraph")
    assert "langgraph.cached" not in first.attributes
    assert second.attributes["langgraph.cached"] == ("a",)
    assert len(traced.named("run_step a")) == 1


def test_an_agent_says_who_it_is_if_it_was_told(traced: Any) -> None:
    said = {"gen_ai.agent.id": "a1", "gen_ai.agent.description": "adds", "gen_ai.agent.version": "2"}
    two().compile(name="plain").with_config(metadata=said).invoke(EMPTY)
    found = traced.one("invoke_workflow plain").attributes
    assert {name: found[name] for name in said} == said


def test_a_tracer_switched_off_in_the_middle_of_a_run_ends_what_it_began(spans: Any) -> None:
    undo = instrument(spans.provider)
    stream = two().compile().stream(EMPTY)
    first = next(stream)
    undo()
    assert [first, *stream] == [{"a": {"seen": ["a"]}}, {"b": {"seen": ["b"]}}]
    assert spans.tree() == ["invoke_workflow LangGraph", "  superstep 1", "    run_step a"]
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_a_tracer_switched_on_in_the_middle_of_a_run_leaves_it_alone(spans: Any) -> None:
    stream = two().compile().stream(EMPTY)
    first = next(stream)
    undo = instrument(spans.provider)
    try:
        assert [first, *stream] == [{"a": {"seen": ["a"]}}, {"b": {"seen": ["b"]}}]
    finally:
        undo()
    assert spans.all == ()
