"""A graph that talks, over each of the savers, blocking and not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, MessagesState, StateGraph

from sostenuto.runtime.doors.langgraph import ChatSostenuto, wrap

PERSON = HumanMessage("Tell me about the city of Rome, its hills, its river and its walls, in a few words.")


class Way:
    """The same calls of a graph, blocking or not, over one of the savers."""

    def __init__(self, saver: Any, *, blocking: bool) -> None:
        self.saver = saver
        self._blocking = blocking

    async def invoke(self, graph: Any, given: Any, where: Any, **more: Any) -> Any:
        if self._blocking:
            return await asyncio.to_thread(graph.invoke, given, where, **more)
        return await graph.ainvoke(given, where, **more)

    async def update(self, graph: Any, where: Any, values: Any) -> Any:
        return graph.update_state(where, values) if self._blocking else await graph.aupdate_state(where, values)

    async def history(self, graph: Any, where: Any) -> list[Any]:
        if self._blocking:
            return list(graph.get_state_history(where))
        return [state async for state in graph.aget_state_history(where)]

    async def forget(self, graph: Any, thread: str) -> None:
        if self._blocking:
            graph.checkpointer.delete_thread(thread)
        else:
            await graph.checkpointer.adelete_thread(thread)


@asynccontextmanager
async def memory() -> AsyncIterator[Way]:
    yield Way(InMemorySaver(), blocking=True)


@asynccontextmanager
async def memory_async() -> AsyncIterator[Way]:
    yield Way(InMemorySaver(), blocking=False)


@asynccontextmanager
async def sqlite() -> AsyncIterator[Way]:
    with SqliteSaver.from_conn_string(":memory:") as saver:
        yield Way(saver, blocking=True)


@asynccontextmanager
async def sqlite_async() -> AsyncIterator[Way]:
    async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
        yield Way(saver, blocking=False)


WAYS = pytest.mark.parametrize("open_way", [memory, memory_async, sqlite, sqlite_async])
OpenWay = Callable[[], Any]


def where(thread: str = "", **more: Any) -> Any:
    return {"configurable": {"thread_id": thread or uuid4().hex, "tenant": uuid4().hex, **more}}


def at(config: Any, older: Any) -> Any:
    """The configuration of an older checkpoint, for the same tenant."""
    return {"configurable": {**config["configurable"], **older.config["configurable"]}}


def talk(model: ChatSostenuto, saver: Any) -> Any:
    """Ask, answer, ask again, answer."""

    def speak(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"], max_tokens=6)]}

    def wonder(state: MessagesState) -> Any:
        return {"messages": [HumanMessage("And what did its people eat in those days?")]}

    graph = StateGraph(MessagesState)
    graph.add_node("first", speak)
    graph.add_node("wonder", wonder)
    graph.add_node("second", speak)
    graph.add_edge(START, "first")
    graph.add_edge("first", "wonder")
    graph.add_edge("wonder", "second")
    graph.add_edge("second", END)
    return wrap(graph.compile(checkpointer=saver))


def turns(messages: list[AnyMessage]) -> list[dict[str, Any]]:
    return [m.response_metadata["sostenuto"]["turn"] for m in messages if isinstance(m, AIMessage)]
