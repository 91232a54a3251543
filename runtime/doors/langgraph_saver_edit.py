"""Edits of saved threads for which checkpointers have no call, made of the calls that every one of them has.

An edit is a generator that yields calls and is sent their answers, so that the same steps serve the two sides of a
saver: `run` makes the synchronous calls, `arun` the asynchronous ones.

No saver can delete one checkpoint, only a thread. So what stays is first laid under a name of ours, the thread's
shadow; then the thread is deleted, what stays is laid back, and the shadow goes. A shadow gets its mark when it is
whole. Who finds one that was left over lays a marked one back and drops an unmarked one: its thread was not touched
yet. Whatever call is the last one, nothing is lost, and no checkpoint changes its id.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from langgraph.checkpoint.base import WRITES_IDX_MAP, BaseCheckpointSaver, CheckpointTuple

from ..errors import BadEdit
from .langgraph_saver_verbatim import verbatim

T = TypeVar("T")
Pair = tuple[str, str]
"""A checkpoint within its thread: its namespace and its id."""

_SHADOW = "sostenuto-shadow:"
_COPYING = "sostenuto-copying:"
_MARK = "sostenuto:mark"
"""The namespace of a mark."""
_WHOLE = "sostenuto_whole"
_SOURCE = "sostenuto_source"


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a saver, by its synchronous name."""

    name: str
    arguments: tuple[Any, ...]
    told: Mapping[str, Any]
    each: Callable[[CheckpointTuple], Any] = lambda item: item
    """What to keep of each item of a list."""

    def taken_by(self, maker: Callable[..., Any]) -> tuple[Any, ...]:
        return taken_by(maker, *self.arguments) if self.name == "put_writes" else self.arguments


Edit = Generator[Call, Any, T]


@dataclass(frozen=True, slots=True)
class Seen:
    """What an edit must know of a checkpoint; its values are read when it is carried, one checkpoint at a time."""

    pair: Pair
    parent: str | None
    root: str | None
    """In a sub-graph: the checkpoint of the graph from which it was called."""
    run: str | None
    values: frozenset[str]
    changes: frozenset[str]
    """The channels of which it has no value, only what was written to them since an ancestor that has one."""
    writes: tuple[tuple[str, str], ...]
    """Task and channel of what its tasks have written."""

    @property
    def above(self) -> Pair:
        return self.pair[0], self.parent or ""


Keeping = Callable[[Sequence[Seen]], Collection[Pair]]
"""Chooses of a whole thread what stays."""


def run(edit: Edit[T], saver: BaseCheckpointSaver[Any]) -> T:
    """Makes the edit's calls; what is carried from thread to thread, is carried byte for byte."""
    carrier, answer, lack = saver, None, None
    with closing(edit):
        while True:
            try:
                call = edit.throw(lack) if lack is not None else edit.send(answer)
            except StopIteration as done:
                return cast("T", done.value)
            carrier, lack = _carrier(call, saver, carrier), None
            maker = getattr(carrier, call.name)
            try:
                answer = maker(*call.taken_by(maker), **call.told)
                if call.name == "list":
                    answer = [call.each(item) for item in answer]
            except NotImplementedError as error:
                lack = error


async def arun(edit: Edit[T], saver: BaseCheckpointSaver[Any]) -> T:
    """As `run`, with the saver's asynchronous calls."""
    carrier, answer, lack = saver, None, None
    with closing(edit):
        while True:
            try:
                call = edit.throw(lack) if lack is not None else edit.send(answer)
            except StopIteration as done:
                return cast("T", done.value)
            carrier, lack = _carrier(call, saver, carrier), None
            maker = getattr(carrier, f"a{call.name}")
            try:
                answer = maker(*call.taken_by(maker), **call.told)
                if isinstance(answer, AsyncIterator):
                    answer = [call.each(item) async for item in answer]
                else:
                    answer = await answer
            except NotImplementedError as error:
                lack = error


def taken_by(put_writes: Callable[..., Any], *arguments: Any) -> tuple[Any, ...]:
    """The arguments, the last one only if it is taken: savers of old do not know the path of a task."""
    return arguments if "task_path" in inspect.signature(put_writes).parameters else arguments[:-1]


def rewritten(thread: str, keeping: Keeping) -> Edit[Collection[Pair] | None]:
    """Leaves of a thread what `keeping` chooses; returns what is gone, or None if nothing is left."""
    yield from mended(thread)
    seen: Sequence[Seen] = yield _list(thread)
    staying = keeping(seen)
    gone = {each.pair for each in seen} - {*staying}
    if not gone:
        return ()
    if not staying:
        yield _call("delete_thread", thread)
        return None
    yield from _lay([each for each in seen if each.pair in staying], thread, _SHADOW + thread)
    yield _mark(_SHADOW + thread, {_WHOLE: "yes"})
    yield _call("delete_thread", thread)
    yield from mended(thread)
    return gone


