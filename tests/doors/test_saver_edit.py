"""Threads can be pruned, copied and freed of runs with any checkpointer, and nothing is lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command

from sostenuto.runtime.doors.langgraph_saver import BoundSaver
from sostenuto.runtime.errors import BadEdit

from .savers import (
    EDITS,
    Heard,
    Mortal,
    asaver_of,
    cut,
    everything,
    held,
    line,
    newest,
    plain,
    saver_of,
    seeing,
    tangled,
    threads,
    told,
)


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", EDITS)
def test_an_edit_cut_off_at_any_call_is_finished_by_the_next_one(name: str, late: bool) -> None:
    for inner, _, after in cut(EDITS[name], late=late):
        try:
            EDITS[name](BoundSaver(inner))
        except BadEdit:
            assert name.startswith("copy")  # all had been copied: the target is a thread of its own
        assert everything(inner) == after


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", EDITS)
def test_whoever_reads_after_an_edit_was_cut_off_finds_all_that_should_stay(name: str, late: bool) -> None:
    for inner, before, after in cut(EDITS[name], late=late):
        saver = BoundSaver(inner)
        for thread, kept in after.items():
            if thread == "new":
                continue
            for namespace, checkpoint in newest(kept):
                latest = (namespace, checkpoint) in newest(before[thread])
                exactly = {} if latest else {"checkpoint_id": checkpoint}
                found = saver.get_tuple(told(thread, checkpoint_ns=namespace, **exactly))
                assert found is not None
                assert (found.checkpoint, found.pending_writes) == kept[namespace, checkpoint][1::2]
            seen = held(saver, thread)
            assert {*kept} <= {*seen} <= {*before[thread]}
            assert {pair: each[1:] for pair, each in seen.items()} == {pair: before[thread][pair][1:] for pair in seen}


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_each_way_to_use_a_thread_makes_good_what_was_cut_off(late: bool) -> None:
    def alist(saver: BoundSaver) -> None:
        async def listed() -> None:
            assert {each.config["configurable"]["checkpoint_id"] async for each in saver.alist(told("t"))}

        asyncio.run(listed())

    for use in (
        lambda saver: [*saver.list(told("t"))],
        alist,
        lambda saver: saver.get_tuple(told("t")),
        lambda saver: asyncio.run(saver.aget_tuple(told("t"))),
        lambda saver: saver.copy_thread("t", "new"),
    ):
        for inner, _, after in cut(EDITS["prune"], late=late):
            use(BoundSaver(inner))
            assert {*after["t"]} <= {*held(inner, "t")}


def test_what_was_cut_off_before_the_thread_was_touched_brings_nothing_back() -> None:
    unfinished = 0
    for inner, before, _ in cut(EDITS["prune"], late=True):
        if len(threads(inner)) > 2 and {*held(inner, "t")} == {*before["t"]}:
            inner.delete_thread("t")  # by somebody who does not know of us
            saver = BoundSaver(inner)
            if saver.get_tuple(told("t")) is None:
                saver.prune(["t"])
                assert threads(inner) == {"u"}
                unfinished += 1
    assert unfinished > 2


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_a_thread_deleted_after_a_cut_does_not_come_back(late: bool) -> None:
    for name in ("prune", "copy_thread"):
        for inner, _, after in cut(EDITS[name], late=late):
            saver = BoundSaver(inner)
            saver.delete_thread("t")
            saver.delete_thread("new")
            assert saver.get_tuple(told("t")) is None
            assert everything(inner) == {"u": after["u"]}


def test_our_own_threads_are_not_listed() -> None:
    shown = set()
    for inner, _, _ in cut(EDITS["prune"], late=True):
        saver = BoundSaver(inner)
        shown |= threads(saver)
        hidden = [each for each in inner.list(None) if each.config["configurable"]["thread_id"] not in ("t", "u")]
        rest = [each.config for each in saver.list(None)]
        assert len(rest) == len([*inner.list(None)]) - len(hidden)
        assert [each.config for each in saver.list(None, limit=3)] == rest[:3]
        assert [each.config for each in saver.list(None, limit=99)] == rest
    assert shown == {"t", "u"}


async def test_an_edit_that_is_cancelled_half_way_is_made_good() -> None:
    deleted = asyncio.Event()

    class Stuck(InMemorySaver):
        async def adelete_thread(self, thread_id: str) -> None:
            self.delete_thread(thread_id)
            deleted.set()
            await asyncio.Event().wait()

    inner = Stuck()
    saver = BoundSaver(inner)
    await plain(saver).ainvoke({"seen": []}, told("t"))
    before = held(inner, "t")
    pruning = asyncio.ensure_future(saver.aprune(["t"]))
    await deleted.wait()
    pruning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pruning
    found = saver.get_tuple(told("t"))
    assert found is not None
    assert {("", found.checkpoint["id"])} == newest(before) == {*held(inner, "t")}
    assert threads(inner) == {"t"}


# What stays, and what is told


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_a_pruned_thread_goes_on_from_its_interrupts_as_if_it_had_not_been(kind: str) -> None:
    ended = []
    for pruned in (False, True):
        heard = Heard()
        with saver_of(kind) as inner:
            saver = BoundSaver(inner, heard)
            graph = tangled(saver)
            graph.invoke({"seen": []}, told("t"))
            before = held(saver, "t")
            if pruned:
                saver.prune(["t", "unknown"])
                assert {*held(saver, "t")} == newest(before)
                assert heard.of("dropped") == [("dropped", "t", {*before} - newest(before))]
            asked = {each.id: "yes" for each in graph.get_state(told("t")).interrupts}
            ended.append(graph.invoke(Command(resume=asked), told("t")))
    assert ended[0] == ended[1]
    assert ended[0]["seen"] == ["start", "leaf", "leaf", "leaf:yes", "first", "second:yes", "end"]


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_copied_thread_goes_on_by_itself(kind: str) -> None:
    heard = Heard()
    async with asaver_of(kind) as inner:
        saver = BoundSaver(inner, heard)
        graph = tangled(saver)
        await graph.ainvoke({"seen": []}, told("t"))
        await saver.acopy_thread("t", "new")
        assert heard.of("copied") == [("copied", "t", "new")]
        before = await asyncio.to_thread(held, inner, "t")
        assert await asyncio.to_thread(held, inner, "new") == before
        state = await graph.aget_state(told("new"))
        done = await graph.ainvoke(Command(resume={each.id: "no" for each in state.interrupts}), told("new"))
        assert done["seen"] == ["start", "leaf", "leaf", "leaf:no", "first", "second:no", "end"]
        assert await asyncio.to_thread(held, inner, "t") == before


def test_deleting_a_run_leaves_the_others_with_the_parents_that_are_left() -> None:
    heard = Heard()
    saver = BoundSaver(InMemorySaver(), heard)
    for name in ("r1", "r2", "r3"):
        plain(saver).invoke({"seen": []}, {**told("t"), "metadata": {"run_id": name}})
    before = held(saver, "t")
    saver.delete_for_runs(["r2", "nobody"])
    after = held(saver, "t")
    gone = {pair for pair, each in before.items() if each[2]["run_id"] == "r2"}
    assert {*before} - {*after} == gone
    assert heard.of("dropped") == [("dropped", "t", gone)]
    orphans = [pair for pair, each in after.items() if each[0] != before[pair][0]]
    assert [before["", str(before[pair][0])][2]["run_id"] for pair in orphans] == ["r2"]
    assert [after[pair][0] for pair in orphans] == [None]
    assert {pair: each[1:] for pair, each in after.items()} == {pair: before[pair][1:] for pair in after}


def test_a_run_that_was_named_by_its_id_is_deleted_with_its_sub_graphs() -> None:
    heard, name = Heard(), uuid4()
    saver = BoundSaver(InMemorySaver(), heard)
    tangled(saver).invoke({"seen": []}, {**told("t"), "run_id": name})
    assert len(held(saver, "t")) == 6
    saver.delete_for_runs([str(name)])
    assert heard.of("dropped") == [("dropped", "t", None)]
    assert threads(saver) == set()


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_the_calls_of_a_sub_graph_go_with_the_checkpoints_that_called_it(kind: str) -> None:
    with saver_of(kind) as inner:
        saver = BoundSaver(inner)
        kept, called = line(None, below=seeing("kept")), line(None, below=seeing("called"))
        kept.checkpointer = True
        graph = line(saver, kept=kept, called=called)
        for _ in range(3):
            graph.invoke({"seen": []}, told("t"))
        namespaces = {namespace for namespace, _ in held(saver, "t")}
        assert sorted(each.split(":")[0] for each in namespaces) == ["", "called", "called", "called", "kept"]
        before = graph.get_state(told("t")).values
        saver.prune(["t"])
        assert {namespace for namespace, _ in held(saver, "t")} == {"", "kept"}
        assert graph.get_state(told("t")).values == before


def test_nothing_is_written_where_nothing_is_to_be_dropped() -> None:
    heard, inner = Heard(), Mortal()
    saver = BoundSaver(inner, heard)
    plain(saver).invoke({"seen": []}, told("t"), durability="exit")
    before = deepcopy(inner.storage)
    saver.prune(["t", "unknown"])
    saver.delete_for_runs(["nobody"])
    saver.prune([])
    saver.delete_for_runs([])
    assert inner.storage["t"] == before["t"]
    assert heard.of("dropped") == []


def test_what_a_saver_can_do_itself_it_does_and_what_it_did_is_told() -> None:
    class Able(InMemorySaver):
        def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
            for thread in thread_ids:
                if strategy == "half":
                    self.storage[thread][""].pop(min(self.storage[thread][""]))
                else:
                    self.delete_thread(thread)

        def delete_for_runs(self, run_ids: Any) -> None:
            self.delete_thread("u")

        def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
            self.storage[target_thread_id] = deepcopy(self.storage[source_thread_id])

    heard = Heard()
    saver = BoundSaver(Able(), heard)
    for thread in ("t", "u"):
        plain(saver).invoke({"seen": []}, {**told(thread), "metadata": {"run_id": thread}})
    oldest = min(held(saver, "t"))
    saver.copy_thread("t", "v")
    saver.prune(["t"], strategy="half")
    saver.prune(["t"])
    saver.delete_for_runs(["u"])
    assert heard.of("dropped", "copied") == [
        ("copied", "t", "v"),
        ("dropped", "t", {oldest}),
        ("dropped", "t", None),
        ("dropped", "u", None),
    ]


@pytest.mark.parametrize("awaited", [False, True])
def test_what_a_saver_refuses_to_do_itself_is_done_with_its_other_calls(awaited: bool) -> None:
    class Refusing(InMemorySaver):
        def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
            raise NotImplementedError("not with such a channel")

        async def aprune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
            self.prune(thread_ids, strategy=strategy)

    heard = Heard()
    saver = BoundSaver(Refusing(), heard)
    plain(saver).invoke({"seen": []}, told("t"))
    before = held(saver, "t")
    EDITS["prune, awaited" if awaited else "prune"](saver)
    assert {*held(saver, "t")} == newest(before)
    assert heard.of("dropped") == [("dropped", "t", {*before} - newest(before))]


def test_a_list_without_writes_is_no_reason_to_lose_them() -> None:
    class Short(InMemorySaver):
        def list(self, config: RunnableConfig | None, **told: Any) -> Iterator[CheckpointTuple]:
            for each in super().list(config, **told):
                yield each._replace(pending_writes=None)

    saver = BoundSaver(Short())
    graph = tangled(saver)
    graph.invoke({"seen": []}, told("t"))
    before = saver.get_tuple(told("t"))
    saver.prune(["t"])
    after = saver.get_tuple(told("t"))
    assert before is not None
    assert after is not None
    assert after.pending_writes == before.pending_writes != []
