"""Many callers, from threads and from loops: who waits for room keeps nobody from making some."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from sostenuto.runtime.ask import Ask
from sostenuto.runtime.doors.langgraph import ChatSostenuto, wrap
from sostenuto.runtime.host import Host

from .conftest import idle, said, smaller, speak

CROWD = 40
"""More than the threads of any default executor on a small machine."""
LONG = "word " * 700


@tool
def look() -> str:
    """Looks."""
    return "seen"


@pytest.fixture
def small(host: Host, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A pool in which a crowd's prompt does not fit beside a held context."""

    def answer(wanted: Ask) -> str:
        if not wanted.tools:
            return "Yes."
        return "Done." if any(message.role == "tool" for message in wanted.messages) else said("look")

    with smaller(host, 1024) as opened:
        speak(opened, monkeypatch, answer)
        yield opened
        assert idle(opened)


def crowded(host: Host) -> bool:
    return f"| {CROWD} waiting |" in host.loop.ask()


def agent(host: Host, gate: Any) -> Any:
    """Its context is held when `gate` runs, and its tool runs after that."""
    model = ChatSostenuto(host=host).bind_tools([look])
    graph = StateGraph(MessagesState)

    async def think(state: MessagesState) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    def think_here(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    blocking = not asyncio.iscoroutinefunction(gate)
    graph.add_node("model", think_here if blocking else think)
    graph.add_node("gate", gate)
    graph.add_node("tools", ToolNode([look]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition, {"tools": "gate", "__end__": "__end__"})
    graph.add_edge("gate", "tools")
    graph.add_edge("tools", "model")
    return wrap(graph.compile())


def test_a_crowd_of_coroutines_waiting_for_room_does_not_starve_the_tool_that_makes_it(small: Host) -> None:
    async def run() -> tuple[Any, list[AIMessage]]:
        held, come = asyncio.Event(), asyncio.Event()

        async def gate(state: MessagesState) -> Any:
            held.set()
            await come.wait()
            return {}

        first = asyncio.create_task(agent(small, gate).ainvoke({"messages": [("user", "look")]}))
        await held.wait()
        crowd = [asyncio.create_task(ChatSostenuto(host=small).ainvoke(LONG)) for _ in range(CROWD)]
        while not crowded(small):  # noqa: ASYNC110 - what is waited for is the scheduler's state, and it has no event
            await asyncio.sleep(0)
        come.set()
        return await first, list(await asyncio.gather(*crowd))

    ended, answers = asyncio.run(run())
    assert ended["messages"][-1].content == "Done."
    assert [answer.content for answer in answers] == ["Yes."] * CROWD


def test_a_crowd_of_threads_waiting_for_room_does_not_starve_the_tool_that_makes_it(small: Host) -> None:
    with ThreadPoolExecutor(CROWD) as threads:
        crowd: list[Any] = []

        def gate(state: MessagesState) -> Any:
            crowd.extend(threads.submit(ChatSostenuto(host=small).invoke, LONG) for _ in range(CROWD))
            while not crowded(small):
                pass  # asking goes round by the loop's thread: it waits there
            return {}

        ended = agent(small, gate).invoke({"messages": [("user", "look")]})
        assert ended["messages"][-1].content == "Done."
        assert [one.result().content for one in crowd] == ["Yes."] * CROWD


def test_one_model_serves_one_event_loop_after_the_other(small: Host) -> None:
    model = ChatSostenuto(host=small)
    assert [asyncio.run(model.ainvoke("go")).content for _ in range(3)] == ["Yes."] * 3


def test_a_blocking_call_in_the_thread_of_a_running_loop_comes_back(small: Host) -> None:
    async def run() -> AIMessage:
        return ChatSostenuto(host=small).invoke("go")

    assert asyncio.run(run()).content == "Yes."


def test_two_loops_at_once_both_get_their_answers(small: Host) -> None:
    model = ChatSostenuto(host=small)
    both = threading.Barrier(2)

    async def run() -> list[AIMessage]:
        both.wait()
        return list(await asyncio.gather(*[model.ainvoke(f"go {number}") for number in range(4)]))

    with ThreadPoolExecutor(2) as threads:
        answers = [one.result() for one in [threads.submit(asyncio.run, run()) for _ in range(2)]]
    assert [[answer.content for answer in each] for each in answers] == [["Yes."] * 4] * 2
