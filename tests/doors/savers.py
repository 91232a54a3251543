"""Savers and saved threads to try a checkpointer's wrapper with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from copy import deepcopy
from operator import add
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig, RunnableLambda
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from sostenuto.runtime.doors.langgraph_saver import BoundSaver

Told = tuple[Any, ...]


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Told] = []

    def bound(
        self,
        thread: str,
        namespace: str,
        checkpoint: str,
        parent: str | None,
        *,
        step: int,
        source: str,
        run: str | None,
    ) -> None:
        self.told.append(("bound", thread, namespace, checkpoint, parent, step, source, run))

    def opened(self, thread: str, namespace: str, checkpoint: str) -> None:
        self.told.append(("opened", thread, namespace, checkpoint))

    def dropped(self, thread: str, checkpoints: Collection[tuple[str, str]] | None) -> None:
        self.told.append(("dropped", thread, checkpoints if checkpoints is None else set(checkpoints)))

    def copied(self, source: str, target: str) -> None:
        self.told.append(("copied", source, target))

    def of(self, *kinds: str) -> list[Told]:
        return [each for each in self.told if each[0] in kinds]


class Cut(Exception):
    """The process has died, as far as the saver can tell."""


class Mortal(InMemorySaver):
    """Dies at one call: before it is made, or when it was made and nobody has heard of it."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[int] = []
        """How many calls may still be made; empty for any number."""
        self.late = False

    def mortal(self, call: Callable[..., Any], *arguments: Any, **told: Any) -> Any:
        if not self.left:
            return call(*arguments, **told)
        self.left[0] -= 1
        if self.left[0] < 0 and not self.late:
            raise Cut
        done = call(*arguments, **told)
        if self.left[0] < 0:
            raise Cut
        return done

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        found: CheckpointTuple | None = self.mortal(super().get_tuple, config)
        return found

    def list(self, config: RunnableConfig | None, **told: Any) -> Iterator[CheckpointTuple]:
        found: Iterator[CheckpointTuple] = self.mortal(super().list, config, **told)
        return found

    def put(self, *arguments: Any) -> RunnableConfig:
        placed: RunnableConfig = self.mortal(super().put, *arguments)
        return placed

    def put_writes(self, config: RunnableConfig, writes: Any, task_id: str, task_path: str = "") -> None:
        self.mortal(super().put_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        self.mortal(super().delete_thread, thread_id)


class Waiting(InMemorySaver):
    """A saver whose asynchronous side alone works."""

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        raise NotImplementedError

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        return super().get_tuple(config)

    async def alist(self, config: RunnableConfig | None, **told: Any) -> AsyncIterator[CheckpointTuple]:
        for each in super().list(config, **told):
            yield each


class State(TypedDict, total=False):
    """What the graph of `tangled` works on."""

    place: int
    seen: Annotated[list[str], add]


def seeing(name: str, asked: int | None = None) -> Any:
    def node(state: State) -> State:
        if asked is not None and state.get("place", asked) == asked:
            return {"seen": [f"{name}:{interrupt(name)}"]}
        return {"seen": [name]}

    return node


def spread(state: State) -> list[Send]:
    return [Send("leaf", {"place": place}) for place in range(3)] + [Send("inner", {"place": 1})]


def tangled(saver: BaseCheckpointSaver[Any] | None) -> Any:
    """A step, then three branches and a sub-graph side by side; one branch and the sub-graph's second step ask."""
    inner = StateGraph(State)
    inner.add_node("first", seeing("first"))
    inner.add_node("second", seeing("second", asked=1))
    inner.add_edge(START, "first")
    inner.add_edge("first", "second")
    inner.add_edge("second", END)
    below = inner.compile()

    def within(state: State) -> State:
        return {"seen": below.invoke({"place": 1, "seen": []})["seen"]}

    async def awithin(state: State) -> State:
        return {"seen": (await below.ainvoke({"place": 1, "seen": []}))["seen"]}

    graph = StateGraph(State)
    graph.add_node("start", seeing("start"))
    graph.add_node("leaf", seeing("leaf", asked=2))
    graph.add_node("inner", RunnableLambda(within, awithin))
    graph.add_node("end", seeing("end"))
    graph.add_edge(START, "start")
    graph.add_conditional_edges("start", spread, ["leaf", "inner"])
    graph.add_edge(["leaf", "inner"], "end")
    graph.add_edge("end", END)
    return graph.compile(checkpointer=saver)


@contextmanager
def saver_of(kind: str) -> Iterator[BaseCheckpointSaver[Any]]:
    with ExitStack() as stack:
        sqlite = kind == "sqlite"
        yield stack.enter_context(SqliteSaver.from_conn_string(":memory:")) if sqlite else InMemorySaver()


@asynccontextmanager
async def asaver_of(kind: str) -> AsyncIterator[BaseCheckpointSaver[Any]]:
    if kind == "memory":
        yield InMemorySaver()
    else:
        async with AsyncSqliteSaver.from_conn_string(":memory:") as saver:
            yield saver


def line(saver: BaseCheckpointSaver[Any] | None, **nodes: Any) -> Any:
    """Nodes one after the other."""
    graph = StateGraph(State)
    names = list(nodes)
    for name, node in nodes.items():
        graph.add_node(name, node)
    for one, other in zip([START, *names], [*names, END], strict=True):
        graph.add_edge(one, other)
    return graph.compile(checkpointer=saver)


def plain(saver: BaseCheckpointSaver[Any]) -> Any:
    return line(saver, one=seeing("one"), two=seeing("two"))


def told(thread: str, **settings: Any) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, **settings}}


