"""A folder of blocks and named snapshots, for threads and tools: what the disk tier does, without an event loop."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import hashes
from ..errors import Incomplete, TierFull, TierGone
from ..hashes import BlockHash
from ..parked import Parked
from ..seal import Veiled
from .base import chunks
from .folder import MARKS, SEGMENTS, Folder
from .log import SEGMENT, Freed, Log, Place
from .marks import Mark, Marks

_TRIES = 5


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` read, and what it found."""

    blocks: int
    bytes: int
    """Of all records that were read."""
    marks: int
    faults: tuple[str, ...]
    """Each damaged stretch, record or snapshot, with where it lies and why."""
    unfinished: int
    """Bytes of a write that a crash cut off; the next writer removes them. They were never acknowledged."""


class Store:
    """Blocks in a log, snapshots in files beside it. What a snapshot needs is neither dropped nor collected."""

    def __init__(self, path: Path, *, write: bool = True, segment: int = SEGMENT) -> None:
        """Opens what lies in `path`; a writer makes it where there is nothing.

        Raises BadStore, TierLocked and OSError. A reader needs no lock and sees the tier as it is now.
        """
        self.path = path
        self.write = write
        self._folder = Folder(path, write=write)
        self._keeping = threading.Lock()  # between finding that blocks are there and having a snapshot that needs them
        self._unwanted: set[BlockHash] = set()
        try:
            self.log = _opened(path / SEGMENTS, write, segment)
            self.marks = Marks(path / MARKS)
        except BaseException:
            self._folder.close()
            raise

    def drop(self, names: Iterable[BlockHash]) -> None:
        """Forget blocks; those that a snapshot needs stay until it is forgotten."""
        self.ready(write=True)
        with self._keeping:
            wanted = list(names)
            spared = {name for name in wanted if self.marks.needs(name)}
            self._unwanted |= spared
            self.log.drop(name for name in wanted if name not in spared)

    def want(self, names: Iterable[BlockHash]) -> None:
        """Blocks were put again: a drop that waits for their snapshot no longer counts."""
        with self._keeping:
            self._unwanted.difference_update(names)

    def keep(self, key: str, parked: Parked) -> None:
        """Keep a snapshot under a key, in place of what the key had; it is durable when this returns.

        Raises Incomplete where a block is not here with the tokens and the seal that the snapshot has, TierFull, and
        BadRecord where its names do not follow from its tokens.
        """
        self.ready(write=True)
        blocks = parked.blocks()
        digests = {seal: seal.digest for seal in {own for _, own in blocks}}
        with self._keeping:
            missing = 0
            for link, own in blocks:
                head, wanted = self.log.head(link.name), (link.parent, link.tokens, digests[own])
                missing += head is None or (head.parent, head.tokens, head.seal) != wanted
            if missing:
                raise Incomplete(key, missing, len(blocks))
            self.log.sync()
            try:
                gone = self.marks.write(key, parked)
            except OSError as error:
                raise TierFull(f"snapshot {key!r} could not be written to {self.path}: {error}") from error
            self._release(gone)

    def forget(self, tenant: Veiled, key: str) -> None:
        """Let a snapshot go; an unknown one is harmless."""
        self.ready(write=True)
        with self._keeping:
            self._release(self.marks.remove(tenant, key))

    def find(self, tenant: Veiled, key: str) -> Mark | None:
        """A tenant's snapshot, checked for damage. Raises BadRecord."""
        self.ready()
        with self._keeping:
            return self.marks.read(tenant, key)

    def verify(self) -> Report:
        """Read everything and compare every checksum and name. It changes nothing on the disk."""
        faults = [
            f"segment {each.segment:08d}, bytes {each.start} to {each.start + each.length}: {each.what}"
            for each in self.log.damage
            if not each.unfinished
        ]
        places = {place.head.name: place for place in self.log.find(head.name for head in self.log.heads())}
        good: set[BlockHash] = set()
        for run in chunks((name, place.head.size) for name, place in places.items()):
            good |= set(self.log.read([places[name] for name in run]))
        faults += [_where(place) + ": damaged" for name, place in places.items() if name not in good]
        faults += [
            _where(place) + ": its name does not follow from its parent and tokens"
            for name, place in places.items()
            if name in good and hashes.name(place.head.parent, place.head.tokens) != name
        ]
        marks = self.marks.all()
        for mark in marks:
            lost = sum(name not in good for name in mark.parked.names)
            if lost:
                faults.append(f"snapshot {mark.key!r}: {lost} of {len(mark.parked.names)} blocks cannot be read")
        faults += [f"snapshot file {file}: {why}" for file, why in sorted(self.marks.bad.items())]
        unfinished = sum(each.length for each in self.log.damage if each.unfinished)
        size = sum(place.head.size for place in places.values())
        return Report(len(places), size, len(marks), tuple(faults), unfinished)

    def gc(self, least: float = 0.0) -> Iterator[Freed]:
        """Rewrite each segment of which more than the share `least` is garbage; one answer a segment.

        It may be left off after any of them. Raises TierFull where there is no room for the copies.
        """
        self.ready(write=True)
        for number in self.log.garbage(least):
            yield self.log.rewrite(number)

    def unmarked(self) -> list[BlockHash]:
        """Blocks that no snapshot needs: contexts that somebody may come back to, and that can be computed anew."""
        self.ready()
        return [head.name for head in self.log.heads() if not self.marks.needs(head.name)]

    def ready(self, *, write: bool = False) -> None:
        """Raise TierGone unless the store is open and, if asked, open for writing."""
        if self._folder.closed:
            raise TierGone(f"the tier at {self.path} is closed")
        if write and not self.write:
            raise TierGone(f"the tier at {self.path} was opened for reading only")

    def close(self) -> None:
        """Let another process write. Closing twice is harmless."""
        if not self._folder.closed:
            self.log.close()
            self._folder.close()

    def _release(self, names: Iterable[BlockHash]) -> None:
        """Drop what was to be dropped while a snapshot needed it."""
        gone = [name for name in names if name in self._unwanted]
        self._unwanted.difference_update(gone)
        self.log.drop(gone)


def _opened(folder: Path, write: bool, segment: int) -> Log:
    # A reader may meet a segment that a writer's gc removes before it is opened; then it looks again.
    for _ in range(0 if write else _TRIES):
        with suppress(FileNotFoundError):
            return Log(folder, write=write, segment=segment)
    return Log(folder, write=write, segment=segment)


def _where(place: Place) -> str:
    return f"block {place.head.name.hex()} in segment {place.segment.number:08d} at {place.at}"
