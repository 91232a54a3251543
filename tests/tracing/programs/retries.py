"""Nodes that are tried again, that run out of time, whose error another node handles, or that come from the cache."""

from __future__ import annotations

import asyncio
from typing import Any

from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import CachePolicy, RetryPolicy, interrupt

from .ground import Ground
from .parts import EMPTY, THREAD, Seen, chain
from .suite import BOTH, program

AGAIN = RetryPolicy(initial_interval=0, jitter=False, max_attempts=3, retry_on=ConnectionError)


def shaky(failures: int, name: str = "shaky") -> Any:
    """A node's work: it fails so many times before it succeeds."""
    left = [1] * failures

    def then(state: Any) -> Any:
        if left:
            left.pop()
            raise ConnectionError("again")
        return {"seen": [name]}

    return then


def retried(ground: Ground, body: Any, *, policy: Any = AGAIN, **more: Any) -> Any:
    graph: Any = StateGraph(Seen).add_node("a", ground.node("a")).add_edge(START, "a")
    graph.add_node("shaky", body, retry_policy=policy, **more).add_edge("a", "shaky")
    return graph.add_node("b", ground.node("b")).add_edge("shaky", "b")


@program("retries", ways=BOTH)
def a_node_that_succeeds_at_the_third_attempt(ground: Ground) -> Any:
    ground.linked("b", "shaky")
    return ground.run(retried(ground, ground.node("shaky", shaky(2))).compile(), EMPTY)


@program("retries", ways=BOTH, raises="ConnectionError")
def a_node_that_fails_at_every_attempt(ground: Ground) -> Any:
    return ground.run(retried(ground, ground.node("shaky", shaky(9))).compile(), EMPTY)


@program("retries", ways=BOTH, raises="ZeroDivisionError")
def an_error_that_is_not_tried_again(ground: Ground) -> Any:
    def then(state: Any) -> Any:
        raise ZeroDivisionError("no")

    return ground.run(retried(ground, ground.node("shaky", then)).compile(), EMPTY)


@program("retries", ways=BOTH)
def two_shaky_nodes_side_by_side(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen)
    for name, failures in (("one", 1), ("two", 2), ("none", 0)):
        body = ground.node(name, shaky(failures, name))
        graph.add_node(name, body, retry_policy=AGAIN).add_edge(START, name)
    return ground.run(graph.compile(), EMPTY)


@program("retries", ways=BOTH)
def a_graph_inside_is_tried_again(ground: Ground) -> Any:
    """The inner graph runs twice, once in each attempt at the outer node."""
    inner = chain(ground, "x", "y", y=ground.node("y", shaky(1, "y"))).compile(name="inner")
    return ground.run(retried(ground, inner).compile(name="outer"), EMPTY)


@program("retries", ways=BOTH)
def a_question_at_the_second_attempt(ground: Ground) -> Any:
    """An interrupt ends a node whose first attempt failed; the node's span is no error."""
    fails = shaky(1)

    def then(state: Any) -> Any:
        fails(state)
        return {"seen": [interrupt("well?")]}

    graph = retried(ground, ground.node("shaky", then)).compile(checkpointer=InMemorySaver())
    return ground.run(graph, EMPTY, THREAD)


@program("retries", ways=BOTH)
def a_retry_policy_of_several(ground: Ground) -> Any:
    other = RetryPolicy(initial_interval=0, jitter=False, max_attempts=2, retry_on=KeyError)
    return ground.run(retried(ground, ground.node("shaky", shaky(1)), policy=[other, AGAIN]).compile(), EMPTY)


@program("retries", least="1.2", raises="NodeTimeoutError")
async def a_node_that_runs_out_of_time(ground: Ground) -> Any:
    async def then(state: Any) -> Any:
        with ground.probe("waiting"):
            await asyncio.Event().wait()

    ground.late("slow", "waiting")
    ground.wanted.failing.append(("node", "slow"))
    graph: Any = StateGraph(Seen).add_node("slow", ground.node("slow", then), timeout=0.02).add_edge(START, "slow")
    return await ground.arun(graph.compile(), EMPTY)


@program("retries", least="1.2")
async def a_node_that_runs_out_of_time_once(ground: Ground) -> Any:
    tries: list[int] = []

    async def then(state: Any) -> Any:
        tries.append(1)
        if len(tries) == 1:
            await asyncio.Event().wait()
        return {"seen": ["slow"]}

    ground.late("slow")
    again = RetryPolicy(initial_interval=0, jitter=False, max_attempts=2, retry_on=Exception)
    graph: Any = StateGraph(Seen)
    graph.add_node("slow", ground.node("slow", then), timeout=0.05, retry_policy=again).add_edge(START, "slow")
    return await ground.arun(graph.compile(), EMPTY)


@program("retries", least="1.2")
async def a_node_with_time_to_spare(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen).add_node("quick", ground.node("quick"), timeout=60).add_edge(START, "quick")
    return await ground.arun(graph.compile(), EMPTY)


@program("retries", least="1.2", ways=BOTH)
def another_node_handles_an_error(ground: Ground) -> Any:
    def handle(state: Any) -> Any:
        return {"seen": ["handled"]}

    graph: Any = StateGraph(Seen)
    graph.add_node("shaky", ground.node("shaky", shaky(9)), error_handler=handle).add_edge(START, "shaky")
    return ground.run(graph.compile(), EMPTY)


@program("retries", ways=BOTH)
def a_cached_node_is_not_run_again(ground: Ground) -> Any:
    policy = CachePolicy(key_func=lambda *given, **more: "the same")
    graph: Any = StateGraph(Seen).add_node("costly", ground.node("costly"), cache_policy=policy)
    graph.add_edge(START, "costly").add_node("b", ground.node("b")).add_edge("costly", "b")
    whole = graph.compile(cache=InMemoryCache())
    return ground.run(whole, EMPTY), ground.run(whole, EMPTY)


@program("retries", ways=BOTH)
def a_step_of_cached_and_other_nodes(ground: Ground) -> Any:
    policy = CachePolicy(key_func=lambda *given, **more: "the same")
    graph: Any = StateGraph(Seen).add_node("costly", ground.node("costly"), cache_policy=policy)
    graph.add_node("beside", ground.node("beside")).add_edge(START, "costly").add_edge(START, "beside")
    graph.add_node("end", ground.node("end")).add_edge(["costly", "beside"], "end")
    whole = graph.compile(cache=InMemoryCache())
    return ground.run(whole, EMPTY), ground.run(whole, EMPTY)


@program("retries")
def a_limit_of_time_for_a_step(ground: Ground) -> Any:
    """One that is kept."""
    graph = chain(ground, "a", "b").compile()
    graph.step_timeout = 30
    return ground.run(graph, EMPTY)
