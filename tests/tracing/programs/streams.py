"""Streams: of several modes, closed early, dropped, read from other tasks and threads, written to by nodes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.types import Command, interrupt
from opentelemetry import trace

from .ground import Ground
from .parts import ASK, EMPTY, THREAD, Words, a_tool, calls, chain
from .suite import BOTH, program

ALL: Any = ["values", "updates", "messages", "custom", "tasks", "checkpoints", "debug"]


def writes(*words: str) -> Any:
    """A node's work: to write to the stream of the run."""

    def then(state: Any) -> Any:
        for word in words:
            get_stream_writer()(word)
        return {"seen": list(words)}

    return then


@program("streams", ways=BOTH)
def what_nodes_write_themselves(ground: Ground) -> Any:
    graph = chain(ground, "a", "b", a=ground.node("a", writes("one", "two"))).compile()
    return ground.items(graph, EMPTY, stream_mode=["custom", "updates"])


@program("streams", ways=BOTH)
def all_modes_at_once(ground: Ground) -> Any:
    answers = [calls(("echo", {"text": "x"})), AIMessage("well then")]
    agent = create_agent(
        Words(answers=answers, ground=ground), [a_tool(ground)], checkpointer=InMemorySaver(), name="talks"
    )
    items = ground.items(agent, ASK, THREAD, stream_mode=ALL)
    return sorted(mode for mode, _ in items)


@program("streams", ways=BOTH)
def values_of_a_graph_with_a_graph_inside(ground: Ground) -> Any:
    inner = chain(ground, "x", "y", x=ground.node("x", writes("deep"))).compile(name="inner")
    outer = chain(ground, "a", "sub", sub=inner).compile(name="outer")
    items = ground.items(outer, EMPTY, stream_mode=["values", "custom"], subgraphs=True)
    return [item[1:] for item in items]


@program("streams")
def a_stream_closed_after_its_first_item(ground: Ground) -> Any:
    stream: Any = ground.stream(chain(ground, "a", "b", "c").compile(), EMPTY)
    first = next(stream)
    stream.close()
    return first


@program("streams")
def a_stream_dropped_after_its_first_item(ground: Ground) -> Any:
    """Not closed: it goes when nobody holds it any more."""
    with ground.outside("after a dropped stream"):
        stream = chain(ground, "a", "b").compile().stream(EMPTY, ground.config())
        first = next(stream)
        del stream
        gc.collect()
    return first


@program("streams")
def a_stream_never_begun(ground: Ground) -> Any:
    stream = chain(ground, "a").compile().stream(EMPTY, ground.config())
    stream.close()
    return "nothing"


@program("streams")
async def an_async_stream_closed_after_its_first_item(ground: Ground) -> Any:
    stream: Any = ground.astream(chain(ground, "a", "b", "c").compile(), EMPTY)
    first = await anext(stream)
    await stream.aclose()
    return first


@program("streams")
async def an_async_stream_dropped_after_its_first_item(ground: Ground) -> Any:
    with ground.outside("after a dropped stream"):
        async for item in chain(ground, "a", "b").compile().astream(EMPTY, ground.config()):
            first = item
            break
        gc.collect()
        await asyncio.sleep(0.01)
    return first


@program("streams")
async def an_async_stream_closed_while_a_node_waits(ground: Ground) -> Any:
    async def wait(state: Any) -> Any:
        await asyncio.Event().wait()

    graph = chain(ground, "a", "wait", wait=ground.node("wait", wait)).compile()
    stream: Any = graph.astream(EMPTY, ground.config(), stream_mode="tasks")
    async for item in stream:
        if item["name"] == "wait":
            break
    await asyncio.sleep(0)
    await asyncio.create_task(stream.aclose())
    return "closed by another task"


@program("streams")
async def an_async_stream_read_by_a_task_for_each_item(ground: Ground) -> Any:
    stream: Any = chain(ground, "a", "b", "c").compile().astream(EMPTY, ground.config(), stream_mode="values")
    found = []
    with ground.outside("between items"), contextlib.suppress(StopAsyncIteration):
        while True:
            found.append(await asyncio.create_task(anext(stream)))
    return found


