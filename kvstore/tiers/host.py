"""Blocks in host memory: kept as they are given, gone with the process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from anyio import CapacityLimiter, to_thread

from ..errors import BadRecord, TierGone
from ..hashes import BlockHash
from ..record import Buffer, Head, unpack
from .base import Counts, Entry, chunks, entry, heads


class HostTier:
    """A Tier in this process. Buffers are kept, not copied: page-locked ones stay page-locked.

    It has no bound of its own: what should leave is the scheduler's to say.
    """

    def __init__(self, name: str = "host", *, verify: bool = True) -> None:
        """`verify=False` serves what lies here unread: as far to be believed as any memory of this process."""
        self.name = name
        self._verify = verify
        self.counts = Counts()
        self._heads: dict[BlockHash, Head] = {}
        self._records: dict[BlockHash, Buffer] = {}
        self._limiter = CapacityLimiter(2)
        self._closed = False

    @property
    def bytes(self) -> int:
        """Of all records that lie here."""
        return sum(head.size for head in self._heads.values())

    async def put(self, records: Mapping[BlockHash, Buffer]) -> None:
        """As Tier says; there is no await in it."""
        self._open()
        self._heads |= heads(records)
        self._records |= records
        self.counts.put += len(records)

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        """As Tier says. Checksums are computed in a thread, so that a large context does not stall the loop."""
        self._open()
        wanted = list(dict.fromkeys(names))
        here = {name: self._records[name] for name in wanted if name in self._records}
        self.counts.absent += len(wanted) - len(here)
        found: dict[BlockHash, memoryview] = {}
        if not self._verify:
            self.counts.served += len(here)
            return {name: memoryview(data).toreadonly() for name, data in here.items()}
        for run in chunks((name, len(data)) for name, data in here.items()):
            good = await to_thread.run_sync(_undamaged, {name: here[name] for name in run}, limiter=self._limiter)
            for name in set(run) - set(good):
                if self._records.get(name) is here[name]:
                    self._forget(name)
                self.counts.bad += 1
            found |= good
        self.counts.served += len(found)
        return found

    async def drop(self, names: Iterable[BlockHash]) -> None:
        """As Tier says; there is no await in it."""
        self._open()
        for name in names:
            self._forget(name)

    async def entries(self) -> Sequence[Entry]:
        """As Tier says."""
        self._open()
        return [entry(head) for head in self._heads.values()]

    async def aclose(self) -> None:
        """Let go of everything."""
        self._closed = True
        self._heads.clear()
        self._records.clear()

    def __repr__(self) -> str:
        return f"<HostTier {self.name} {len(self._records)} blocks, {self.bytes / 2**20:.1f} MiB>"

    def _forget(self, name: BlockHash) -> None:
        self._heads.pop(name, None)
        self._records.pop(name, None)

    def _open(self) -> None:
        if self._closed:
            raise TierGone(f"the tier {self.name} is closed")


def _undamaged(records: Mapping[BlockHash, Buffer]) -> dict[BlockHash, memoryview]:
    found = {}
    for name, data in records.items():
        try:
            unpack(data)
        except BadRecord:
            continue
        found[name] = memoryview(data).toreadonly()
    return found
