"""What an edit carries from thread to thread arrives as it was."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypedDict
from uuid import uuid4

import pytest
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send, interrupt

from sostenuto.runtime.doors.langgraph_saver import BoundSaver
from sostenuto.runtime.doors.langgraph_saver_verbatim import Verbatim, verbatim

from .savers import Heard, Mortal, held, plain, saver_of, threads, told

SAVERS = pytest.mark.parametrize("kind", ["memory", "sqlite"])
PAST = "this process does not know the type"


class Colour(enum.Enum):
    RED = 1


@dataclass
class Point:
    x: int


@dataclass(frozen=True)
class Fixed:
    x: int


class Drawn(TypedDict, total=False):
    colour: Any
    number: int
    points: Any
    fixed: Any


def drawing(saver: BaseCheckpointSaver[Any]) -> Any:
    def draw(state: Drawn) -> Drawn:
        return {"colour": Colour.RED, "number": 1, "points": [Point(1), (Fixed(2), Colour.RED)], "fixed": Fixed(3)}

    def ask(state: Drawn) -> Drawn:
        return {"fixed": interrupt(Point(4))}

    graph = StateGraph(Drawn)
    graph.add_node("draw", draw)
    graph.add_node("ask", ask)
    graph.add_edge(START, "draw")
    graph.add_edge("draw", "ask")
    return graph.compile(checkpointer=saver)


@SAVERS
def test_types_that_cannot_be_read_here_are_still_there_for_who_can(kind: str) -> None:
    with saver_of(kind) as inner:
        inner.serde = JsonPlusSerializer(allowed_msgpack_modules=True)
        drawing(inner).invoke({}, told("t"))
        before = held(inner, "t")
        (newest,) = {max(before)}
        inner.serde = JsonPlusSerializer(allowed_msgpack_modules=None)
        saver = BoundSaver(inner)
        assert held(saver, "t")[newest][1]["channel_values"]["colour"] != Colour.RED, PAST
        saver.copy_thread("t", "new")
        saver.prune(["t"])
        inner.serde = JsonPlusSerializer(allowed_msgpack_modules=True)
        assert held(inner, "new") == before
        (kept,) = held(inner, "t").values()
        assert kept[1:] == before[newest][1:]
        values = kept[1]["channel_values"]
        assert (values["colour"], values["number"], values["fixed"]) == (Colour.RED, 1, Fixed(3))
        assert values["points"] == [Point(1), [Fixed(2), Colour.RED]]
        assert type(values["number"]) is int


class Shouting:
    """A serializer that reads less than was written."""

    def dumps_typed(self, obj: Any) -> tuple[str, bytes]:
        return "text", repr(obj).encode()

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        return {b"loud": ["loud"], b"LOUD": ["loud"]}.get(data[1], data[1].decode())


def test_a_value_is_written_as_it_was_read_unless_it_was_changed() -> None:
    serde = Verbatim(Shouting())
    one, other = serde.loads_typed(("text", b"loud")), serde.loads_typed(("text", b"LOUD"))
    assert one == other == ["loud"]
    assert (serde.dumps_typed(one), serde.dumps_typed(other)) == (("text", b"loud"), ("text", b"LOUD"))
    assert serde.dumps_typed(["loud"]) == ("text", b"['loud']")
    other.append("er")
    assert serde.dumps_typed(other) == ("text", b"['loud', 'er']")
    sealed = serde.loads_typed(("text", b"plain"))  # would be written with quotes
    assert serde.dumps_typed(sealed) == ("text", b"plain")


def test_a_saver_that_cleans_up_behind_itself_is_not_copied() -> None:
    class Tidy(InMemorySaver):
        def __del__(self) -> None:
            self.storage.clear()

    tidy, inner = Tidy(), InMemorySaver()
    assert verbatim(tidy) is tidy
    assert verbatim(inner) is not inner
    saver = BoundSaver(tidy)
    plain(saver).invoke({"seen": []}, told("t"))
    saver.prune(["t"])
    assert len(held(saver, "t")) == 1


# Writes


def several(saver: BaseCheckpointSaver[Any]) -> list[str]:
    """Tasks that wrote to one checkpoint, in the opposite order of their ids; returns these."""
    place = saver.put(told("t", checkpoint_ns=""), saver_checkpoint(), {"source": "loop", "step": 1}, {})
    tasks = sorted((str(uuid4()) for _ in range(8)), reverse=True)
    for path, task in enumerate(tasks):
        saver.put_writes(place, [("seen", f"{path}a"), ("seen", f"{path}b")], task, f"~__pregel_push, {path:010}")
    return tasks


def saver_checkpoint() -> Any:
    kept = InMemorySaver()
    plain(kept).invoke({"seen": []}, told("t"), durability="exit")
    found = kept.get_tuple(told("t"))
    assert found is not None
    return found.checkpoint


@SAVERS
def test_writes_keep_the_order_of_the_tasks_that_made_them(kind: str) -> None:
    with saver_of(kind) as inner:
        tasks = several(inner)
        BoundSaver(inner).copy_thread("t", "new")
        ((_, _, _, writes),) = held(inner, "new").values()
        assert writes == [(task, "seen", f"{place}{each}") for place, task in enumerate(tasks) for each in "ab"]


@SAVERS
def test_a_task_that_writes_again_after_it_was_carried_writes_over_its_own(kind: str) -> None:
    with saver_of(kind) as inner:
        place = inner.put(told("t", checkpoint_ns=""), saver_checkpoint(), {"source": "loop", "step": 1}, {})
        asked, answered = [("__interrupt__", ["?"])], [("__resume__", ["!"]), ("seen", ["a"]), ("seen", ["b"])]
        task, path = str(uuid4()), "~__pregel_pull, node"
        for writes in (asked, answered):
            inner.put_writes(place, writes, task, path)
        before = held(inner, "t")
        BoundSaver(inner).copy_thread("t", "new")
        assert held(inner, "new") == before
        again = told("new", **{key: place["configurable"][key] for key in ("checkpoint_ns", "checkpoint_id")})
        inner.put_writes(again, answered, task, path)
        (then,), (now,) = (each.values() for each in (before, held(inner, "new")))
        assert sorted(now[3]) == sorted(then[3])


class Torn(Mortal):
    """Its threads are not deleted at once: the process dies when one part is gone."""

    part = ""

    def delete_thread(self, thread_id: str) -> None:
        if not self.part or thread_id != "t":
            super().delete_thread(thread_id)
            return
        rows = getattr(self, self.part)
        for key in [key for key in rows if key == "t" or key[0] == "t"]:
            del rows[key]
        raise KeyboardInterrupt


@pytest.mark.parametrize("part", ["storage", "writes", "blobs"])
def test_a_thread_that_was_deleted_in_part_is_whole_again(part: str) -> None:
    inner = Torn()
    several(inner)
    drawing(inner).invoke({}, told("t"))
    BoundSaver(inner).copy_thread("t", "expected")
    BoundSaver(inner).prune(["expected"])
    inner.part = part
    with pytest.raises(KeyboardInterrupt):
        BoundSaver(inner).prune(["t"])
    inner.part = ""
    BoundSaver(inner).prune(["t"])
    assert held(inner, "t") == held(inner, "expected")
    assert threads(inner) == {"t", "expected"}


# Channels of which a checkpoint holds only the changes


def appended(state: list[str], writes: Sequence[list[str]]) -> list[str]:
    return [*state, *(each for write in writes for each in write)]


class Grown(TypedDict, total=False):
    seen: Annotated[list[str], DeltaChannel(appended, list, snapshot_frequency=5)]
    other: Annotated[list[str], DeltaChannel(appended, list, snapshot_frequency=3)]


def growing(saver: BaseCheckpointSaver[Any]) -> Any:
    """Three branches a turn, each of which writes one change, and a last step that writes another."""

    def leaf(state: Any) -> Grown:
        return {"seen": [state["name"]]}

    def last(state: Grown) -> Grown:
        return {"other": [f"{len(state['seen'])}"]}

    graph = StateGraph(Grown)
    graph.add_node("leaf", leaf)
    graph.add_node("last", last)
    graph.add_conditional_edges(START, lambda state: [Send("leaf", {"name": each}) for each in "abc"], ["leaf"])
    graph.add_edge("leaf", "last")
    graph.add_edge("last", END)
    return graph.compile(checkpointer=saver)


@SAVERS
@pytest.mark.parametrize("durability", ["async", "exit"])
def test_what_a_checkpoint_is_rebuilt_from_stays_with_it(kind: str, durability: str) -> None:
    dropped = 0
    with saver_of(kind) as inner:
        saver = BoundSaver(inner)
        graph = growing(saver)
        for turn in range(1, 9):
            done = graph.invoke({"seen": [f"{turn}"]}, told("t"), durability=durability)
            before = len(held(saver, "t"))
            saver.prune(["t"])
            dropped += before - len(held(saver, "t"))
            assert graph.get_state(told("t")).values == done
            assert done["other"] == [str(4 * each) for each in range(1, turn + 1)]
    assert dropped > 5


def test_deleting_a_run_keeps_what_a_later_run_is_rebuilt_from() -> None:
    heard = Heard()
    saver = BoundSaver(InMemorySaver(), heard)
    graph = growing(saver)
    runs = [f"r{turn}" for turn in range(7)]
    for name in runs:
        done = graph.invoke({"seen": [name]}, {**told("t"), "metadata": {"run_id": name}})
    before = held(saver, "t")
    saver.delete_for_runs(runs[:-1])
    assert graph.get_state(told("t")).values == done
    ((_, _, gone),) = heard.of("dropped")
    left = {pair for pair, each in held(saver, "t").items() if each[2]["run_id"] != "r6"}
    assert left | gone == {pair for pair, each in before.items() if each[2]["run_id"] != "r6"}
    assert left
    assert gone
