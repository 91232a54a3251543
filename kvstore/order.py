"""Which cached page goes first: what an eviction order may look at, and the heap that carries it out."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .hashes import BlockHash
from .ranges import DEFAULT_PRIORITY
from .snapshot import PageId

_NAMELESS = BlockHash(b"")


@dataclass(frozen=True, slots=True)
class Cached:
    """What an eviction order may look at: a page that nobody holds any more."""

    page: PageId
    depth: int
    """How many pages come before it in its context."""
    used: int
    """The number of the release that let it go: later is larger. All pages of one release share it."""
    stale: bool
    """Its conversation is closed, or went on without it."""
    priority: int = DEFAULT_PRIORITY
    """0 to 100; the highest that anybody claims for it now."""
    reach: int = 0
    """Tokens of the longest context, from its beginning, with which it was ever released."""
    name: BlockHash = _NAMELESS
    """Of an unfinished block too: the same function over fewer tokens."""
    floor: float = 0.0
    """The largest first part of a rank that was evicted before this page's release; 0 before any."""


Rank = Callable[[Cached], tuple[float, ...]]
"""An eviction order: the page with the smallest rank goes first. It is asked when a page is released or touched, so
a rank must not depend on the present time."""


def oldest_first(page: Cached) -> tuple[float, ...]:
    """Least recently used first; inside one release the end of a context goes before its beginning."""
    return (page.used, -page.depth)


class Order:
    """Cached pages, the one of the smallest rank first; equal ranks in the order in which they came.

    Lazy: what leaves or changes stays in the heap until it comes up or until three quarters are of that kind. Entering
    costs O(log n), leaving O(1), popping O(log n), all amortised. `changed` asks for the rank of one page, no other.
    """

    def __init__(self, rank: Rank) -> None:
        self.rank = rank
        self.floor = 0.0
        self._live: dict[int, Cached] = {}
        self._heap: list[tuple[tuple[float, ...], int, Cached]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, page: int) -> bool:
        return page in self._live

    def __iter__(self) -> Iterator[int]:
        return iter(self._live)

    def __getitem__(self, page: int) -> Cached:
        return self._live[page]

    def put(self, cached: Cached) -> None:
        """A page enters, or takes another place."""
        self._live[cached.page] = cached
        self._count += 1
        heapq.heappush(self._heap, (self.rank(cached), self._count, cached))
        if len(self._heap) > 4 * len(self._live) + 64:
            self._heap = [entry for entry in self._heap if self._live.get(entry[2].page) is entry[2]]
            heapq.heapify(self._heap)

    def changed(self, page: int, *, priority: int | None = None, stale: bool | None = None) -> bool:
        """Something about a page is otherwise now; False if it is not cached."""
        cached = self._live.get(page)
        if cached is None:
            return False
        priority = cached.priority if priority is None else priority
        stale = cached.stale if stale is None else stale
        if (priority, stale) != (cached.priority, cached.stale):
            self.put(replace(cached, priority=priority, stale=stale))
        return True

    def remove(self, page: int) -> Cached:
        """A page is out of reach; KeyError if it was before."""
        return self._live.pop(page)

    def pop(self) -> PageId:
        """The page to evict; IndexError if there is none."""
        while True:
            rank, _, cached = heapq.heappop(self._heap)
            if self._live.get(cached.page) is cached:
                del self._live[cached.page]
                self.floor = max(self.floor, rank[0])
                return cached.page