def cut_off(thread: str) -> Edit[bool]:
    """Whether an edit of the thread ended between deleting and laying back."""
    mark = yield _call("get_tuple", _at(_SHADOW + thread, _MARK))
    return mark is not None


def mended(thread: str) -> Edit[None]:
    """Lays back what an edit has taken away, if one has, and drops the shadow."""
    shadow: Sequence[Seen] = yield _list(_SHADOW + thread)
    away = [each for each in shadow if each.pair[0] != _MARK]
    if len(away) < len(shadow):
        yield from _lay(away, _SHADOW + thread, thread)
    if shadow:
        yield _call("delete_thread", _SHADOW + thread)


def deleted(thread: str) -> Edit[None]:
    """Deletes a thread, and first what would bring it back."""
    for name in (_SHADOW + thread, _COPYING + thread, thread):
        yield _call("delete_thread", name)


def copied(source: str, target: str) -> Edit[None]:
    """Copies a thread; a copy that was cut off is gone on with.

    Raises BadEdit if there is no such thread, or if the target has checkpoints of its own.
    """
    yield from mended(source)
    seen: Sequence[Seen] = yield _list(source)
    if not seen:
        raise BadEdit(f"thread {source!r} has no checkpoints to copy; was it deleted, or is its name misspelt?")
    mark = yield _call("get_tuple", _at(_COPYING + target, _MARK))
    begun = mark.metadata[_SOURCE] if mark else None
    if begun != source:
        present = yield from pairs(target)
        if present:
            what = f"an unfinished copy of {begun!r}" if begun else f"{len(present)} checkpoints"
            raise BadEdit(f"thread {target!r} holds {what}; copy onto a new thread, or delete this one first")
        yield _mark(_COPYING + target, {_SOURCE: source})
    yield from _lay(seen, source, target)
    yield _call("delete_thread", _COPYING + target)


def pairs(thread: str) -> Edit[set[Pair]]:
    """What a thread holds."""
    seen: Sequence[Seen] = yield _list(thread)
    return {each.pair for each in seen}


def first(
    limit: int, filter: Mapping[str, Any] | None, before: Mapping[str, Any] | None
) -> Edit[Sequence[CheckpointTuple]]:
    """So many checkpoints of all threads but ours."""
    asked = limit
    while True:
        found = yield _call("list", None, filter=filter, before=before, limit=asked)
        wanted = [item for item in found if is_users(item)]
        if len(wanted) >= limit or len(found) < asked:
            return wanted[: max(limit, 0)]
        asked += len(found) - len(wanted)


def is_users(item: CheckpointTuple) -> bool:
    """Whether a checkpoint is of a thread that is not one of ours."""
    return not _thread(item).startswith((_SHADOW, _COPYING))


def touched_by(runs: Collection[str]) -> Edit[Sequence[str]]:
    """The threads to which the runs have saved.

    Threads in which an edit was cut off are among them: what it has taken away may be all that these runs had.
    """
    cut = yield Call("list", (None,), {"filter": {_WHOLE: "yes"}}, _thread)
    found = {thread.removeprefix(_SHADOW) for thread in cut}
    for run_id in runs:
        found |= {*(yield Call("list", (None,), {"filter": {"run_id": run_id}}, _thread))}
    return sorted(thread for thread in found if not thread.startswith((_SHADOW, _COPYING)))


def latest(seen: Sequence[Seen]) -> Collection[Pair]:
    """The newest checkpoint of each namespace, and what it is rebuilt from.

    But of a sub-graph's call nothing, once the checkpoint from which it was called goes.
    """
    newest: dict[str, str] = {}
    for namespace, checkpoint in (each.pair for each in seen):
        newest[namespace] = max(checkpoint, newest.get(namespace, ""))
    going = {checkpoint for namespace, checkpoint in (each.pair for each in seen) if not namespace} - {newest.get("")}
    ended = {each.pair for each in seen if ":" in each.pair[0] and each.root in going}
    return _rebuildable({*newest.items()} - ended, seen)


def without(runs: Collection[str]) -> Keeping:
    """What the runs have not saved, and what that is rebuilt from."""
    return lambda seen: _rebuildable({each.pair for each in seen if each.run not in runs}, seen)


def _rebuildable(staying: set[Pair], seen: Sequence[Seen]) -> Collection[Pair]:
    """With the ancestors up to the one that has a value for each channel of which a checkpoint holds only changes."""
    known = {each.pair: each for each in seen}
    needed = set(staying)
    for pair in staying:
        wanted, above = known[pair].changes, known.get(known[pair].above)
        while wanted and above is not None:
            needed.add(above.pair)
            wanted, above = wanted - above.values, known.get(above.above)
    return needed


