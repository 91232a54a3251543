"""Shapes of graphs: fan-out, joins, deferred nodes, loops, branches, sends, generator nodes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Send

from .ground import Ground
from .parts import EMPTY, Seen, chain
from .suite import BOTH, program


@program("shapes", ways=BOTH)
def nodes_in_a_row(ground: Ground) -> Any:
    ground.linked("b", "a")
    ground.linked("c", "b")
    return ground.run(chain(ground, "a", "b", "c").compile(), EMPTY)


@program("shapes", ways=BOTH)
def a_fan_out_and_a_join(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen)
    for name in ("start", "left", "middle", "right", "end"):
        graph.add_node(name, ground.node(name))
    graph.add_edge(START, "start").add_edge(["left", "middle", "right"], "end")
    for name in ("left", "middle", "right"):
        graph.add_edge("start", name)
        ground.linked(name, "start")
    ground.linked("end", "left", "middle", "right")
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def a_join_of_branches_of_different_length(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen)
    for name in ("long", "longer", "longest", "short", "end"):
        graph.add_node(name, ground.node(name))
    graph.add_edge(START, "long").add_edge(START, "short").add_edge("long", "longer").add_edge("longer", "longest")
    graph.add_edge(["longest", "short"], "end")
    ground.linked("end", "longest", "short")
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def a_node_that_two_start_runs_once(ground: Ground) -> Any:
    """No join: whoever comes first starts it, and here both come at once."""
    graph: Any = StateGraph(Seen)
    for name in ("a", "b", "both"):
        graph.add_node(name, ground.node(name))
    graph.add_edge(START, "a").add_edge(START, "b").add_edge("a", "both").add_edge("b", "both")
    ground.linked("both", "a", "b")
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def a_node_that_two_start_at_different_times_runs_twice(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen)
    seen: list[int] = []

    def key(state: Any) -> Any:
        seen.append(len(state["seen"]))
        return {"seen": ["both"]}

    for name in ("a", "b", "c"):
        graph.add_node(name, ground.node(name))
    graph.add_node("both", ground.node("both", key))
    graph.add_edge(START, "a").add_edge(START, "b").add_edge("b", "c")
    graph.add_edge("a", "both").add_edge("c", "both")
    return ground.run(graph.compile(), EMPTY), seen


@program("shapes", ways=BOTH)
def a_deferred_node_waits_for_all_branches(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen)
    for name in ("a", "b", "c"):
        graph.add_node(name, ground.node(name))
    graph.add_node("last", ground.node("last"), defer=True)
    graph.add_edge(START, "a").add_edge(START, "b").add_edge("b", "c").add_edge("a", "last").add_edge("c", "last")
    ground.linked("last", "a", "c")
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def a_loop_of_two_nodes(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen).add_node("work", ground.node("work")).add_node("look", ground.node("look"))
    graph.add_edge(START, "work").add_edge("work", "look")
    graph.add_conditional_edges("look", lambda state: END if len(state["seen"]) >= 8 else "work")
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def a_node_that_starts_itself(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen).add_node("again", ground.node("again")).add_edge(START, "again")
    graph.add_conditional_edges("again", lambda state: END if len(state["seen"]) >= 5 else "again")
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def a_branch_decided_by_a_function_with_a_span(ground: Ground) -> Any:
    """What a router does stands under the node that it leads on from."""

    def route(state: Any, config: RunnableConfig) -> list[str]:
        with ground.probe("route", config):
            return ["b", "c"]

    graph: Any = StateGraph(Seen)
    for name in ("a", "b", "c", "never"):
        graph.add_node(name, ground.node(name))
    graph.add_edge(START, "a").add_conditional_edges("a", route, ["b", "c", "never"])
    ground.linked("b", "a")
    ground.linked("c", "a")
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def sends_to_one_worker_and_a_join(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen).add_node("plan", ground.node("plan"))

    def work(state: Any, config: RunnableConfig) -> Any:
        with ground.probe(f"worker {state['n']}", config):
            return {"seen": [f"w{state['n']}"]}

    graph.add_node("worker", work).add_node("end", ground.node("end"))
    graph.add_edge(START, "plan").add_edge("worker", "end")
    graph.add_conditional_edges("plan", lambda state: [Send("worker", {"n": n}) for n in range(4)], ["worker"])
    for n in range(4):
        ground.linked(f"worker {n}", "plan")
    ground.linked("end", *(f"worker {n}" for n in range(4)))
    return ground.run(graph.compile(), EMPTY)


def _two_senders(ground: Ground, worker: Any) -> Any:
    graph: Any = StateGraph(Seen)
    for name in ("a", "b"):
        graph.add_node(name, ground.node(name)).add_edge(START, name)
        graph.add_conditional_edges(
            name, lambda state, name=name: [Send("worker", {"n": f"{name}{n}"}) for n in (0, 1)], ["worker"]
        )
        for n in (0, 1):
            ground.linked(f"worker {name}{n}", name)
    return graph.add_node("worker", worker).compile()


@program("shapes", ways=BOTH)
def sends_from_two_senders(ground: Ground) -> Any:
    def work(state: Any, config: RunnableConfig) -> Any:
        with ground.probe(f"worker {state['n']}", config):
            return {"seen": [state["n"]]}

    return ground.run(_two_senders(ground, work), EMPTY)


@program("shapes")
def sends_from_two_senders_in_threads_at_once(ground: Ground) -> Any:
    """All four workers are inside at the same time."""
    gate = threading.Barrier(4)

    def work(state: Any, config: RunnableConfig) -> Any:
        with ground.probe(f"worker {state['n']}", config):
            gate.wait(10)
            return {"seen": [state["n"]]}

    return ground.run(_two_senders(ground, work), EMPTY)


@program("shapes", ways=BOTH)
def a_fan_out_in_which_all_are_inside_at_once(ground: Ground) -> Any:
    gate, all_in = threading.Barrier(3), asyncio.Event()
    waiting: list[str] = []

    def together(name: str) -> Any:
        def then(state: Any) -> Any:
            gate.wait(10)
            return {"seen": [name]}

        async def athen(state: Any) -> Any:
            waiting.append(name)
            if len(waiting) == 3:
                all_in.set()
            await all_in.wait()
            return {"seen": [name]}

        return then if ground.way == "sync" else athen

    graph: Any = StateGraph(Seen)
    for name in ("a", "b", "c"):
        graph.add_node(name, ground.node(name, together(name))).add_edge(START, name)
    return ground.run(graph.compile(), EMPTY)


@program("shapes", ways=BOTH)
def sends_that_send_on(ground: Ground) -> Any:
    """Two steps of sends: each worker's child is linked to that very worker."""

    def work(state: Any, config: RunnableConfig) -> Any:
        with ground.probe(f"worker {state['n']}", config):
            return Command(update={"seen": [f"w{state['n']}"]}, goto=Send("check", state))

    def check(state: Any, config: RunnableConfig) -> Any:
        with ground.probe(f"check {state['n']}", config):
            return {"seen": [f"c{state['n']}"]}

    graph: Any = StateGraph(Seen).add_node("worker", work, destinations=("check",)).add_node("check", check)
    graph.add_conditional_edges(START, lambda state: [Send("worker", {"n": n}) for n in range(3)], ["worker"])
    for n in range(3):
        ground.linked(f"check {n}", f"worker {n}")
    return ground.run(graph.compile(), EMPTY)


