"""Time travel, crashes, and what goes on in another process."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Any

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Command, interrupt

from .elsewhere import part
from .ground import Ground
from .parts import EMPTY, THREAD, chain
from .suite import BOTH, program


def _before(graph: Any, node: str) -> Any:
    """The configuration of the last checkpoint before this node."""
    return next(each.config for each in graph.get_state_history(THREAD) if each.next == (node,))


@program("travel", ways=BOTH)
def a_replay_from_an_earlier_checkpoint(ground: Ground) -> Any:
    graph = chain(ground, "a", "b", "c").compile(checkpointer=InMemorySaver())
    ground.resumed(1, 0, "replay")
    return ground.run(graph, EMPTY, THREAD), ground.run(graph, None, _before(graph, "b"))


@program("travel", ways=BOTH)
def a_replay_of_a_replay(ground: Ground) -> Any:
    graph = chain(ground, "a", "b", "c").compile(checkpointer=InMemorySaver())
    ground.run(graph, EMPTY, THREAD)
    ground.run(graph, None, _before(graph, "b"))
    ground.resumed(2, 1, "replay")
    return ground.run(graph, None, _before(graph, "c"))


@program("travel", ways=BOTH)
def a_fork_by_an_edit_of_the_past(ground: Ground) -> Any:
    graph = chain(ground, "a", "b", "c").compile(checkpointer=InMemorySaver())
    first = ground.run(graph, EMPTY, THREAD)
    forked = graph.update_state(_before(graph, "b"), {"seen": ["edited"]})
    ground.resumed(1, 0, "fork")
    return first, ground.run(graph, None, forked)


@program("travel", ways=BOTH)
def an_edit_of_the_present_while_paused(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile(checkpointer=InMemorySaver(), interrupt_before=["b"])
    first = ground.run(graph, EMPTY, THREAD)
    graph.update_state(THREAD, {"seen": ["edited"]})
    ground.resumed(1, 0, "fork")
    return first, ground.run(graph, None, THREAD), graph.get_state(THREAD)


@program("travel", ways=BOTH)
def new_input_at_an_old_checkpoint(ground: Ground) -> Any:
    graph = chain(ground, "a", "b").compile(checkpointer=InMemorySaver())
    first = ground.run(graph, EMPTY, THREAD)
    ground.resumed(1, 0, "fork")
    return first, ground.run(graph, {"seen": ["other"]}, _before(graph, "b"))


def _crashes(ground: Ground, broken: list[int]) -> Any:
    def then(state: Any) -> Any:
        if broken:
            broken.pop()
            raise ConnectionError("cut off")
        return {"seen": ["b"]}

    return ground.node("b", then)


@program("travel", ways=BOTH)
def a_crash_and_what_takes_it_up(ground: Ground) -> Any:
    graph = chain(ground, "a", "b", "c", b=_crashes(ground, [1])).compile(checkpointer=InMemorySaver())
    with contextlib.suppress(ConnectionError):
        ground.run(graph, EMPTY, THREAD)
    ground.resumed(1, 0, "crash")
    return ground.run(graph, None, THREAD)


@program("travel", ways=BOTH)
def two_crashes_and_a_new_turn(ground: Ground) -> Any:
    graph = chain(ground, "a", "b", "c", b=_crashes(ground, [1, 1])).compile(checkpointer=InMemorySaver())
    for given in (EMPTY, None):
        with contextlib.suppress(ConnectionError):
            ground.run(graph, given, THREAD)
    ground.resumed(1, 0, "crash")
    ground.resumed(2, 0, "crash")  # the second run came no further than where the first stopped
    ground.resumed(3, 2, "none")
    return ground.run(graph, None, THREAD), ground.run(graph, EMPTY, THREAD)


@program("travel", ways=BOTH)
def a_crash_in_a_graph_inside(ground: Ground) -> Any:
    inner = chain(ground, "x", "b", b=_crashes(ground, [1])).compile(name="inner")
    outer = chain(ground, "a", "sub", "c", sub=inner).compile(name="outer", checkpointer=InMemorySaver())
    with contextlib.suppress(ConnectionError):
        ground.run(outer, EMPTY, THREAD)
    ground.resumed(1, 0, "crash")
    return ground.run(outer, None, THREAD)


def asking(ground: Ground, saver: Any) -> Any:
    """The graph that stops in one process and goes on in another."""
    body = ground.node("ask", lambda state: {"seen": [interrupt("well?")]})
    return chain(ground, "a", "ask", "b", ask=body).compile(checkpointer=saver, name="asking")


def ask_first(ground: Ground, store: str) -> Any:
    """In the other process: as far as the question."""
    with SqliteSaver.from_conn_string(store) as saver:
        return ground.run(asking(ground, saver), EMPTY, THREAD)


@program("travel")
def an_interrupt_in_another_process_is_answered_here(ground: Ground) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        first, spans = part(ground, "travel:ask_first", store=store)
        with SqliteSaver.from_conn_string(store) as saver:
            second = ground.run(asking(ground, saver), Command(resume="yes"), THREAD)
    if spans:
        ground.resumed(0, spans[0], "interrupt")
    return first, second


def crashing(ground: Ground, saver: Any, broken: list[int]) -> Any:
    return chain(ground, "a", "b", "c", b=_crashes(ground, broken)).compile(checkpointer=saver, name="crashing")


async def crash_first(ground: Ground, store: str) -> Any:
    """In the other process: until it breaks down."""
    async with AsyncSqliteSaver.from_conn_string(store) as saver:
        with contextlib.suppress(ConnectionError):
            await ground.arun(crashing(ground, saver, [1]), EMPTY, THREAD)
        return "broke down"


@program("travel")
async def a_crash_in_another_process_is_taken_up_here(ground: Ground) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        first, spans = await asyncio.to_thread(part, ground, "travel:crash_first", store=store)
        async with AsyncSqliteSaver.from_conn_string(store) as saver:
            second = await ground.arun(crashing(ground, saver, []), None, THREAD)
    if spans:
        ground.resumed(0, spans[0], "crash")
    return first, second


def answer_there(ground: Ground, store: str) -> Any:
    """In the other process: the answer to what was asked here."""
    with SqliteSaver.from_conn_string(store) as saver:
        return ground.run(asking(ground, saver), Command(resume="yes"), THREAD)


@program("travel")
def a_run_answered_in_another_process_is_forked_here(ground: Ground) -> Any:
    """There and back: the fork leads to the run of the other process."""
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder, "store"))
        with SqliteSaver.from_conn_string(store) as saver:
            graph = asking(ground, saver)
            first = ground.run(graph, EMPTY, THREAD)
        second, spans = part(ground, "travel:answer_there", store=store)
        with SqliteSaver.from_conn_string(store) as saver:
            graph = asking(ground, saver)
            third = ground.run(graph, None, graph.update_state(_before(graph, "b"), {"seen": ["edited"]}))
    if spans:
        ground.resumed(1, spans[0], "fork")
    return first, second, third
