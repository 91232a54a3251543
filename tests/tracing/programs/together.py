"""Many runs at once, in one loop and in threads; background work, batches, stores."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

from langchain.agents import create_agent
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_store
from langgraph.store.memory import InMemoryStore
from opentelemetry import trace

from .ground import Ground
from .parts import ASK, EMPTY, THREAD, Awaited, a_tool, chain, rounds
from .suite import BOTH, program


@program("together")
async def many_runs_in_one_loop(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile()
    return await asyncio.gather(*(ground.arun(graph, {"seen": [str(n)]}) for n in range(8)))


@program("together")
async def many_runs_each_under_a_span_of_its_own(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile()

    async def one(number: int) -> Any:
        with ground.probe(f"caller {number}"):
            return await ground.arun(graph, {"seen": [str(number)]})

    return await asyncio.gather(*(one(n) for n in range(5)))


@program("together")
def many_runs_in_threads(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile()
    gate = threading.Barrier(4)

    def one(number: int) -> Any:
        gate.wait(10)
        with ground.outside("in a thread"):
            return graph.invoke({"seen": [str(number)]}, ground.config())

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(one, range(4)))


@program("together")
def runs_in_threads_that_know_their_caller(ground: Ground) -> Any:
    """The caller's context is copied to them by hand, as web servers do."""
    graph = chain(ground, "a").compile()
    with ground.probe("caller"), ThreadPoolExecutor(2) as pool:
        contexts = [copy_context() for _ in range(3)]
        futures = [pool.submit(each.run, lambda: graph.invoke(EMPTY, ground.config())) for each in contexts]
        return [each.result() for each in futures]


@program("together")
async def an_event_loop_in_each_of_three_threads(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile()

    def one() -> Any:
        return asyncio.run(ground.arun(graph, EMPTY))

    return await asyncio.gather(*(asyncio.to_thread(one) for _ in range(3)))


@program("together")
async def another_task_watches_its_own_span(ground: Ground) -> Any:
    """Runs go on around it, and its current span stays what it is."""
    done = asyncio.Event()

    async def watch() -> int:
        looks = 0
        with ground.tracer.start_as_current_span("watcher") as mine:
            while not done.is_set():
                ground.same(mine, "in another task")
                looks += 1
                await asyncio.sleep(0)
        return looks

    watcher = asyncio.create_task(watch())
    graph = chain(ground, "a", "b", "c").compile()
    found = await ground.arun(graph, EMPTY)
    done.set()
    return found, await watcher > 0


@program("together")
async def work_that_a_node_leaves_in_the_background(ground: Ground) -> Any:
    """It ends after its node, and its spans stand under it all the same."""
    go_on, left = asyncio.Event(), []

    async def later() -> None:
        await go_on.wait()
        with ground.probe("later"):
            await asyncio.sleep(0)

    async def then(state: Any) -> Any:
        left.append(asyncio.create_task(later()))
        return {"seen": ["a"]}

    ground.late("later")
    found = await ground.arun(chain(ground, "a", "b", a=ground.node("a", then)).compile(), EMPTY)
    go_on.set()
    await asyncio.gather(*left)
    return found


@program("together")
async def a_graph_run_in_the_background_of_a_node(ground: Ground) -> Any:
    """Begun while the node ran, and over before it is."""
    inner = chain(ground, "x").compile(name="inner")

    async def then(state: Any) -> Any:
        running = asyncio.create_task(inner.ainvoke(EMPTY))
        with ground.probe("meanwhile"):
            await asyncio.sleep(0)
        return {"seen": (await running)["seen"]}

    return await ground.arun(chain(ground, "a", a=ground.node("a", then)).compile(name="outer"), EMPTY)


@program("together")
async def a_node_that_works_in_threads(ground: Ground) -> Any:
    def work(number: int) -> str:
        with ground.probe(f"thread {number}"):
            return str(number)

    async def then(state: Any) -> Any:
        return {"seen": await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(3)))}

    return await ground.arun(chain(ground, "a", a=ground.node("a", then)).compile(), EMPTY)


@program("together", ways=BOTH)
def a_batch_of_inputs(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile()
    given = [{"seen": [str(n)]} for n in range(4)]
    configs = [ground.config() for _ in given]
    with ground.outside("after a batch"):
        if ground.way == "sync":
            return graph.batch(given, configs)
        return asyncio.run(graph.abatch(given, configs))


@program("together", ways=BOTH)
def a_store_that_nodes_share(ground: Ground) -> Any:
    def remember(state: Any) -> Any:
        get_store().put(("facts",), "one", {"text": "sky"})
        return {"seen": ["a"]}

    def recall(state: Any) -> Any:
        return {"seen": [get_store().get(("facts",), "one").value["text"]]}  # type: ignore[union-attr]

    async def aremember(state: Any) -> Any:
        await get_store().aput(("facts",), "one", {"text": "sky"})
        return {"seen": ["a"]}

    async def arecall(state: Any) -> Any:
        return {"seen": [(await get_store().aget(("facts",), "one")).value["text"]]}  # type: ignore[union-attr]

    first, second = (remember, recall) if ground.way == "sync" else (aremember, arecall)
    bodies = {"a": ground.node("a", first), "b": ground.node("b", second)}
    return ground.run(chain(ground, "a", "b", **bodies).compile(store=InMemoryStore()), EMPTY)


@program("together", ways=BOTH)
def a_conversation_of_three_turns(ground: Ground) -> Any:
    agent = create_agent(
        Awaited(answers=rounds(1), ground=ground), [a_tool(ground)], checkpointer=InMemorySaver(), name="talks"
    )
    ground.resumed(1, 0, "none")
    ground.resumed(2, 1, "none")
    return [ground.run(agent, ASK, THREAD) for _ in range(3)]


@program("together")
async def agents_of_two_kinds_at_once(ground: Ground) -> Any:
    """Each with its own thread, tools and models, mixed in one loop."""
    tool = a_tool(ground)
    red = create_agent(Awaited(answers=rounds(), ground=ground), [tool], name="red")
    blue = create_agent(Awaited(answers=rounds(1), ground=ground), [tool], name="blue")
    found = await asyncio.gather(*(ground.arun(each, ASK) for each in (red, blue)))
    return [len(each["messages"]) for each in found]


@program("together")
def a_caller_whose_span_is_not_recorded(ground: Ground) -> Any:
    """A span that only carries its identity, as after a request's headers were read."""
    remote = trace.SpanContext(0x1234 << 64, 0x5678, True, trace.TraceFlags(1))
    with trace.use_span(trace.NonRecordingSpan(remote)):
        return ground.run(chain(ground, "a", "b").compile(), EMPTY)
