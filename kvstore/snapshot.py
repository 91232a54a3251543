"""An immutable prefix, and a lease that keeps it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NewType

from .hashes import BlockHash

PageId = NewType("PageId", int)
"""Where a block lies on the device."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A prefix that does not change: its tokens, and the pages that hold their keys and values.

    Whoever froze it has taken every page once, the unfinished last one too, so that going back computes nothing;
    it must be dropped (`Ledger.drop(snapshot.pages)`) when it is no longer wanted.
    """

    root: BlockHash
    tokens: tuple[int, ...]
    pages: tuple[PageId, ...]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, slots=True)
class Lease:
    """A hold on the record: who holds which prefix, and until when. Every lease has an end."""

    key: str
    """Who holds it. One lease a key: holding again replaces it, so its clock starts anew."""
    tokens: tuple[int, ...]
    """The tokens whose pages are held."""
    pages: tuple[PageId, ...]
    until: float
    """Seconds on the caller's clock; the ledger has none."""
    asked: int
    """Pages that were asked for; more than `pages` when the budget clipped the hold to its head."""
