"""A wrapped checkpointer behaves as the one inside, and its listener hears of every checkpoint."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.config import get_config
from langgraph.graph import START, StateGraph
from langgraph.types import Command, Send

from sostenuto.runtime.doors.langgraph_saver import BoundSaver, Listener
from sostenuto.runtime.errors import BadSaver, SaverUnable

from .savers import Heard, State, Waiting, asaver_of, held, line, plain, saver_of, seeing, tangled, told

EVERY = ("async", "sync", "exit")


# What is inside


def test_every_public_name_of_a_saver_is_answered_by_the_wrapper_itself() -> None:
    public = {name for name in vars(BaseCheckpointSaver) if not name.startswith("_")}
    assert public - set(vars(BoundSaver)) == {"get", "aget"}  # made of get_tuple


def test_what_only_the_saver_inside_has_is_found() -> None:
    with SqliteSaver.from_conn_string(":memory:") as inner:
        saver = BoundSaver(inner)
        saver.setup()
        assert (saver.conn, saver.inner, saver.is_setup) == (inner.conn, inner, True)
        with pytest.raises(AttributeError, match="'SqliteSaver' object has no attribute 'sharding'"):
            saver.sharding  # noqa: B018
    assert repr(saver).startswith("<BoundSaver around <")


def test_versions_settings_and_serializer_are_those_of_the_saver_inside() -> None:
    inner = InMemorySaver()
    saver = BoundSaver(inner)
    assert saver.get_next_version("4.0", None).split(".")[0] == f"{5:032}"
    assert saver.serde is inner.serde
    assert saver.config_specs == inner.config_specs
    saver.serde = JsonPlusSerializer()
    assert inner.serde is saver.serde


def test_a_list_of_allowed_types_goes_to_the_saver_inside_and_the_listener_stays() -> None:
    heard, inner = Heard(), InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=None))
    saver = BoundSaver(inner, heard)
    strict = saver.with_allowlist({("somewhere", "Something")})
    assert isinstance(strict, BoundSaver)
    assert strict.serde is not inner.serde
    plain(strict).invoke({"seen": []}, told("t"))
    assert held(strict, "t") == held(saver, "t")
    assert len(heard.of("bound")) == 4
    free = BoundSaver(InMemorySaver(serde=JsonPlusSerializer(allowed_msgpack_modules=True)))
    assert free.with_allowlist({("somewhere", "Something")}) is free


def test_wrapped_twice_it_is_wrapped_once_and_each_listener_hears_once() -> None:
    one, other, inner = Heard(), Heard(), InMemorySaver()
    saver = BoundSaver(BoundSaver(BoundSaver(inner, one), other), one)
    assert saver.inner is inner
    plain(saver).invoke({"seen": []}, told("t"))
    assert len(one.told) == 4
    assert one.told == other.told


@pytest.mark.parametrize("wrong", [None, InMemorySaver, {}, SqliteSaver.from_conn_string(":memory:")], ids=str)
def test_what_is_no_saver_is_refused_with_a_way_out(wrong: Any) -> None:
    with pytest.raises(BadSaver, match=r"found \w+, expected a LangGraph checkpoint saver .* must be entered first"):
        BoundSaver(wrong)


def test_a_saver_that_does_not_know_task_paths_is_not_given_any() -> None:
    class Old(InMemorySaver):
        def put_writes(self, config: RunnableConfig, writes: Any, task_id: str) -> None:  # type: ignore[override]
            super().put_writes(config, writes, task_id)

    saver = BoundSaver(Old())
    assert plain(saver).invoke({"seen": []}, told("t"))["seen"] == ["one", "two"]
    saver.copy_thread("t", "u")
    assert {pair: each[3] for pair, each in held(saver, "t").items()} == {
        pair: each[3] for pair, each in held(saver, "u").items()
    }


# The two sides


async def test_a_saver_without_asynchronous_calls_says_what_to_do() -> None:
    with SqliteSaver.from_conn_string(":memory:") as inner:
        saver = BoundSaver(inner)
        with pytest.raises(SaverUnable, match=r"SqliteSaver has no asynchronous calls.*invoke or stream.*AsyncSqlite"):
            await plain(saver).ainvoke({"seen": []}, told("t"))
        with pytest.raises(SaverUnable, match="has no asynchronous calls, and aprune is made of them"):
            await saver.aprune(["t"])
        with pytest.raises(NotImplementedError):
            _ = [each async for each in saver.alist(told("t"))]
        assert plain(saver).invoke({"seen": []}, told("t"))["seen"] == ["one", "two"]


async def test_a_saver_without_synchronous_calls_says_what_to_do() -> None:
    saver = BoundSaver(Waiting())
    with pytest.raises(
        SaverUnable, match=r"Waiting has no synchronous calls, and get_tuple is made of them; .* ainvoke"
    ):
        plain(saver).invoke({"seen": []}, told("t"))
    done = await plain(saver).ainvoke({"seen": []}, told("t"))
    assert done["seen"] == ["one", "two"]


def test_what_something_below_the_saver_does_not_know_is_not_blamed_on_the_saver() -> None:
    inner = InMemorySaver()
    plain(inner).invoke({"seen": []}, told("t"))
    inner.blobs.update(dict.fromkeys(inner.blobs, ("runes", b"")))
    with pytest.raises(NotImplementedError, match="Unknown serialization type: runes"):
        BoundSaver(inner).get_tuple(told("t"))


async def test_who_leaves_a_list_early_leaves_the_saver_free() -> None:
    async with asaver_of("sqlite") as inner:
        saver = BoundSaver(inner)
        await plain(saver).ainvoke({"seen": []}, told("t"))
        listed = cast("Any", saver.alist(told("t")))
        async for _ in listed:
            break
        await listed.aclose()
        assert not cast("AsyncSqliteSaver", inner).lock.locked()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_both_sides_list_and_limit_alike(kind: str) -> None:
    async with asaver_of(kind) as inner:
        saver = BoundSaver(inner)
        for thread in ("t", "u"):
            await plain(saver).ainvoke({"seen": []}, told(thread))
        everything = [each async for each in saver.alist(None)]
        assert len(everything) == 8
        assert [each async for each in saver.alist(None, limit=3)] == everything[:3]
        assert len([each async for each in saver.alist(told("t"), limit=3)]) == 3
        assert await asyncio.to_thread(lambda: list(saver.list(None, limit=3))) == everything[:3]
        assert await asyncio.to_thread(lambda: len(list(saver.list(told("t"), filter={"step": 1})))) == 1


# What the listener hears


def checked(heard: Heard, saved: dict[tuple[str, str], Any]) -> None:
    """That each saved checkpoint was told once, with its parent, step and source."""
    seen = {
        (namespace, checkpoint): (above, step, source)
        for _, _, namespace, checkpoint, above, step, source, _ in heard.of("bound")
    }
    assert len(seen) == len(heard.of("bound"))
    assert seen == {pair: (each[0], each[2]["step"], each[2]["source"]) for pair, each in saved.items()}


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("durability", EVERY)
def test_every_saved_checkpoint_is_told(kind: str, durability: str) -> None:
    heard = Heard()
    with saver_of(kind) as inner:
        graph = tangled(saver := BoundSaver(inner, heard))
        graph.invoke({"seen": []}, told("t"), durability=durability)
        asked = {each.id: "yes" for each in graph.get_state(told("t")).interrupts}
        done = graph.invoke(Command(resume=asked), told("t"), durability=durability)
        assert done["seen"] == ["start", "leaf", "leaf", "leaf:yes", "first", "second:yes", "end"]
        checked(heard, held(saver, "t"))


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@pytest.mark.parametrize("durability", EVERY)
async def test_every_saved_checkpoint_is_told_to_coroutines(kind: str, durability: str) -> None:
    heard = Heard()
    async with asaver_of(kind) as inner:
        graph = tangled(saver := BoundSaver(inner, heard))
        await graph.ainvoke({"seen": []}, told("t"), durability=durability)
        checked(heard, await asyncio.to_thread(held, saver, "t"))


def test_what_could_not_be_saved_is_not_told() -> None:
    class Full(InMemorySaver):
        def put(self, *_: Any) -> RunnableConfig:
            raise OSError("no space left")

    heard = Heard()
    with pytest.raises(OSError, match="no space left"):
        plain(BoundSaver(Full(), heard)).invoke({"seen": []}, told("t"))
    assert heard.told == []


def test_a_fork_and_an_update_are_told_with_the_checkpoint_they_stand_on() -> None:
    heard = Heard()
    graph = plain(BoundSaver(InMemorySaver(), heard))
    graph.invoke({"seen": []}, told("t"))
    old = next(each for each in graph.get_state_history(told("t")) if each.next == ("two",))
    chosen = old.config["configurable"]["checkpoint_id"]
    heard.told.clear()
    graph.invoke(None, old.config)
    assert heard.of("opened") == [("opened", "t", "", chosen)]
    (fork, _) = heard.of("bound")
    assert (fork[4], fork[6]) == (chosen, "fork")
    heard.told.clear()
    updated = graph.update_state(old.config, {"seen": ["mine"]})
    assert heard.of("opened") == [("opened", "t", "", chosen)]
    (update,) = heard.of("bound")
    assert (update[3], update[4], update[6]) == (updated["configurable"]["checkpoint_id"], chosen, "update")


def test_only_what_is_asked_for_by_its_id_is_opened() -> None:
    heard = Heard()
    saver = BoundSaver(InMemorySaver(), heard)
    graph = plain(saver)
    graph.invoke({"seen": []}, told("t"))
    graph.invoke({"seen": []}, told("t"))
    assert saver.get(told("t")) is not None
    assert saver.get_tuple(told("t", checkpoint_ns="", checkpoint_id=str(uuid4()))) is None
    assert heard.of("opened") == []
    found = graph.get_state(told("t")).config
    assert saver.get_tuple(found) is not None
    assert heard.of("opened") == [("opened", "t", "", found["configurable"]["checkpoint_id"])]


async def test_coroutines_open_and_delete_too() -> None:
    heard = Heard()
    saver = BoundSaver(InMemorySaver(), heard)
    await plain(saver).ainvoke({"seen": []}, told("t"))
    found = await saver.aget_tuple(told("t"))
    assert found is not None
    await saver.aget_tuple(found.config)
    await saver.adelete_thread("t")
    assert await saver.aget_tuple(told("t")) is None
    assert heard.of("opened", "dropped") == [("opened", "t", "", found.checkpoint["id"]), ("dropped", "t", None)]


@pytest.mark.parametrize("inside", [False, True], ids=["the graph", "a sub-graph"])
def test_a_run_that_was_named_is_told_and_kept(inside: bool) -> None:
    heard, name = Heard(), uuid4()
    saver = BoundSaver(InMemorySaver(), heard)
    below = line(None, within=seeing("within"))
    graph = line(saver, below=below) if inside else plain(saver)
    graph.invoke({"seen": []}, {**told("t"), "run_id": name})
    assert {each[-1] for each in heard.told} == {str(name)}
    assert {each[2]["run_id"] for each in held(saver, "t").values()} == {str(name)}
    assert len({namespace for namespace, _ in held(saver, "t")}) == 1 + inside


def test_a_run_named_in_the_metadata_keeps_that_name_and_one_without_has_none() -> None:
    heard = Heard()
    saver = BoundSaver(InMemorySaver(), heard)
    plain(saver).invoke({"seen": []}, {**told("t"), "metadata": {"run_id": "mine"}, "run_id": uuid4()})
    plain(saver).invoke({"seen": []}, told("u"))
    assert {each[-1] for each in heard.told if each[1] == "t"} == {"mine"}
    assert {each[-1] for each in heard.told if each[1] == "u"} == {None}
    assert "run_id" not in next(iter(held(saver, "u").values()))[2]


def test_a_listener_that_fails_breaks_nothing_and_is_not_passed_over_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(Heard):
        def bound(self, *_: Any, **__: Any) -> None:
            raise RuntimeError("no ears")

    heard = Heard()
    saver = BoundSaver(BoundSaver(InMemorySaver(), Broken()), heard)
    with caplog.at_level(logging.ERROR):
        assert plain(saver).invoke({"seen": []}, told("t"))["seen"] == ["one", "two"]
    assert len(heard.of("bound")) == len(held(saver, "t")) == 4
    assert [str(each.exc_info[1]) for each in caplog.records if each.exc_info] == ["no ears"] * 4


# What a node knows of the checkpoint that its step will make


class Asking:
    """Nodes that keep from which checkpoint, in which namespace and at which step they run."""

    def __init__(self) -> None:
        self.known: list[tuple[str, str, int]] = []

    def node(self, state: State) -> State:
        config = get_config()
        namespace = config["metadata"]["langgraph_checkpoint_ns"].rpartition("|")[0]
        above = config["configurable"]["checkpoint_map"][namespace]
        self.known.append((namespace, above, config["metadata"]["langgraph_step"]))
        return {"seen": ["x"]}

    async def anode(self, state: State) -> State:
        return self.node(state)


def forest(saver: BaseCheckpointSaver[Any], node: Any) -> Any:
    """A step, eight branches and a sub-graph; nine nodes in one step."""
    below = line(None, first=node, second=node)
    graph = StateGraph(State)
    graph.add_node("start", node)
    graph.add_node("leaf", node)
    graph.add_node("below", below, input_schema=State)
    graph.add_edge(START, "start")
    graph.add_edge("start", "below")
    graph.add_conditional_edges("start", lambda state: [Send("leaf", {"seen": []}) for _ in range(8)], ["leaf"])
    return graph.compile(checkpointer=saver)


def joined(asking: Asking, heard: Heard) -> None:
    made = {(each[2], each[4]): each[5] for each in heard.of("bound") if each[6] == "loop"}
    assert len(asking.known) == 11
    assert [made[namespace, above] for namespace, above, _ in asking.known] == [step for _, _, step in asking.known]


@pytest.mark.parametrize("durability", ["async", "sync"])
def test_a_node_knows_the_parent_of_the_checkpoint_that_its_step_makes(durability: str) -> None:
    heard, asking = Heard(), Asking()
    graph = forest(BoundSaver(InMemorySaver(), heard), asking.node)
    graph.invoke({"seen": []}, told("t"), durability=durability)
    joined(asking, heard)


@pytest.mark.parametrize("durability", ["async", "sync"])
async def test_a_coroutine_knows_it_too(durability: str) -> None:
    heard, asking = Heard(), Asking()
    graph = forest(BoundSaver(InMemorySaver(), heard), asking.anode)
    await graph.ainvoke({"seen": []}, told("t"), durability=durability)
    joined(asking, heard)


class Ending(BaseCallbackHandler):
    """Writes into what was heard that the run has ended."""

    run_inline = True

    def __init__(self, heard: Heard) -> None:
        self.heard = heard

    def on_chain_end(self, outputs: Any, *, parent_run_id: Any = None, **_: Any) -> None:
        if parent_run_id is None:
            self.heard.told.append(("end",))


@pytest.mark.parametrize("durability", EVERY)
async def test_all_of_a_run_is_told_before_the_run_ends(durability: str) -> None:
    heard = Heard()
    graph = tangled(BoundSaver(InMemorySaver(), heard))
    config = {**told("t"), "callbacks": [Ending(heard)]}
    await graph.ainvoke({"seen": []}, config, durability=durability)
    assert heard.told.index(("end",)) == len(heard.told) - 1 > 0
    heard.told.clear()
    graph.invoke({"seen": []}, {**config, **told("u")}, durability=durability)
    assert heard.told.index(("end",)) == len(heard.told) - 1 > 0


def test_a_listener_needs_no_base_class() -> None:
    listener: Listener = Heard()
    assert BoundSaver(InMemorySaver(), listener).inner is not None
