"""A prefix of a context, and a lease that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType, Protocol

from .ranges import Range

PageId = NewType("PageId", int)
"""Where a block lies on the device."""


class Prefix(Protocol):
    """The beginning of a context: its tokens, and the pages in which their keys and values lie."""

    @property
    def tokens(self) -> tuple[int, ...]: ...
    @property
    def pages(self) -> tuple[PageId, ...]: ...


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms a prefix is held, besides its end."""

    caps: Mapping[str, int] = field(default_factory=dict)
    """The groups that a lease counts in, and how many distinct pages all leases of each may hold together."""
    ranges: tuple[Range, ...] = ()
    """What its tokens are worth to the order of eviction once they are not held; the first that fits counts."""


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
    terms: Terms = Terms()
    number: int = 0
    """Leases are numbered as they are made; a later one under the same key has another number."""
