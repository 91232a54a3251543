"""Graphs inside graphs: as nodes, called in a node, called through closures, several levels down."""

from __future__ import annotations

import asyncio
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph
from langgraph.types import Send

from .ground import Ground
from .parts import EMPTY, THREAD, Seen, chain
from .suite import BOTH, program


def called(ground: Ground, graph: Any, times: int = 1) -> Any:
    """A node's work: to call this graph, without handing on its configuration."""

    def then(state: Any) -> Any:
        for _ in range(times):
            found = graph.invoke(EMPTY)
        return {"seen": found["seen"]}

    async def athen(state: Any) -> Any:
        for _ in range(times):
            found = await graph.ainvoke(EMPTY)
        return {"seen": found["seen"]}

    return then if ground.way == "sync" else athen


@program("subgraphs", ways=BOTH)
def a_graph_as_a_node(ground: Ground) -> Any:
    inner = chain(ground, "x", "y").compile(name="inner")
    ground.linked("y", "x")
    return ground.run(chain(ground, "a", "sub", "b", sub=inner).compile(name="outer"), EMPTY)


@program("subgraphs", ways=BOTH)
def a_graph_called_in_a_node(ground: Ground) -> Any:
    inner = chain(ground, "x", "y").compile(name="inner")
    body = ground.node("call", called(ground, inner))
    return ground.run(chain(ground, "a", "call", call=body).compile(name="outer"), EMPTY)


@program("subgraphs", ways=BOTH)
def a_graph_called_twice_in_one_node(ground: Ground) -> Any:
    inner = chain(ground, "x").compile(name="inner")
    body = ground.node("call", called(ground, inner, 2))
    return ground.run(chain(ground, "call", call=body).compile(name="outer"), EMPTY)


@program("subgraphs", ways=BOTH)
def graphs_three_levels_deep(ground: Ground) -> Any:
    lowest = chain(ground, "x").compile(name="lowest")
    middle = chain(ground, "m", "sub", sub=lowest).compile(name="middle")
    return ground.run(chain(ground, "a", "sub", sub=middle).compile(name="top"), EMPTY)


@program("subgraphs", ways=BOTH)
def one_graph_called_by_parallel_nodes(ground: Ground) -> Any:
    """The same compiled graph in two branches at once, through a closure and as a node."""
    inner = chain(ground, "x", "y").compile(name="inner")
    graph: Any = StateGraph(Seen)
    for name in ("left", "right"):
        graph.add_node(name, ground.node(name, called(ground, inner))).add_edge(START, name)
    graph.add_node("sub", inner).add_edge(START, "sub")
    return ground.run(graph.compile(name="outer"), EMPTY)["seen"].__len__()


@program("subgraphs", ways=BOTH)
def sends_to_a_graph(ground: Ground) -> Any:
    inner = chain(ground, "x", "y").compile(name="inner")
    graph: Any = StateGraph(Seen).add_node("plan", ground.node("plan")).add_node("sub", inner)
    graph.add_edge(START, "plan")
    graph.add_conditional_edges("plan", lambda state: [Send("sub", {"seen": [str(n)]}) for n in range(3)], ["sub"])
    return ground.run(graph.compile(name="outer"), EMPTY)


@program("subgraphs", ways=BOTH)
def a_graph_with_a_state_of_its_own(ground: Ground) -> Any:
    class Other(TypedDict):
        number: int

    inner: Any = StateGraph(Other).add_node("x", ground.node("x", lambda state: {"number": state["number"] + 1}))
    compiled = inner.add_edge(START, "x").compile(name="inner")

    def then(state: Any, config: RunnableConfig) -> Any:
        with ground.probe("call", config):
            return {"seen": [str(compiled.invoke({"number": 1}, config)["number"])]}

    async def athen(state: Any, config: RunnableConfig) -> Any:
        with ground.probe("call", config):
            return {"seen": [str((await compiled.ainvoke({"number": 1}, config))["number"])]}

    body = then if ground.way == "sync" else athen
    return ground.run(chain(ground, "call", call=body).compile(name="outer"), EMPTY)


@program("subgraphs", ways=BOTH)
def a_graph_inside_with_a_checkpointer_outside(ground: Ground) -> Any:
    inner = chain(ground, "x", "y").compile(name="inner")
    outer = chain(ground, "a", "sub", sub=inner).compile(name="outer", checkpointer=InMemorySaver())
    return ground.run(outer, EMPTY, THREAD), ground.run(outer, EMPTY, THREAD)


@program("subgraphs", ways=BOTH)
def a_graph_inside_that_remembers(ground: Ground) -> Any:
    inner = chain(ground, "x").compile(name="inner", checkpointer=True)
    outer = chain(ground, "sub", sub=inner).compile(name="outer", checkpointer=InMemorySaver())
    ground.resumed(1, 0, "none")
    return ground.run(outer, EMPTY, THREAD), ground.run(outer, EMPTY, THREAD)


@program("subgraphs", ways=BOTH)
def a_stream_that_tells_of_graphs_inside(ground: Ground) -> Any:
    inner = chain(ground, "x", "y").compile(name="inner")
    outer = chain(ground, "a", "sub", sub=inner).compile(name="outer")
    return [item[-1] for item in ground.items(outer, EMPTY, subgraphs=True, stream_mode="updates")]


@program("subgraphs")
def a_graph_streamed_inside_a_node(ground: Ground) -> Any:
    """The node reads the inner stream, and its own span is current between items."""
    inner = chain(ground, "x", "y").compile(name="inner")

    def then(state: Any) -> Any:
        found: list[str] = []
        for item in inner.stream(EMPTY, stream_mode="updates"):
            with ground.probe("between"):
                found.extend(item)
        return {"seen": found}

    return ground.run(chain(ground, "call", call=ground.node("call", then)).compile(name="outer"), EMPTY)


@program("subgraphs")
async def graphs_gathered_in_one_node(ground: Ground) -> Any:
    inner = chain(ground, "x", "y").compile(name="inner")

    async def then(state: Any) -> Any:
        found = await asyncio.gather(*(inner.ainvoke({"seen": [str(n)]}) for n in range(3)))
        return {"seen": [each["seen"][0] for each in found]}

    return await ground.arun(chain(ground, "call", call=ground.node("call", then)).compile(name="outer"), EMPTY)


@program("subgraphs", ways=BOTH)
def a_failing_graph_inside_that_its_caller_catches(ground: Ground) -> Any:
    def fail(state: Any) -> Any:
        raise KeyError("lost")

    inner = chain(ground, "x", x=ground.node("x", fail)).compile(name="inner")
    work = called(ground, inner)

    def then(state: Any) -> Any:
        try:
            return work(state)
        except KeyError:
            return {"seen": ["caught"]}

    async def athen(state: Any) -> Any:
        try:
            return await work(state)
        except KeyError:
            return {"seen": ["caught"]}

    body = ground.node("call", then if ground.way == "sync" else athen)
    return ground.run(chain(ground, "call", "after", call=body).compile(name="outer"), EMPTY)
