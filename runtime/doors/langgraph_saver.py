"""A checkpointer around any other: it tells a listener which checkpoints are saved, opened, copied and gone.

It also has the calls that most checkpointers lack: prune, copy a thread, delete what certain runs have saved.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from traceback import walk_tb
from typing import Any

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import BadEdit, BadSaver, SaverUnable, UnknownCheckpoint
from .langgraph_saver_copies import note_copy
from .langgraph_saver_edit import (
    Call,
    Edit,
    Keeping,
    arun,
    copied,
    cut_off,
    deleted,
    first,
    is_users,
    latest,
    mended,
    pairs,
    rewritten,
    run,
    taken_by,
    touched_by,
    without,
)
from .langgraph_saver_gate import Gate
from .langgraph_saver_listener import Listener, tell

__all__ = ["BoundSaver", "Listener"]


class BoundSaver(BaseCheckpointSaver[Any]):
    """Saves to `inner` and tells the listener; around another BoundSaver it takes its place, with both listeners.

    What `inner` can do itself, it does. Only what it cannot is made of its other calls: then a thread that is edited
    must not be in use, whoever tries meets Busy, and an edit that was cut off is made good by the thread's next use.
    A run that the caller named with `config["run_id"]` is kept in the metadata, where `delete_for_runs` looks for it.
    With `strict`, as under `wrap`, a checkpoint that is not there is UnknownCheckpoint; LangGraph would begin anew.
    """

    def __init__(
        self, inner: BaseCheckpointSaver[Any], listener: Listener | None = None, *, strict: bool = False
    ) -> None:
        if not isinstance(inner, BaseCheckpointSaver):
            raise BadSaver(
                f"found {type(inner).__name__}, expected a LangGraph checkpoint saver such as InMemorySaver(); "
                "what from_conn_string returns must be entered first: with SqliteSaver.from_conn_string(...) as saver"
            )
        within = inner if isinstance(inner, BoundSaver) else None
        self._inner: BaseCheckpointSaver[Any] = within._inner if within else inner
        self._strict: bool = strict or (within is not None and within._strict)
        self._gate: Gate = within._gate if within else Gate()
        known: tuple[Listener, ...] = within._listeners if within else ()
        self._listeners: tuple[Listener, ...] = known if listener is None or listener in known else (*known, listener)

    def tells(self, listener: Listener) -> bool:
        """Whether this listener hears of what is saved here."""
        return listener in self._listeners

    def __repr__(self) -> str:
        return f"<BoundSaver around {self._inner!r}>"

    def __getattr__(self, name: str) -> Any:
        """What only `inner` has, like `setup` and `conn`."""
        if name.startswith("__") or name == "_inner":  # asked for while a copy is being made
            raise AttributeError(name)
        return getattr(self._inner, name)

    @property
    def inner(self) -> BaseCheckpointSaver[Any]:
        return self._inner

    @property
    def serde(self) -> SerializerProtocol:
        return self._inner.serde

    @serde.setter
    def serde(self, serde: SerializerProtocol) -> None:
        self._inner.serde = serde

    @property
    def config_specs(self) -> Any:
        return self._inner.config_specs

    def get_next_version(self, current: Any, channel: None) -> Any:
        return self._inner.get_next_version(current, channel)

    def with_allowlist(self, extra_allowlist: Collection[tuple[str, ...]]) -> BoundSaver:
        inner = self._inner.with_allowlist(extra_allowlist)
        clone = self if inner is self._inner else copy.copy(self)
        clone._inner = inner
        return clone

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread = _thread(config)
        self._gate.reading(thread)
        with self._able("get_tuple"):
            found = self._inner.get_tuple(config)
            if found is None and self._mend(thread):
                found = self._inner.get_tuple(config)
        self._opened(config, found)
        return found

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        thread = _thread(config)
        self._gate.reading(thread)
        with self._able("aget_tuple"):
            found = await self._inner.aget_tuple(config)
            if found is None and await self._amend(thread):
                found = await self._inner.aget_tuple(config)
        self._opened(config, found)
        return found

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        with self._able("list"):
            if config is None and limit is not None:
                yield from run(first(limit, filter, before), self._inner)
                return
            if config is None:
                for item in self._inner.list(None, filter=filter, before=before):
                    if is_users(item):
                        yield item
                return
            self._gate.reading(_thread(config))
            self._mend(_thread(config))
            yield from self._inner.list(config, filter=filter, before=before, limit=limit)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        with self._able("alist"):
            if config is None and limit is not None:
                for item in await arun(first(limit, filter, before), self._inner):
                    yield item
                return
            if config is not None:
                self._gate.reading(_thread(config))
                await self._amend(_thread(config))
            items: Any = self._inner.alist(config, filter=filter, before=before, limit=limit)
            try:
                async for item in items:
                    if config is not None or is_users(item):
                        yield item
            finally:  # or a reader who leaves early goes on holding the saver's lock
                if hasattr(items, "aclose"):
                    await items.aclose()

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        run_id = _run(config, metadata)
        with self._gate.saving(_thread(config)), self._able("put"):
            placed = self._inner.put(config, checkpoint, _of_run(metadata, run_id), new_versions)
        self._bound(config, checkpoint, metadata, run_id)
        return placed

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        run_id = _run(config, metadata)
        with self._gate.saving(_thread(config)), self._able("aput"):
            placed = await self._inner.aput(config, checkpoint, _of_run(metadata, run_id), new_versions)
        self._bound(config, checkpoint, metadata, run_id)
        return placed

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        with self._gate.saving(_thread(config)), self._able("put_writes"):
            write = self._inner.put_writes
            write(*taken_by(write, config, writes, task_id, task_path))

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        with self._gate.saving(_thread(config)), self._able("aput_writes"):
            write = self._inner.aput_writes
            await write(*taken_by(write, config, writes, task_id, task_path))

    def get_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, Any]:
        with self._able("get_delta_channel_history"):
            return self._inner.get_delta_channel_history(config=config, channels=channels)

    async def aget_delta_channel_history(self, *, config: RunnableConfig, channels: Sequence[str]) -> Mapping[str, Any]:
        with self._able("aget_delta_channel_history"):
            return await self._inner.aget_delta_channel_history(config=config, channels=channels)

    def delete_thread(self, thread_id: str) -> None:
        with self._able("delete_thread"):
            run(self._deleting(str(thread_id)), self._inner)

    async def adelete_thread(self, thread_id: str) -> None:
        with self._able("adelete_thread"):
            await arun(self._deleting(str(thread_id)), self._inner)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Drops all checkpoints but the newest of each namespace, or with `delete` the threads.

        Older ones stay if the newest is rebuilt from them, as one with a DeltaChannel is; what a sub-graph's call has
        saved goes with the checkpoint that called it. Unknown threads are passed over. Raises BadEdit at an unknown
        strategy, Busy at a thread in use.
        """
        with self._able("prune"):
            run(self._pruning(thread_ids, strategy, own=self._has("prune")), self._inner)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """As `prune`."""
        with self._able("aprune"):
            await arun(self._pruning(thread_ids, strategy, own=self._has("aprune")), self._inner)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Drops what these runs have saved, except for what another run's checkpoint is rebuilt from."""
        with self._able("delete_for_runs"):
            run(self._forgetting(run_ids, own=self._has("delete_for_runs")), self._inner)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """As `delete_for_runs`."""
        with self._able("adelete_for_runs"):
            await arun(self._forgetting(run_ids, own=self._has("adelete_for_runs")), self._inner)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copies all checkpoints with their ids, parents and writes onto a new thread; raises BadEdit at any other."""
        with self._able("copy_thread"):
            run(self._copying(source_thread_id, target_thread_id, own=self._has("copy_thread")), self._inner)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """As `copy_thread`."""
        with self._able("acopy_thread"):
            await arun(self._copying(source_thread_id, target_thread_id, own=self._has("acopy_thread")), self._inner)

    def _deleting(self, thread: str) -> Edit[None]:
        with self._gate.saving(thread):
            yield from deleted(thread)
        self._tell("dropped", thread, None)

    def _pruning(self, threads: Sequence[str], strategy: str, *, own: bool) -> Edit[None]:
        threads = _several(threads, "threads")
        if own:
            with suppress(NotImplementedError):  # not even its own: PostgresSaver refuses threads with a DeltaChannel
                yield from self._watching(threads, Call("prune", (threads,), {"strategy": strategy}))
                return
        if strategy not in ("keep_latest", "delete"):
            raise BadEdit(f"found the strategy {strategy!r}, expected 'keep_latest' or 'delete'")
        for thread in threads:
            yield from self._deleting(thread) if strategy == "delete" else self._leaving(thread, latest)

    def _forgetting(self, runs: Sequence[str], *, own: bool) -> Edit[None]:
        runs = _several(runs, "runs")
        threads = (yield from touched_by(runs)) if self._listeners or not own else ()
        if own:
            yield from self._watching(threads, Call("delete_for_runs", (runs,), {}))
            return
        for thread in threads:
            yield from self._leaving(thread, without(runs))

    def _copying(self, source: str, target: str, *, own: bool) -> Edit[None]:
        if source == target:
            raise BadEdit(f"thread {source!r} cannot be copied onto itself; name another target")
        with self._gate.editing(target), self._gate.saving(source):
            if own:
                yield Call("copy_thread", (source, target), {})
            else:
                yield from copied(source, target)
        note_copy(self._inner, source, target)
        self._tell("copied", source, target)

    def _leaving(self, thread: str, keeping: Keeping) -> Edit[None]:
        with self._gate.editing(thread):
            gone = yield from rewritten(thread, keeping)
        if gone is None or gone:
            self._tell("dropped", thread, gone)

    def _watching(self, threads: Sequence[str], call: Call) -> Edit[None]:
        """Makes a call that the saver has itself, and tells what it dropped."""
        before = {}
        for thread in threads if self._listeners else ():
            before[thread] = yield from pairs(thread)
        yield call
        for thread, had in before.items():
            left = yield from pairs(thread)
            if gone := had - left:
                self._tell("dropped", thread, gone if left else None)

    def _has(self, name: str) -> bool:  # a call that the base only names
        return getattr(type(self._inner), name, None) is not getattr(BaseCheckpointSaver, name, None)

    def _mend(self, thread: str) -> bool:
        if not run(cut_off(thread), self._inner):
            return False
        with self._gate.editing(thread):
            run(mended(thread), self._inner)
        return True

    async def _amend(self, thread: str) -> bool:
        if not await arun(cut_off(thread), self._inner):
            return False
        with self._gate.editing(thread):
            await arun(mended(thread), self._inner)
        return True

    def _bound(
        self, config: RunnableConfig, checkpoint: Checkpoint, metadata: CheckpointMetadata, run_id: str | None
    ) -> None:
        place = config["configurable"]
        where = (_thread(config), place.get("checkpoint_ns", ""), checkpoint["id"], place.get("checkpoint_id"))
        self._tell("bound", *where, step=metadata.get("step", 0), source=metadata.get("source", ""), run=run_id)

    def _opened(self, config: RunnableConfig, found: CheckpointTuple | None) -> None:
        place = config["configurable"]
        wanted, namespace = place.get("checkpoint_id"), place.get("checkpoint_ns", "")
        if found is not None and wanted:
            self._tell("opened", _thread(config), namespace, found.checkpoint["id"])
        elif wanted and not namespace and self._strict:  # a sub-graph may have had none at that moment
            raise UnknownCheckpoint(f"thread {_thread(config)!r} has no checkpoint {wanted!r}: see get_state_history")

    def _tell(self, what: str, *arguments: Any, **told: Any) -> None:
        tell(self._listeners, what, *arguments, **told)

    @contextmanager
    def _able(self, call: str) -> Iterator[None]:
        """Says what to do about a call that `inner` lacks."""
        try:
            yield
        except NotImplementedError as error:
            *_, last = walk_tb(error.__traceback__)
            if last[0].f_code.co_name not in vars(BaseCheckpointSaver):
                raise  # not a saver's call, but something below it
            awaited = call.startswith("a")
            raise SaverUnable(
                f"{type(self._inner).__name__} has no {'asynchronous' if awaited else 'synchronous'} calls, and {call} "
                f"is made of them; run the graph with {'invoke or stream' if awaited else 'ainvoke or astream'}, "
                "or bind a saver that has them: SqliteSaver and PostgresSaver have the synchronous ones, "
                "AsyncSqliteSaver and AsyncPostgresSaver the asynchronous, InMemorySaver both"
            ) from error


def _thread(config: RunnableConfig) -> str:
    return str(config["configurable"]["thread_id"])


def _run(config: RunnableConfig, metadata: CheckpointMetadata) -> str | None:
    """The run that saves, if the caller named it, in its metadata or as the run's id."""
    settings: Mapping[str, Any] = config["configurable"]
    told: tuple[Mapping[str, Any], ...] = (metadata, config.get("metadata", {}), settings, config)
    for each in told:
        if each.get("run_id"):
            return str(each["run_id"])
    above = getattr(settings.get("__pregel_runtime"), "execution_info", None)  # in a sub-graph
    found = getattr(above, "run_id", None)
    return None if found is None else str(found)


def _of_run(metadata: CheckpointMetadata, run_id: str | None) -> CheckpointMetadata:
    return metadata if run_id is None or "run_id" in metadata else {**metadata, "run_id": run_id}


def _several(names: Sequence[str], what: str) -> Sequence[str]:
    if isinstance(names, str):
        raise BadEdit(f"found the string {names!r}, expected a sequence of {what}, like [{names!r}]")
    return [str(each) for each in names]
