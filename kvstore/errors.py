"""What can go wrong with blocks.

KVError
├── OutOfPages      more pages were asked for than are free or may be evicted
├── NotHeld         a page was given back more often than it was taken
├── NotAnAncestor   a branch was asked to roll back to where it never was
├── BadRecord       bytes that are no record or snapshot, not all of one, or not as they were written
├── Mismatch        whole and undamaged, but of another model, tenant or context: it says what differs
├── Incomplete      a snapshot was to be kept before its blocks were stored
├── BadStore        a folder in which no tier lies, or one of another format
├── TierLocked      another process writes to this tier
├── TierFull        the tier has no room; it is as it was before
├── TierGone        the tier cannot be reached or was closed: what lies there counts as lost
├── MalformedHint   a hint from outside that is not understood
└── BrokenBooks     an invariant does not hold: a defect of ours
"""

from __future__ import annotations


class KVError(Exception):
    """Any fault of the key-value store."""


class OutOfPages(KVError):
    """More pages were asked for than there are; the books are unchanged."""

    def __init__(self, asked: int, available: int) -> None:
        super().__init__(
            f"{asked} pages were asked for, {available} are free or may be evicted: "
            "release a hold, preempt a turn, or give the pool more pages"
        )
        self.asked = asked
        self.available = available


class NotHeld(KVError):
    """A page was given back more often than it was taken; the books are unchanged."""


class NotAnAncestor(KVError, ValueError):
    """A rollback names a place that is not behind the branch."""


class BrokenBooks(KVError, AssertionError):
    """An invariant of the ledger does not hold."""


class MalformedHint(KVError, ValueError):
    """A hint that is not understood: the message says what was found and what was expected. It changes nothing."""


class BadRecord(KVError, ValueError):
    """Bytes that are no record or snapshot, not all of one, or not as they were written."""


class Mismatch(KVError):
    """Undamaged bytes that belong to something else; they must not be read."""

    def __init__(self, what: str, differs: tuple[str, ...]) -> None:
        super().__init__(f"{what} is refused: {'; '.join(differs)}")
        self.what = what
        self.differs = differs


class Incomplete(KVError):
    """A snapshot was to be kept while blocks of it are not in its tier; nothing was kept."""

    def __init__(self, key: str, missing: int, blocks: int) -> None:
        super().__init__(f"snapshot {key!r} needs {blocks} blocks and {missing} are not in the tier: put them first")
        self.missing = missing
        self.blocks = blocks


class BadStore(KVError, ValueError):
    """A folder in which no tier lies, or one of another format; nothing in it was touched."""


class TierLocked(KVError):
    """Another process writes to this tier; there can be only one."""

    def __init__(self, where: str, pid: int | None) -> None:
        who = "another process" if pid is None else f"process {pid}"
        super().__init__(f"{who} writes to {where}: end it, open the tier for reading only, or give another folder")
        self.pid = pid


class TierFull(KVError):
    """A tier has no room for what was put; what lay there before is whole."""


class TierGone(KVError):
    """A tier cannot be reached or was closed. Its blocks count as lost; computing them again is always right."""