@program("streams")
async def an_async_stream_begun_here_and_read_on_there(ground: Ground) -> Any:
    """The reader has a span of its own, which is no parent of the run's later nodes."""
    stream: Any = chain(ground, "a", "b", "c").compile().astream(EMPTY, ground.config())
    found = [await anext(stream)]

    async def rest() -> None:
        with ground.tracer.start_as_current_span("a reader"):
            found.extend([item async for item in stream])

    await asyncio.create_task(rest())
    return found


@program("streams")
def a_stream_read_in_another_thread(ground: Ground) -> Any:
    stream = chain(ground, "a", "b", "c").compile().stream(EMPTY, ground.config())
    found = [next(stream)]

    def rest() -> None:
        with ground.tracer.start_as_current_span("a reader") as mine:
            for item in stream:
                ground.same(mine, "between items in a thread")
                found.append(item)

    reader = threading.Thread(target=rest)
    reader.start()
    reader.join()
    return found


@program("streams")
def a_reader_that_opens_spans_between_items(ground: Ground) -> Any:
    found = []
    with ground.probe("reader"):
        for item in ground.stream(chain(ground, "a", "b").compile(), EMPTY):
            with ground.probe("between"):
                found.append(item)
    return found


@program("streams")
async def two_streams_read_in_turn(ground: Ground) -> Any:
    one: Any = ground.astream(chain(ground, "a", "b").compile(name="one"), EMPTY)
    two: Any = ground.astream(chain(ground, "x", "y").compile(name="two"), EMPTY)
    return (
        [await anext(each) for each in (one, two, one, two)],
        [each async for each in one],
        [each async for each in two],
    )


@program("streams")
def two_sync_streams_read_in_turn(ground: Ground) -> Any:
    one = ground.stream(chain(ground, "a", "b").compile(name="one"), EMPTY)
    two = ground.stream(chain(ground, "x", "y").compile(name="two"), EMPTY)
    return list(zip(one, two, strict=True))


@program("streams")
async def events_of_a_run(ground: Ground) -> Any:
    """LangChain's `astream_events`, which reads the run in a task of its own."""
    before = trace.get_current_span()
    found = []
    async for event in chain(ground, "a", "b").compile().astream_events(EMPTY, ground.config(), version="v2"):
        ground.same(before, "between events")
        found.append((event["event"], event["name"]))
    return sorted(found)


@program("streams")
def an_exception_thrown_into_a_stream(ground: Ground) -> Any:
    """By its reader, who may. The graph's own generator is closed, and the run has failed."""
    ground.wanted.failing.append(("graph", "LangGraph"))
    with ground.outside("after the throw"):
        stream: Any = chain(ground, "a", "b").compile().stream(EMPTY, ground.config())
        first = next(stream)
        try:
            stream.throw(KeyError("enough"))
        except KeyError as raised:
            return first, str(raised)


@program("streams", ways=BOTH, raises="RuntimeError")
def a_node_that_raises_the_end_of_an_iteration(ground: Ground) -> Any:
    """Python makes an error of it inside generators, and so it stays."""

    def then(state: Any) -> Any:
        raise StopIteration("no more")

    async def athen(state: Any) -> Any:
        raise StopAsyncIteration("no more")

    body = ground.node("a", then if ground.way == "sync" else athen)
    return ground.run(chain(ground, "a", a=body).compile(), EMPTY)


@program("streams", ways=BOTH, least="1.1")
def items_of_the_second_version_with_a_question(ground: Ground) -> Any:
    body = ground.node("ask", lambda state: {"seen": [interrupt("well?")]})
    graph = chain(ground, "a", "ask", "b", ask=body).compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "interrupt")
    more: Any = {"version": "v2", "stream_mode": ["values", "updates"]}
    first = ground.items(graph, EMPTY, THREAD, **more)
    return first, ground.items(graph, Command(resume="yes"), THREAD, **more)