def _lay(seen: Sequence[Seen], source: str, target: str) -> Edit[None]:
    """Carries what is not there yet, without parents that are not carried too.

    Writes before their checkpoint, the newest before what led to it: who reads a thread that is only half laid finds
    nothing, or the latest with all that belongs to it.
    """
    present: Sequence[Seen] = yield _list(target)
    there = {each.pair: each for each in present}
    carried = {each.pair for each in seen}
    for each in sorted(seen, key=lambda each: each.pair[1], reverse=True):
        if each.pair in there and _is_whole(there[each.pair], each):
            continue
        item: CheckpointTuple | None = yield _call("get_tuple", _at(source, *each.pair))
        if item is None:
            continue  # somebody else has deleted it meanwhile
        for task, path, writes in _puts(item.pending_writes or ()):
            yield _call("put_writes", _at(target, *each.pair), writes, task, path)
        above = _at(target, each.pair[0], each.parent if each.above in carried else None)
        yield _call("put", above, item.checkpoint, item.metadata, item.checkpoint["channel_versions"])


def _is_whole(there: Seen, each: Seen) -> bool:
    return each.values <= there.values and not Counter(each.writes) - Counter(there.writes)


def _puts(writes: Sequence[tuple[str, str, Any]]) -> Iterator[tuple[str, str, Sequence[tuple[str, Any]]]]:
    """Task, path and writes of the calls that store these writes again.

    A write's place in its task comes from its place in the call, so the calls have the form that a graph gives them:
    an interrupt or a fault alone, an answer to an interrupt together with what came of it. No saver hands out the
    paths that it sorts tasks by; these keep the order.
    """
    tasks: dict[str, list[tuple[str, Any]]] = {}
    for task, channel, value in writes:
        tasks.setdefault(task, []).append((channel, value))
    for place, (task, written) in enumerate(tasks.items()):
        by_itself = [channel in WRITES_IDX_MAP and channel != "__resume__" for channel, _ in written]
        for kind in (True, False):
            if part := [each for each, alone in zip(written, by_itself, strict=True) if alone is kind]:
                yield task, f"~{place:08}", part


def _seen(item: CheckpointTuple) -> Seen:
    place = item.config["configurable"]
    versions, values = item.checkpoint["channel_versions"], item.checkpoint["channel_values"]
    counted: Collection[str] = item.metadata.get("counters_since_delta_snapshot") or ()
    return Seen(
        pair=(place.get("checkpoint_ns", ""), item.checkpoint["id"]),
        parent=item.parent_config["configurable"]["checkpoint_id"] if item.parent_config else None,
        root=(item.metadata.get("parents") or {}).get(""),
        run=item.metadata.get("run_id"),
        values=frozenset(values),
        changes=frozenset(each for each in counted if each in versions and each not in values),
        writes=tuple((task, channel) for task, channel, _ in item.pending_writes or ()),
    )


def _mark(thread: str, told: Mapping[str, Any]) -> Call:
    checkpoint: dict[str, Any] = {
        "v": 4,
        "id": "00000000-0000-6000-8000-000000000000",
        "ts": "1970-01-01T00:00:00+00:00",
        "channel_values": {},
        "channel_versions": {},
        "versions_seen": {},
        "updated_channels": None,
    }
    metadata = {"source": "fork", "step": 0, "parents": {}, **told}
    return _call("put", _at(thread, _MARK), checkpoint, metadata, {})


def _list(thread: str) -> Call:
    return Call("list", (_at(thread),), {}, _seen)


def _call(name: str, *arguments: Any, **told: Any) -> Call:
    return Call(name, arguments, told)


def _at(thread: str, namespace: str | None = None, checkpoint: str | None = None) -> dict[str, Any]:
    """The configuration that names a thread, or a place in it."""
    places = {"thread_id": thread, "checkpoint_ns": namespace, "checkpoint_id": checkpoint}
    return {"configurable": {key: value for key, value in places.items() if value is not None}}


def _thread(item: CheckpointTuple) -> str:
    return str(item.config["configurable"]["thread_id"])


def _carrier(call: Call, saver: BaseCheckpointSaver[Any], now: BaseCheckpointSaver[Any]) -> BaseCheckpointSaver[Any]:
    """Who makes the call: what one copy of the saver reads, the same copy writes; everything else the saver itself."""
    match call.name:
        case "get_tuple":
            return verbatim(saver)
        case "put" | "put_writes":
            return now
        case _:
            return saver
