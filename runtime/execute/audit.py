"""The audit log as a file: one writer, a record after the other, and a head that says how far it came."""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...tools.audit import FORMAT, START, Anchor, Audited, anchored, read_anchor, sealed, verified
from ..errors import BrokenAudit
from .clock import Clock

LEAST_KEY = 16
EVERY = 256
"""Records between two anchors."""


def head_of(path: Path) -> Path:
    """Where a log's head stands: beside it."""
    return path.with_name(path.name + ".head")


def verify_file(path: Path, key: bytes, anchors: Path | None = None) -> Audited:
    """Reads a log and says of everything that is wrong where it is; `anchors` is a file of those noted elsewhere.

    Raises OSError for a file that cannot be read, BrokenAudit for a key or an anchor that is none.
    """
    noted: list[Anchor] = []
    head = head_of(path)
    if head.exists() and head.stat().st_size:
        noted.append(_read(head, 1, head.read_bytes(), key))
    if anchors is not None:
        with anchors.open("rb") as lines:
            noted += [_read(anchors, number, line, key) for number, line in enumerate(lines, 1)]
    with path.open("rb") as lines:
        return verified(lines, key, noted)


class Audit:
    """Appends to a log, new or begun; closing it is good manners, and a crash at any byte does no harm.

    What is appended is in the file when `append` returns; with `durable`, it is on the disk. `anchor` is told of the
    log's head now and then, to note it where whoever could change the file cannot.
    """

    def __init__(
        self,
        path: Path,
        key: bytes,
        *,
        durable: bool = False,
        anchor: Callable[[bytes], object] | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Raises BrokenAudit for a log that is not whole, or that another one writes to."""
        if len(key) < LEAST_KEY:
            raise BrokenAudit(f"an audit key of {len(key)} bytes: expected at least {LEAST_KEY} that nobody can guess")
        self.path = path
        self._key = key
        self._durable = durable
        self._anchor = anchor
        self._clock = clock or Clock()
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self._head = -1
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._head = os.open(head_of(path), os.O_RDWR | os.O_CREAT, 0o600)
            self._begin()
        except BlockingIOError:
            self._shut()
            raise BrokenAudit(f"{path} has a writer already: end that one, or write elsewhere") from None
        except BaseException:
            self._shut()
            raise

    def append(self, kind: str, body: Mapping[str, Any]) -> int:
        """Seals a record and writes it; its number. Raises BrokenAudit where that cannot be done."""
        with self._lock:
            return self._append(kind, body)

    def close(self) -> None:
        with self._lock:
            if self._file >= 0:
                self._append("closed", {})
                if self._anchor is not None:
                    self._anchor(self._note())
                self._shut()

    def __enter__(self) -> Audit:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> None:
        size = os.fstat(self._file).st_size
        self._log, self._next, self._before = secrets.token_hex(8), 0, START
        if not size and not os.fstat(self._head).st_size:
            self._append("opened", {"log": self._log, "format": FORMAT})
            return
        found = verify_file(self.path, self._key)
        if found.faults:
            first = found.faults[0]
            raise BrokenAudit(f"{self.path}, line {first.line}: {first.what}; keep it as it is and begin another log")
        self._log, self._next, self._before = found.log, found.last.n + 1, found.last.mac
        os.ftruncate(self._file, found.size)  # a write that a crash cut off was never said to be done
        self._append("continued", {"torn": size - found.size})

    def _append(self, kind: str, body: Mapping[str, Any]) -> int:
        if self._file < 0:
            raise BrokenAudit(f"{self.path} was closed")
        n = self._next
        line, mac = sealed(n, {**body, "kind": kind, "at": self._clock.wall()}, self._before, self._key)
        end = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError("it was written in part")
            if self._durable:
                os.fdatasync(self._file)
        except OSError as error:
            os.ftruncate(self._file, end)
            raise BrokenAudit(f"{self.path} could not be written ({error}); no call may go unrecorded") from error
        self._next, self._before = n + 1, mac
        os.pwrite(self._head, self._note(), 0)
        if self._anchor is not None and n % EVERY == EVERY - 1:
            self._anchor(self._note())
        return n

    def _note(self) -> bytes:
        return anchored(Anchor(self._log, self._next - 1, self._before), self._key)

    def _shut(self) -> None:
        for file in (self._file, self._head):
            if file >= 0:
                os.close(file)
        self._file = self._head = -1

    def __repr__(self) -> str:
        return f"<Audit {self.path.name} {self._next} records>"


def _read(path: Path, number: int, line: bytes, key: bytes) -> Anchor:
    anchor = read_anchor(line, key)
    if anchor is None:
        raise BrokenAudit(f"{path}, line {number} is no anchor made with this key: is it the right key?")
    return anchor
