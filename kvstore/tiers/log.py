"""Records in append-only segments, and where each lies: written once, synced in groups, found again after a crash.

A name's last record is the one served. A tombstone says that a name was dropped. Nothing is changed in place, so a
process that is killed leaves at most one unfinished record, at the end, and the next writer cuts it off.

Any thread may call any method. `_writing` orders what goes into files; `_books` is held only while the index is read
or changed, so that reading does not wait for the disk. `_collecting` and `_syncing` let one thread at a time do that.
Whoever needs several takes them in this order: `_collecting`, `_syncing`, `_writing`, `_books`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import BadRecord, BadStore, TierFull, TierGone
from ..hashes import BlockHash
from ..record import Buffer, Head, aligned, peek, tombstone, unpack
from .folder import sync_folder
from .segment import Damage, Segment

SEGMENT = 512 << 20
"""Bytes after which a new segment is begun; each is one open file."""

_RUN = 8 << 20  # bytes read at once where records lie one after the other


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record lies, and what its head says."""

    segment: Segment
    at: int
    head: Head

    @property
    def end(self) -> int:
        return aligned(self.at + self.head.size)


@dataclass(frozen=True, slots=True)
class Freed:
    """What `gc` did."""

    bytes: int = 0
    """By how much the files are smaller."""
    segments: int = 0
    """Files that went."""
    bad: int = 0
    """Damaged records that were met and left behind."""

    def __add__(self, other: Freed) -> Freed:
        return Freed(self.bytes + other.bytes, self.segments + other.segments, self.bad + other.bad)