def held(saver: BaseCheckpointSaver[Any], thread: str) -> dict[tuple[str, str], Told]:
    """All that is saved of a thread, in a form that can be compared."""
    found = {}
    for each in saver.list(told(thread)):
        place = each.config["configurable"]
        above = each.parent_config["configurable"]["checkpoint_id"] if each.parent_config else None
        pair = place["checkpoint_ns"], place["checkpoint_id"]
        found[pair] = (above, each.checkpoint, each.metadata, each.pending_writes)
    return found


def threads(saver: BaseCheckpointSaver[Any]) -> set[str]:
    """The threads of which anything is saved."""
    return {each.config["configurable"]["thread_id"] for each in saver.list(None)}


def newest(found: Sequence[tuple[str, str]] | dict[tuple[str, str], Told]) -> set[tuple[str, str]]:
    best: dict[str, str] = {}
    for namespace, checkpoint in found:
        best[namespace] = max(checkpoint, best.get(namespace, ""))
    return {*best.items()}


RUNS = ("r1", "r2")
Edit = Callable[[BoundSaver], None]

EDITS: dict[str, Edit] = {
    "prune": lambda saver: saver.prune(["t"]),
    "prune, awaited": lambda saver: asyncio.run(saver.aprune(["t"])),
    "delete": lambda saver: saver.prune(["t"], strategy="delete"),
    "delete_for_runs": lambda saver: saver.delete_for_runs(["r2"]),
    "delete_for_runs, awaited": lambda saver: asyncio.run(saver.adelete_for_runs(["r2"])),
    "delete_for_runs, older": lambda saver: saver.delete_for_runs(["r1"]),
    "delete_for_runs, all": lambda saver: saver.delete_for_runs(RUNS),
    "copy_thread": lambda saver: saver.copy_thread("t", "new"),
    "copy_thread, awaited": lambda saver: asyncio.run(saver.acopy_thread("t", "new")),
}


def grown(saver: BaseCheckpointSaver[Any]) -> None:
    """Two runs on thread `t`, the second waiting for a person in a branch and in a sub-graph; one on thread `u`."""
    plain(saver).invoke({"seen": []}, {**told("t"), "metadata": {"run_id": "r1"}})
    tangled(saver).invoke({"seen": []}, {**told("t"), "metadata": {"run_id": "r2"}})
    plain(saver).invoke({"seen": []}, {**told("u"), "metadata": {"run_id": "r3"}})


def everything(saver: BaseCheckpointSaver[Any]) -> dict[str, Any]:
    return {thread: held(saver, thread) for thread in threads(saver)}


def cut(edit: Edit, *, late: bool) -> Iterator[tuple[Mortal, dict[str, Any], dict[str, Any]]]:
    """A saver in which the edit was cut off, for each call at which it can be; what was there, and what should be."""
    first = Mortal()
    grown(first)
    before = everything(first)
    whole = deepcopy(first)
    edit(BoundSaver(whole))
    after = everything(whole)
    for calls in range(1000):
        inner = deepcopy(first)
        inner.left, inner.late = [calls], late
        try:
            edit(BoundSaver(inner))
        except Cut:
            inner.left = []
            yield inner, before, after
        else:
            assert calls > 1
            return
