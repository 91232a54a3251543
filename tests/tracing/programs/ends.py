"""How runs end: with errors, by a limit, cancelled in a tool, a model or a node, one sibling by another."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph import runtime
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphBubbleUp
from langgraph.graph import START, StateGraph

from .ground import MODEL, Ground
from .parts import ASK, EMPTY, THREAD, Awaited, Seen, Words, a_tool, calls, chain
from .suite import BOTH, program


def _falls(state: Any) -> Any:
    raise LookupError("lost")


async def _cancelled(ground: Ground, graph: Any, given: Any, started: asyncio.Event) -> str:
    """Runs a graph until its work says it has begun, and cancels it."""
    running = asyncio.create_task(ground.arun(graph, given))
    await asyncio.wait_for(started.wait(), 10)
    running.cancel()
    try:
        await running
    except asyncio.CancelledError:
        return "cancelled"
    return "not cancelled"


@program("ends", ways=BOTH, raises="LookupError")
def a_node_that_fails(ground: Ground) -> Any:
    return ground.run(chain(ground, "a", "b", b=ground.node("b", _falls)).compile(), EMPTY)


@program("ends", ways=BOTH)
def a_failure_that_the_caller_catches(ground: Ground) -> Any:
    graph = chain(ground, "a", a=ground.node("a", _falls)).compile()
    with ground.probe("caller"):
        with contextlib.suppress(LookupError):
            ground.run(graph, EMPTY)
        with ground.probe("afterwards"):
            return "caught"


@program("ends", ways=BOTH, raises="LookupError")
def a_failure_in_a_graph_inside(ground: Ground) -> Any:
    inner = chain(ground, "x", x=ground.node("x", _falls)).compile(name="inner")
    return ground.run(chain(ground, "a", "sub", sub=inner).compile(name="outer"), EMPTY)


@program("ends", ways=BOTH, raises="GraphRecursionError")
def too_many_steps(ground: Ground) -> Any:
    graph = chain(ground, "a", "b")
    return ground.run(graph.add_edge("b", "a").compile(), EMPTY, {"recursion_limit": 5})


@program("ends", ways=BOTH, raises="InvalidUpdateError")
def an_update_that_is_none(ground: Ground) -> Any:
    """The body is right and its result is not: the node fails after its body has ended."""
    return ground.run(chain(ground, "a", a=ground.node("a", lambda state: "nothing")).compile(), EMPTY)


@program("ends", ways=BOTH, raises="RuntimeError")
def a_router_that_fails(ground: Ground) -> Any:
    def route(state: Any) -> str:
        raise RuntimeError("nowhere")

    graph = chain(ground, "a").add_node("b", ground.node("b")).add_conditional_edges("a", route, ["b"])
    return ground.run(graph.compile(), EMPTY)


@program("ends")
async def one_of_two_fails_and_the_other_is_cancelled(ground: Ground) -> Any:
    begun = asyncio.Event()

    async def fall(state: Any) -> Any:
        await begun.wait()
        raise LookupError("lost")

    async def wait(state: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    graph: Any = StateGraph(Seen).add_node("fall", ground.node("fall", fall)).add_edge(START, "fall")
    graph.add_node("wait", ground.node("wait", wait)).add_edge(START, "wait")
    try:
        return await ground.arun(graph.compile(), EMPTY)
    except LookupError:
        return "lost"


@program("ends")
async def a_tool_is_cancelled(ground: Ground) -> Any:
    started = asyncio.Event()

    async def wait(text: str) -> str:
        started.set()
        await asyncio.Event().wait()
        return "never"

    model = Awaited(answers=[calls(("wait", {"text": "x"}))], ground=ground)
    agent = create_agent(model, [a_tool(ground, "wait", wait)], name="slow")
    return await _cancelled(ground, agent, ASK, started)


@program("ends")
async def a_model_is_cancelled(ground: Ground) -> Any:
    started = asyncio.Event()

    class Slow(Awaited):
        async def _agenerate(self, *given: Any, run_manager: Any = None, **more: Any) -> Any:
            with self.ground.probe("thinking", run_manager or MODEL):
                started.set()
                await asyncio.Event().wait()

    agent = create_agent(Slow(answers=[], ground=ground), [], name="slow")
    return await _cancelled(ground, agent, ASK, started)


@program("ends")
async def a_streaming_model_is_cancelled(ground: Ground) -> Any:
    started = asyncio.Event()

    class Slow(Words):
        async def _astream(self, *given: Any, run_manager: Any = None, **more: Any) -> Any:
            for chunk in self._chunks():
                with self.ground.probe("word", run_manager or MODEL):
                    await asyncio.sleep(0)
                yield chunk
                started.set()
                await asyncio.Event().wait()

    async def think(state: Any) -> Any:
        words = [chunk async for chunk in Slow(answers=[AIMessage("one two")], ground=ground).astream("x")]
        return {"seen": words}

    graph = chain(ground, "think", think=ground.node("think", think)).compile()
    return await _cancelled(ground, graph, EMPTY, started)


@program("ends")
async def a_run_is_cancelled_three_graphs_deep(ground: Ground) -> Any:
    started = asyncio.Event()

    async def wait(state: Any) -> Any:
        started.set()
        await asyncio.Event().wait()

    lowest = chain(ground, "wait", wait=ground.node("wait", wait)).compile(name="lowest")
    middle = chain(ground, "m", "sub", sub=lowest).compile(name="middle")
    return await _cancelled(ground, chain(ground, "sub", sub=middle).compile(name="top"), EMPTY, started)


@program("ends")
async def a_cancelled_run_is_taken_up(ground: Ground) -> Any:
    started, open_again = asyncio.Event(), asyncio.Event()

    async def wait(state: Any) -> Any:
        started.set()
        await open_again.wait()
        return {"seen": ["wait"]}

    graph = chain(ground, "a", "wait", wait=ground.node("wait", wait)).compile(checkpointer=InMemorySaver())
    running = asyncio.create_task(ground.arun(graph, EMPTY, THREAD, durability="sync"))
    await asyncio.wait_for(started.wait(), 10)
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    open_again.set()
    ground.resumed(1, 0, "crash")
    return await ground.arun(graph, None, THREAD)


@program("ends", least="1.2")
async def a_node_that_cancels_itself_has_failed(ground: Ground) -> Any:
    """LangGraph 1.2 makes an error of it."""

    async def then(state: Any) -> Any:
        raise asyncio.CancelledError

    ground.wanted.failing.append(("node", "a"))
    graph = chain(ground, "a", a=ground.node("a", then)).compile()
    try:
        return await ground.arun(graph, EMPTY)
    except Exception as raised:
        return type(raised).__name__


@program("ends")
async def a_wait_for_that_runs_out(ground: Ground) -> Any:
    """The caller's own limit of time cancels the run from outside."""

    async def wait(state: Any) -> Any:
        await asyncio.Event().wait()

    graph = chain(ground, "a", "wait", wait=ground.node("wait", wait)).compile()
    try:
        return await asyncio.wait_for(ground.arun(graph, EMPTY), 0.1)
    except TimeoutError:
        return "time is up"


@program("ends", least="1.2", ways=BOTH)
def a_run_that_is_asked_to_stop_between_steps(ground: Ground) -> Any:
    """A server that shuts down asks so; the run is taken up later."""
    control = runtime.RunControl()  # type: ignore[attr-defined,unused-ignore]

    def then(state: Any) -> Any:
        control.request_drain("shutdown")
        return {"seen": ["a"]}

    graph = chain(ground, "a", "b", a=ground.node("a", then)).compile(checkpointer=InMemorySaver())
    try:
        first = ground.run(graph, EMPTY, THREAD, control=control)
    except GraphBubbleUp as raised:
        first = type(raised).__name__
    ground.resumed(1, 0, "crash")
    return first, ground.run(graph, None, THREAD)
