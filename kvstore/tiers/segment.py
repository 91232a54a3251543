"""One file of records: appended to, walked from its beginning, read by position."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadRecord, TierFull, TierGone
from ..record import ALIGN, FIXED, MAGIC, Buffer, Head, aligned, head_size, peek

_LOOK = 4096  # bytes read for a head: nearly always all of it
_SCAN = 1 << 20
_HUGE = 2 << 20  # bytes of a huge page, where there are any
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True, slots=True)
class Damage:
    """A stretch of a segment in which no record can be read."""

    segment: int
    start: int
    length: int
    what: str
    unfinished: bool
    """It reaches to the end of the segment: a write that was cut off, unless somebody damaged the last record."""


class Segment:
    """A file of records, each at a multiple of ALIGN. It is closed when nothing refers to it any more, so that a
    reader in another thread never meets a file that was closed, or reopened, under its hands.
    """

    def __init__(self, path: Path, *, write: bool = False, new: bool = False) -> None:
        self.path = path
        self.number = int(path.stem)
        flags = os.O_RDWR if write else os.O_RDONLY
        self._file = os.open(path, flags | (os.O_CREAT | os.O_EXCL if new else 0), 0o644)
        self.size = os.fstat(self._file).st_size
        """Where the next record goes, once `walk` and `cut` have found the end."""
        self.live = 0
        """Bytes of it that an index refers to."""
        self.dead: set[bytes] = set()
        """Names of which it holds a record that is no longer the one served."""

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)

    def walk(self) -> Iterator[tuple[int, Head] | Damage]:
        """Every record's position and head, and what lies between them that is none. Payloads are not read."""
        at = 0
        while at < self.size:
            head, fault = None, ""
            try:
                head = self._head(at)
            except BadRecord as error:
                fault = str(error)
            if head is not None and at + head.size <= self.size:
                yield at, head
                at = aligned(at + head.size)
                continue
            if head is not None:
                after = self.size
                fault = f"a record was cut off: {self.size - at} bytes are there, it has {head.size}"
            else:
                after = self._next(at + ALIGN)
            yield Damage(self.number, at, after - at, fault, after == self.size)
            at = after

    def cut(self, size: int) -> None:
        """Forget everything from `size` on."""
        if self.size != size or os.fstat(self._file).st_size != size:
            os.ftruncate(self._file, size)
            self.size = size

    def append(self, data: Buffer) -> int:
        """Write one record at the end; returns its position. Raises TierFull or TierGone, and leaves the end there."""
        at = self.size
        view = memoryview(data).cast("B")
        parts = [view, memoryview(bytes(aligned(len(view)) - len(view)))]
        end = at
        try:
            while parts:
                done = os.pwritev(self._file, parts, end)
                end += done
                while parts and done >= len(parts[0]):
                    done -= len(parts.pop(0))
                if parts:
                    parts[0] = parts[0][done:]
        except OSError as error:
            os.ftruncate(self._file, at)
            if error.errno in _FULL:
                raise TierFull(f"no room for {len(view)} bytes at {self.path}: {error.strerror}") from error
            raise TierGone(f"{self.path} could not be written ({error}): restart on a disk that works") from error
        self.size = end
        return at

    def read(self, at: int, length: int) -> bytes:
        """`length` bytes from `at`, fewer where the file ends. Raises OSError."""
        data = os.pread(self._file, length, at)
        if len(data) == length or not data:
            return data
        parts = [data]  # a system call moves at most 2 GiB, and fewer after a signal
        while data and (length := length - len(data)):
            at += len(data)
            data = os.pread(self._file, length, at)
            parts.append(data)
        return b"".join(parts)

    def load(self, at: int, length: int) -> memoryview:
        """As `read`, for megabytes: into memory of their own, which goes back when the last view of it does."""
        room, done = _room(length), 0
        while done < length and (count := os.preadv(self._file, [room[done:]], at + done)):
            done += count
        return room[:done].toreadonly()

    def sync(self) -> None:
        """Returns when everything that was appended is durable."""
        getattr(os, "fdatasync", os.fsync)(self._file)

    def _head(self, at: int) -> Head:
        data = self.read(at, _LOOK)
        size = head_size(data[:FIXED])
        return peek(data if len(data) >= size else self.read(at, size))

    def _next(self, at: int) -> int:
        """Where the next undamaged head lies at or after `at`; the end where there is none."""
        while at < self.size:
            data = self.read(at, _SCAN)
            if not data:
                break
            found = data.find(MAGIC)
            while found >= 0:
                if (at + found) % ALIGN == 0 and self._whole(at + found):
                    return at + found
                found = data.find(MAGIC, found + 1)
            at += _SCAN
        return self.size

    def _whole(self, at: int) -> bool:
        try:
            self._head(at)
        except BadRecord:
            return False
        return True


def _room(length: int) -> memoryview:
    # Fresh memory comes in pages that are made as they are first touched: in small ones that takes as long as the disk.
    if length < _HUGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return memoryview(bytearray(length))
    room = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    room.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(room)
