"""What strangers do: graphs by hand, in chains, across sync and async, with baggage, names, modes of their own."""

from __future__ import annotations

import asyncio
import warnings
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.channels import EphemeralValue, LastValue
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.errors import GraphInterrupt
from langgraph.func import entrypoint, task
from langgraph.graph import START, StateGraph
from langgraph.pregel import NodeBuilder, Pregel
from langgraph.types import Command, interrupt
from opentelemetry import baggage, trace
from opentelemetry import context as otel

from .ground import Ground
from .parts import EMPTY, THREAD, Awaited, Seen, chain
from .suite import BOTH, program


@program("strange", ways=BOTH)
def a_graph_of_channels_made_by_hand(ground: Ground) -> Any:
    """No state, no edges: nodes that read and write channels."""

    def upper(given: Any, config: RunnableConfig) -> str:
        with ground.probe("upper", config):
            return str(given).upper()

    def twice(given: Any, config: RunnableConfig) -> str:
        with ground.probe("twice", config):
            return str(given) * 2

    nodes: Any = {
        "upper": NodeBuilder().subscribe_only("a").do(upper).write_to("b"),
        "twice": NodeBuilder().subscribe_only("b").do(twice).write_to("c"),
    }
    channels: Any = {"a": EphemeralValue(str), "b": EphemeralValue(str), "c": LastValue(str)}
    graph: Any = Pregel(nodes=nodes, channels=channels, input_channels="a", output_channels="c")
    ground.linked("twice", "upper")
    return ground.run(graph, "x")


@program("strange", ways=BOTH)
def a_graph_in_a_chain_of_runnables(ground: Ground) -> Any:
    line: Any = RunnableLambda(lambda text: {"seen": [text]}) | chain(ground, "a", "b").compile(name="inner")
    return ground.run(line | RunnableLambda(lambda state: state["seen"][::-1]), "x")


@program("strange", ways=BOTH)
def a_graph_with_a_configuration_of_its_own(ground: Ground) -> Any:
    """A name for the run, tags, metadata, and a limit bound to the graph."""
    graph = chain(ground, "a", "b").compile(name="plain").with_config(tags=["mine"], recursion_limit=9)
    return ground.run(graph, EMPTY, {"run_name": "chosen", "metadata": {"user_id": "u"}, "tags": ["once"]})


