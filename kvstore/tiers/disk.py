"""Blocks in files: append, fsync, index, recover. The asynchronous face of a Store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TypeVar, TypeVarTuple, Unpack

from anyio import CapacityLimiter, create_task_group, to_thread

from ..errors import TierFull
from ..hashes import BlockHash
from ..record import Buffer
from .base import Counts, Entry, chunks, entry, heads
from .log import SEGMENT, Freed, Place
from .store import Store

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")
_THREADS = 4
_READERS = 2
_CHUNK = 16 << 20
_AT_ONCE = 4
_GARBAGE = 0.5
"""Of a segment: what is copied then is less than what is won, so files stay within twice of what is served."""


class DiskTier:
    """A Tier in a folder. What `put` acknowledged is there after the process or the machine dies.

    Disk work runs in at most four threads of its own, in pieces of some MiB: between two of them it can be cancelled,
    within one it is finished first, so that no thread is ever left behind.
    """

    def __init__(self, store: Store, name: str = "disk") -> None:
        self.name = name
        self.store = store
        self._counts = Counts()
        self._limiter = CapacityLimiter(_THREADS)

    @classmethod
    def open(cls, path: Path, *, write: bool = True, segment: int = SEGMENT, name: str = "disk") -> DiskTier:
        """Opens or makes the tier in `path`; it reads the head of every record, in this thread.

        Raises BadStore where something else lies there, TierLocked, with the process's number, where another writer
        has it open, and OSError. Opening for reading only (`write=False`) takes no lock and makes nothing.
        """
        return cls(Store(path, write=write, segment=segment), name)

    @property
    def counts(self) -> Counts:
        """As Tier says."""
        self._counts.bad = self.store.log.bad
        return self._counts

    async def put(self, records: Mapping[BlockHash, Buffer]) -> None:
        """As Tier says: fsynced when it returns. Concurrent puts share one fsync.

        Also raises TierGone when the disk fails; nothing more can be written then until it is opened anew.
        """
        self.store.ready(write=True)
        found = heads(records)
        for run in chunks(((name, head.size) for name, head in found.items()), _CHUNK):
            part = {name: records[name] for name in run}
            self._counts.put += await self.work(self.store.log.append, part, found)
        await self.work(self._acknowledge, list(found))

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        """As Tier says. Neighbours on the disk are read together; the answers are views of what was read."""
        self.store.ready()
        wanted = list(dict.fromkeys(names))
        places = {place.head.name: place for place in self.store.log.find(wanted)}
        self._counts.absent += len(wanted) - len(places)
        runs = list(chunks(((name, place.head.size) for name, place in places.items()), _CHUNK))
        found: dict[BlockHash, memoryview] = {}

        async def read() -> None:
            while runs:
                run: list[Place] = [places[name] for name in runs.pop(0)]
                found.update(await self.work(self.store.log.read, run))

        async with create_task_group() as readers:
            for _ in range(min(_READERS, len(runs))):
                readers.start_soon(read)
        self._counts.served += len(found)
        return {name: found[name] for name in wanted if name in found}

    async def drop(self, names: Iterable[BlockHash]) -> None:
        """As Tier says. Blocks that a named snapshot needs stay; after a crash dropped ones may be back."""
        self.store.ready(write=True)
        await self.work(self.store.drop, list(names))
        await self.tidy()

    async def entries(self) -> Sequence[Entry]:
        """As Tier says."""
        self.store.ready()
        return await self.work(lambda: [entry(head) for head in self.store.log.heads()])

    async def gc(self, least: float = 0.25, *, most: int | None = None) -> Freed:
        """Rewrite segments of which more than the share `least` is garbage, at most so many; cancellable between two.

        Raises TierFull where there is no room for the copies.
        """
        freed = Freed()
        rewriting = islice(self.store.gc(least), most)
        while (one := await self.work(next, rewriting, None)) is not None:
            freed += one
        return freed

    async def tidy(self) -> None:
        """Make the files smaller if they have come to more than twice what is served, and some more besides.

        A few segments at a time, so that whoever waits for it does not wait for a whole disk.
        """
        if self.store.log.bloated:
            with suppress(TierFull):  # there is no room for copies: it is tried again when more has been dropped
                await self.gc(_GARBAGE, most=_AT_ONCE)

    async def work(self, do: Callable[[Unpack[_Ts]], _T], *what: *_Ts) -> _T:
        """Let one of this tier's own threads do something with its store; it is never left half done."""
        return await to_thread.run_sync(do, *what, limiter=self._limiter)

    async def aclose(self) -> None:
        """Let another process write. Everything acknowledged is durable already."""
        self.store.close()

    def __repr__(self) -> str:
        segments, size, live = self.store.log.size
        return f"<DiskTier {self.name} {live / 2**20:.1f} of {size / 2**20:.1f} MiB in {segments} segments>"

    def _acknowledge(self, names: list[BlockHash]) -> None:
        self.store.want(names)
        self.store.log.sync()
