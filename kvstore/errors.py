"""What can go wrong with blocks.

KVError
├── OutOfPages      more pages were asked for than are free or may be evicted
├── NotHeld         a page was given back more often than it was taken
├── NotAnAncestor   a branch was asked to roll back to where it never was
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
