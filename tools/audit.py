"""A log that cannot be changed unseen: every record is sealed with a key, and names the one before it.

A record is one line of JSON, sealed by HMAC-SHA-256 over its very bytes. So each can be checked by itself, what was
changed is told from what was dropped or moved, and each is found. That records are missing at the end shows only
against what was noted elsewhere: in the head beside the log, and in anchors wherever an operator puts them.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .grants_names import canonical

FORMAT = 1
START = "0" * 64
"""What the first record names as the one before it."""
_MAC = b',"mac":"'
_TAIL = len(_MAC) + 64 + len(b'"}')


@dataclass(frozen=True, slots=True)
class Anchor:
    """How far a log had come: its name, the number and the seal of its last record."""

    log: str
    n: int
    mac: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was written."""

    line: int
    """From 1; the one after the last where something is missing at the end."""
    kind: Literal["changed", "missing", "moved", "foreign", "cut off", "unreadable"]
    what: str


@dataclass(frozen=True, slots=True)
class Audited:
    """What was found in a log."""

    log: str
    records: int
    """Those that are whole and where they belong."""
    faults: tuple[Fault, ...]
    note: str
    """What is no fault, and worth knowing."""
    last: Anchor
    size: int
    """Bytes up to the end of the last finished line."""


def sealed(n: int, body: Mapping[str, Any], before: str, key: bytes) -> tuple[bytes, str]:
    """A record as a line, and its seal. Raises ValueError for what is no JSON."""
    text = canonical({**body, "n": n, "prev": before}).encode()[:-1]
    mac = hmac.new(key, text, "sha256").hexdigest()
    return text + _MAC + mac.encode() + b'"}\n', mac


def anchored(anchor: Anchor, key: bytes) -> bytes:
    """An anchor as a line of JSON, sealed like a record."""
    return sealed(anchor.n, {"log": anchor.log, "at": anchor.mac}, START, _other(key))[0]


def read_anchor(line: bytes, key: bytes) -> Anchor | None:
    """The anchor that `anchored` wrote; None for anything else."""
    told = _opened(line.rstrip(b"\n"), _other(key))
    if told is None:
        return None
    return Anchor(str(told["log"]), int(told["n"]), str(told["at"]))


def verified(lines: Iterable[bytes], key: bytes, anchors: Sequence[Anchor]) -> Audited:
    """Reads a log from its beginning to its end and says of everything that is wrong where it is.

    `anchors` are heads and others that were noted of it. With none, what is missing at the end stays unseen, and that
    is a fault too.
    """
    walk = _Walk(key, {anchor.n: anchor for anchor in anchors})
    for number, line in enumerate(lines, 1):
        walk.take(number, line)
    return walk.end()


class _Walk:
    """From record to record."""

    def __init__(self, key: bytes, anchors: dict[int, Anchor]) -> None:
        self._key = key
        self._anchors = anchors
        self._faults: list[Fault] = []
        self._log = ""
        self._before = START
        self._next = 0
        self._whole = 0
        self._line = 0
        self._torn = 0
        self._size = 0

    def take(self, number: int, line: bytes) -> None:
        self._line = number
        if not line.endswith(b"\n"):
            self._torn = len(line)
            return
        self._size += len(line)
        told = _opened(line[:-1], self._key)
        if told is None:
            self._fault("changed", f"record {self._next} is not as it was written")
            self._next += 1
            self._before = ""  # not known: the next record says what it was
            return
        n, before = told["n"], told["prev"]
        if n == 0:
            self._log = str(told.get("log", ""))
        if n > self._next:
            self._fault("missing", f"{_records(self._next, n - 1)} should stand before this one")
        elif n < self._next:
            self._fault("moved", f"record {n} stands here a second time or too late, where {self._next} should")
            return
        elif self._before and before != self._before:
            self._fault("foreign", f"record {n} does not belong behind the one before it")
        else:
            self._whole += 1
        anchor = self._anchors.get(n)
        if anchor is not None and not hmac.compare_digest(anchor.mac, told["mac"]):
            self._fault("foreign", f"record {n} is another one than the anchor names")
        self._next, self._before = n + 1, told["mac"]

    def end(self) -> Audited:
        self._line += 0 if self._torn else 1
        farthest = max(self._anchors, default=-1)
        note = ""
        if not self._anchors:
            self._fault("missing", "there is no head: whether records are missing here cannot be told")
        elif farthest >= self._next:
            kind: Literal["cut off", "missing"] = "cut off" if self._torn else "missing"
            self._fault(kind, f"{_records(self._next, farthest)} were written and are not here")
        elif self._torn:
            note = f"the last {self._torn} bytes are a record that was never finished, so nothing was done under it"
        if foreign := sorted({each.log for each in self._anchors.values()} - {self._log}):
            self._fault("foreign", f"this is the log {self._log!r}, and the anchors are of {', '.join(foreign)}")
        last = Anchor(self._log, self._next - 1, self._before)
        return Audited(self._log, self._whole, tuple(self._faults), note, last, self._size)

    def _fault(self, kind: Any, what: str) -> None:
        self._faults.append(Fault(self._line, kind, what))


def _opened(line: bytes, key: bytes) -> dict[str, Any] | None:
    """A record whose seal is whole, and the seal with it; None for anything else."""
    text, tail = line[:-_TAIL], line[-_TAIL:]
    if not (tail.startswith(_MAC) and tail.endswith(b'"}')):
        return None
    mac = tail[len(_MAC) : -2]
    if not hmac.compare_digest(hmac.new(key, text, "sha256").hexdigest().encode(), mac):
        return None
    # What is sealed was written here: its form need not be doubted.
    told: dict[str, Any] = json.loads(line)
    return told


def _other(key: bytes) -> bytes:
    """The key of anchors: no anchor passes for a record."""
    return hmac.new(key, b"anchor", "sha256").digest()


def _records(first: int, last: int) -> str:
    return f"record {first}" if first == last else f"records {first} to {last}"