@program("strange", ways=BOTH)
def a_configuration_whose_parts_are_none(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile(checkpointer=InMemorySaver())
    empty = {"metadata": None, "tags": None, "run_name": None}
    return ground.run(graph, EMPTY, {**THREAD, **empty}), ground.run(graph, EMPTY, THREAD | {"metadata": None})


@program("strange", ways=BOTH)
def baggage_and_values_of_the_caller_reach_the_nodes(ground: Ground) -> Any:
    key = otel.create_key("mine")

    def then(state: Any) -> Any:
        return {"seen": [str(baggage.get_baggage("user")), str(otel.get_value(key))]}

    graph = chain(ground, "a", "b", b=ground.node("b", then)).compile()
    token = otel.attach(otel.set_value(key, "here", baggage.set_baggage("user", "ada")))
    try:
        return ground.run(graph, EMPTY), baggage.get_baggage("user")
    finally:
        otel.detach(token)


@program("strange", ways=BOTH)
def checkpoints_written_only_at_the_end(ground: Ground) -> Any:
    body = ground.node("ask", lambda state: {"seen": [interrupt("well?")]})
    graph = chain(ground, "a", "ask", "b", ask=body).compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    first = ground.run(graph, EMPTY, THREAD, durability="exit")
    return first, ground.run(graph, Command(resume="yes"), THREAD, durability="exit")


@program("strange", ways=BOTH)
def checkpoints_written_before_each_step(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "none")
    return [ground.run(graph, EMPTY, THREAD, durability="sync") for _ in range(2)]


@program("strange")
async def a_sync_run_inside_an_async_node(ground: Ground) -> Any:
    inner = chain(ground, "x", x=lambda state: {"seen": ["x"]}).compile(name="inner")

    async def then(state: Any) -> Any:
        return {"seen": inner.invoke(EMPTY)["seen"]}

    return await ground.arun(chain(ground, "call", call=ground.node("call", then)).compile(name="outer"), EMPTY)


@program("strange")
def an_event_loop_inside_a_sync_node(ground: Ground) -> Any:
    async def body(state: Any, config: RunnableConfig) -> Any:
        with ground.probe("x", config):
            await asyncio.sleep(0)
            return {"seen": ["x"]}

    inner = chain(ground, "x", x=body).compile(name="inner")

    def then(state: Any) -> Any:
        return {"seen": asyncio.run(inner.ainvoke(EMPTY))["seen"]}

    return ground.run(chain(ground, "call", call=ground.node("call", then)).compile(name="outer"), EMPTY)


@program("strange", ways=BOTH)
def a_task_that_asks_a_person(ground: Ground) -> Any:
    def body(text: str, config: RunnableConfig) -> str:
        with ground.probe("ask", config):
            return f"{text} {interrupt('well?')}"

    ask: Any = task(body)

    def main(text: str) -> Any:
        return ask(text).result()

    async def amain(text: str) -> Any:
        return await ask(text)

    flow = entrypoint(checkpointer=InMemorySaver())(main if ground.way == "sync" else amain)
    ground.resumed(1, 0, "interrupt")
    return ground.run(flow, "so", THREAD), ground.run(flow, Command(resume="yes"), THREAD)


@program("strange")
def what_a_sibling_writes_meanwhile_starts_nothing(ground: Ground) -> Any:
    """One after the other in one step: the first leads to the second, which is running for another reason."""
    graph: Any = StateGraph(Seen).add_node("a", ground.node("a")).add_node("b", ground.node("b"))
    graph.add_edge(START, "a").add_edge(START, "b").add_edge("a", "b")
    return ground.run(graph.compile(), EMPTY, {"max_concurrency": 1})


@program("strange", ways=BOTH)
def a_model_that_cannot_stream_is_streamed(ground: Ground) -> Any:
    model = Awaited(answers=[AIMessage("all at once")], ground=ground)

    def think(state: Any) -> Any:
        return {"seen": [str(each.content) for each in model.stream("x")]}

    async def athink(state: Any) -> Any:
        return {"seen": [str(each.content) async for each in model.astream("x")]}

    body = ground.node("think", think if ground.way == "sync" else athink)
    return ground.run(chain(ground, "think", think=body).compile(), EMPTY)


@program("strange", ways=BOTH)
def a_node_that_catches_an_interrupt(ground: Ground) -> Any:
    """Bad manners, and no error: the signal is swallowed and the run goes on."""

    def then(state: Any) -> Any:
        try:
            interrupt("well?")
        except GraphInterrupt:
            return {"seen": ["nobody asked"]}

    graph = chain(ground, "ask", "b", ask=ground.node("ask", then)).compile(checkpointer=InMemorySaver())
    return ground.run(graph, EMPTY, THREAD)


@program("strange", ways=BOTH)
def a_node_that_leaves_a_context_attached(ground: Ground) -> Any:
    """It never detaches it: that must not reach its siblings, nor its caller."""

    def then(state: Any) -> Any:
        otel.attach(trace.set_span_in_context(trace.INVALID_SPAN))
        return {"seen": ["a"]}

    return ground.run(chain(ground, "a", "b", a=ground.node("a", then)).compile(), EMPTY)


@program("strange", ways=BOTH)
def an_empty_graph_run_and_one_that_starts_nothing(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen).add_node("a", ground.node("a")).add_conditional_edges(START, lambda state: "__end__")
    return ground.run(graph.compile(), {"seen": ["x"]})


@program("strange", ways=BOTH, least="1.2")
def events_of_the_third_version(ground: Ground) -> Any:
    """LangGraph's own `stream_events`, which hands out a run to read from."""
    graph = chain(ground, "a", "b").compile()
    with ground.outside("after the events"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls itself experimental
        if ground.way == "sync":
            with graph.stream_events(EMPTY, ground.config(), version="v3") as run:
                return [event["method"] for event in run], run.output

        async def read() -> Any:
            async with await graph.astream_events(EMPTY, ground.config(), version="v3") as run:
                return [event["method"] async for event in run], await run.output()

        return asyncio.run(read())