@program("shapes")
def a_generator_node(ground: Ground) -> Any:
    """A node that yields instead of returning, and its spans."""

    def body(state: Any, config: RunnableConfig) -> Iterator[Any]:
        with ground.probe("first", config):
            pass
        yield {"seen": ["a"]}
        with ground.probe("second", config):
            pass
        yield {"seen": ["b"]}

    graph: Any = StateGraph(Seen).add_node("gen", body).add_node("after", ground.node("after"))
    return ground.items(graph.add_edge(START, "gen").add_edge("gen", "after").compile(), EMPTY)


@program("shapes")
async def an_async_generator_node_read_by_a_stream(ground: Ground) -> Any:
    async def body(state: Any, config: RunnableConfig) -> AsyncIterator[Any]:
        with ground.probe("first", config):
            await asyncio.sleep(0)
        yield {"seen": ["a"]}
        with ground.probe("second", config):
            await asyncio.sleep(0)

    graph: Any = StateGraph(Seen).add_node("gen", body).add_node("after", ground.node("after"))
    whole = graph.add_edge(START, "gen").add_edge("gen", "after").compile()
    return [item async for item in ground.astream(whole, EMPTY, stream_mode=["updates", "custom"])]


@program("shapes", ways=BOTH)
def a_span_opened_and_closed_by_hand_round_parts_of_a_node(ground: Ground) -> Any:
    """Context managers inside each other, and code between them."""

    def then(state: Any) -> Any:
        with ground.probe("outer"):
            with ground.probe("inner 1"):
                pass
            with ground.probe("inner 2"):
                pass
        with ground.probe("beside"):
            return {"seen": ["x"]}

    return ground.run(chain(ground, "a", "b", a=ground.node("a", then)).compile(), EMPTY)


@program("shapes", ways=BOTH)
def wide_steps_with_at_most_two_at_a_time(ground: Ground) -> Any:
    graph: Any = StateGraph(Seen)
    for n in range(6):
        graph.add_node(f"n{n}", ground.node(f"n{n}")).add_edge(START, f"n{n}")
    return ground.run(graph.compile(), EMPTY, {"max_concurrency": 2})


@program("shapes", ways=BOTH)
def one_graph_run_three_times_in_turn(ground: Ground) -> Any:
    """Under a caller's span, and without one."""
    graph = chain(ground, "a", "b").compile()
    first = ground.run(graph, EMPTY)
    with ground.probe("caller"):
        return first, ground.run(graph, EMPTY), ground.run(graph, EMPTY)