class Log:
    """The segments of one folder.

    Invariant: every place in the index was read or written as a whole record with an undamaged head.
    """

    def __init__(self, folder: Path, *, write: bool, segment: int = SEGMENT) -> None:
        """Walks all heads. A writer cuts off what a crash left unfinished at the end, and settles with its first `sync`
        what it has found: an earlier one may have been killed before that. Raises OSError, and BadStore for a file
        that is no segment."""
        self.damage: list[Damage] = []
        """Stretches that could not be read when the log was opened."""
        self.bad = 0
        """Damaged records that were met since."""
        self._folder = folder
        self._write = write
        self._limit = segment
        self._index: dict[BlockHash, Place] = {}
        self._segments: dict[int, Segment] = {}
        self._writing = threading.RLock()
        self._syncing = threading.Lock()
        self._collecting = threading.Lock()
        self._books = threading.Lock()
        self._unsynced: dict[int, Segment] = {}
        self._fault: str | None = None
        paths = sorted(folder.glob("*.seg"), key=_number)
        for path in paths:
            self._replay(Segment(path, write=write and path == paths[-1]), last=path == paths[-1])

    # -- looking

    def heads(self) -> list[Head]:
        """Of all records that are served."""
        with self._books:
            return [place.head for place in self._index.values()]

    def find(self, names: Iterable[BlockHash]) -> list[Place]:
        """Where those that are here lie, in the order in which they are read fastest."""
        with self._books:
            places = [place for name in dict.fromkeys(names) if (place := self._index.get(name)) is not None]
        return sorted(places, key=lambda place: (place.segment.number, place.at))

    def has(self, head: Head) -> bool:
        """Is a record with exactly this head, its checksums too, the one served?"""
        with self._books:
            place = self._index.get(head.name)
        return place is not None and place.head == head

    def head(self, name: BlockHash) -> Head | None:
        """Of the record served under a name."""
        with self._books:
            place = self._index.get(name)
        return None if place is None else place.head

    @property
    def size(self) -> tuple[int, int, int]:
        """How many segments there are, their bytes, and those of records that are served."""
        with self._books:
            held = list(self._segments.values())
        return len(held), sum(each.size for each in held), sum(each.live for each in held)

    @property
    def bloated(self) -> bool:
        """Do the files take more than twice what is served, and an eighth of a segment besides?"""
        _, size, live = self.size
        return size > 2 * live + self._limit // 8

    def read(self, places: Sequence[Place]) -> dict[BlockHash, memoryview]:
        """Records, verified, as views of what was read. A damaged one is left out, forgotten and counted."""
        found: dict[BlockHash, memoryview] = {}
        for run in _runs(places):
            start = run[0].at
            try:
                data = run[0].segment.load(start, run[-1].end - start)
            except OSError:
                data = memoryview(b"")
            for place in run:
                record = data[place.at - start : place.at - start + place.head.size]
                try:
                    block = unpack(record)
                except BadRecord:
                    block = None
                if block is None or block.name != place.head.name:
                    self._lose(place)
                else:
                    found[block.name] = record
        return found

    # -- changing

    def append(self, records: Mapping[BlockHash, Buffer], heads: Mapping[BlockHash, Head]) -> int:
        """Write records that are not here yet; returns how many. They are durable after the next `sync`.

        Raises TierFull; what was written before it stays.
        """
        count = 0
        for name, data in records.items():
            with self._writing:
                if not self.has(heads[name]):
                    self._append(heads[name], data)
                    count += 1
        return count

    def sync(self) -> None:
        """Returns when all that was appended before is durable. One call to the disk serves all who wait for it.

        Raises TierGone where the disk failed: what it has lost is unknown, so nothing more is written.
        """
        with self._syncing:
            with self._writing:
                pending, self._unsynced = self._unsynced, {}
            try:
                for segment in pending.values():
                    segment.sync()
            except OSError as error:
                self._fault = f"{segment.path} could not be written ({error}): restart on a disk that works"
            self._usable()

    def drop(self, names: Iterable[BlockHash]) -> None:
        """Forget names. After a crash some may be back, which is harmless: names are content."""
        for name in names:
            with self._writing:
                if name in self._index:
                    self._grave(name)

    def garbage(self, least: float = 0.0) -> list[int]:
        """Segments of which more than the share `least` is no longer served, the oldest first."""
        with self._books:
            held = sorted(self._segments.items())
        return [number for number, each in held if each.size - each.live > least * each.size]

    def rewrite(self, number: int) -> Freed:
        """Copy what is served out of a segment, make that durable, then remove the segment.

        A crash before the end leaves both copies, of which the later is served. Segments must be rewritten oldest
        first: a tombstone is carried along only where an older segment still has what it buries.
        """
        with self._collecting:
            return self._rewrite(number)

    def close(self) -> None:
        """Let go of all files; those that are being read are closed when that ends."""
        with self._writing, self._books:
            self._fault = self._fault or f"the tier at {self._folder.parent} is closed"
            self._index.clear()
            self._segments.clear()
            self._unsynced.clear()

    # -- private

    def _rewrite(self, number: int) -> Freed:
        with self._writing:
            self._usable()
            segment = self._segments.get(number)
            if segment is None:  # somebody else did it meanwhile
                return Freed()
            if segment is self._active():
                self._begin()
            with self._books:
                places = [place for place in self._index.values() if place.segment is segment]
        moved = bad = 0
        for place in sorted(places, key=lambda place: place.at):
            record = self.read((place,)).get(place.head.name)
            bad += record is None
            with self._writing:
                if record is not None and self._index.get(place.head.name) is place:
                    self._append(place.head, record)
                    moved += place.end - place.at
        for found in segment.walk():
            if not isinstance(found, Damage) and found[1].dead:
                moved += self._carry(found[1], number)
        self.sync()
        with self._writing, self._books:
            self._usable()
            del self._segments[number]
            segment.path.unlink()
        sync_folder(self._folder)
        return Freed(segment.size - moved, 1, bad)

    def _replay(self, segment: Segment, *, last: bool) -> None:
        self._segments[segment.number] = segment
        if self._write:
            # It can be read, from memory perhaps: whether it is on the disk nobody knows.
            self._unsynced[segment.number] = segment
        end = 0
        for found in segment.walk():
            if isinstance(found, Damage):
                # Only the last segment can end in a write that was cut off: the others were whole when they were left.
                self.damage.append(replace(found, unfinished=found.unfinished and last))
                end = found.start if found.unfinished else found.start + found.length
                continue
            at, head = found
            place = Place(segment, at, head)
            old = self._index.pop(head.name, None)
            if old is not None:
                _bury(old)
            if not head.dead:
                self._enter(place)
            end = place.end
        if last and self._write:
            segment.cut(end)

    def _append(self, head: Head, data: Buffer) -> None:
        self._usable()
        segment = self._active()
        if segment is None or (segment.size and segment.size + len(data) > self._limit):
            segment = self._begin()
        place = Place(segment, segment.append(data), head)
        self._unsynced[segment.number] = segment
        with self._books:
            old = self._index.pop(head.name, None)
            if old is not None:
                _bury(old)
            if not head.dead:
                self._enter(place)

    def _grave(self, name: BlockHash) -> None:
        record = tombstone(name)
        try:
            self._append(peek(record), record)
        except TierFull:  # forgetting must work on a full disk; after a restart the block is back, and `gc` frees it
            with self._books:
                place = self._index.pop(name, None)
                if place is not None:
                    _bury(place)

    def _carry(self, grave: Head, number: int) -> int:
        """Write a tombstone of segment `number` again, if it is still needed; returns its bytes."""
        with self._writing:
            older = [each for each in self._segments.values() if each.number < number]
            if grave.name in self._index or not any(grave.name in each.dead for each in older):
                return 0
            self._grave(grave.name)
            return aligned(grave.size)

    def _enter(self, place: Place) -> None:
        self._index[place.head.name] = place
        place.segment.live += place.end - place.at

    def _lose(self, place: Place) -> None:
        with self._books:
            self.bad += 1
            if self._index.get(place.head.name) is place:
                del self._index[place.head.name]
                _bury(place)

    def _active(self) -> Segment | None:
        return self._segments[max(self._segments)] if self._segments else None

    def _begin(self) -> Segment:
        number = max(self._segments, default=0) + 1
        try:
            segment = Segment(self._folder / f"{number:08d}.seg", write=True, new=True)
        except OSError as error:
            raise TierFull(f"no new segment can be made in {self._folder}: {error}") from error
        with self._books:
            self._segments[number] = segment
        try:
            sync_folder(self._folder)
        except OSError as error:
            self._fault = f"{self._folder} could not be written ({error}): restart on a disk that works"
        self._usable()
        return segment

    def _usable(self) -> None:
        if self._fault is not None:
            raise TierGone(self._fault)


def _number(path: Path) -> int:
    if not path.stem.isdecimal() or path.is_dir():
        raise BadStore(f"{path} is no segment of a disk tier: move it elsewhere")
    return int(path.stem)


def _bury(place: Place) -> None:
    place.segment.live -= place.end - place.at
    place.segment.dead.add(place.head.name)


def _runs(places: Sequence[Place]) -> Iterator[list[Place]]:
    """Places that lie one after the other, together."""
    run: list[Place] = []
    for place in places:
        if run and (place.segment is not run[0].segment or place.at != run[-1].end or place.end - run[0].at > _RUN):
            yield run
            run = []
        run.append(place)
    if run:
        yield run
