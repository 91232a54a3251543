"""Who holds which page and what lies in it: plain bookkeeping, no tensors, no clock, no I/O.

Pages are the truth, names are an index over them. A page is in exactly one of three states:

    free    nobody holds it, nothing in it can be found
    cached  nobody holds it, its content can be found, it may be evicted
    taken   somebody holds it; it is never evicted

Equal content that was computed twice lies in two pages (twins), because putting one under a running sequence in
place of the other could change its bits. A partly filled page may be shared: whoever stands exactly at its fill may
append to it, everybody else copies (`claim`).

Cost: `match` is one hash per full block; everything else is constant or logarithmic per page touched.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from . import hashes
from .errors import BrokenBooks, NotHeld, OutOfPages
from .hashes import BlockHash
from .index import Content, Index
from .snapshot import Lease, PageId, Snapshot


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


Rank = Callable[[Cached], tuple[float, ...]]
"""An eviction order: the page with the smallest rank goes first."""


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known prefix of some tokens: whole pages, then a part of one more."""

    pages: tuple[PageId, ...]
    names: tuple[BlockHash, ...]
    tail: PageId | None
    tail_tokens: int

    def tokens(self, page: int) -> int:
        return len(self.pages) * page + self.tail_tokens


@dataclass(slots=True)
class _Page:
    refs: int = 0
    leases: int = 0
    fill: int = 0  # slots that somebody claimed, written or about to be
    stamp: int = 0  # changes whenever the page enters or leaves the cache, so that old heap entries are known


def oldest_first(page: Cached) -> tuple[float, ...]:
    """Least recently used first; inside one release the end of a context goes before its beginning."""
    return (page.used, -page.depth)


class Ledger:
    """The books of a pool of `room` pages of `page` tokens.

    Invariants (`check`): every page is free, cached or taken; a taken page is in nobody's reach; reference counts
    are never negative and equal the number of holders; what can be found under a name has that name's tokens.
    `repr` shows the state in one line and is what tests read.
    """

    def __init__(
        self,
        room: int,
        page: int,
        *,
        rank: Rank = oldest_first,
        name: Callable[[BlockHash, Sequence[int]], BlockHash] = hashes.name,
    ) -> None:
        if room < 1 or page < 1:
            raise ValueError(f"a pool needs at least one page of one token; found room={room}, page={page}")
        self.room = room
        self.page = page
        self.leases: dict[str, Lease] = {}
        self.evicted = 0
        self._rank = rank
        self._name = name
        self._pages = [_Page() for _ in range(room)]
        self._free = list(range(room - 1, -1, -1))
        self._cached = 0
        self._heap: list[tuple[tuple[float, ...], int, int]] = []
        self._index = Index()
        self._expiry: list[tuple[float, str]] = []
        self._held = 0
        self._clock = 0

    # -- looking

    @property
    def free(self) -> int:
        """Pages with nothing in them."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Pages that nobody holds, and that can still be found."""
        return self._cached

    @property
    def available(self) -> int:
        """Pages that `alloc` can give."""
        return len(self._free) + self._cached

    @property
    def held(self) -> int:
        """Distinct pages under a lease."""
        return self._held

    def refs(self, page: PageId) -> int:
        """How many holders a page has."""
        return self._pages[page].refs

    def idle(self, pages: Iterable[PageId]) -> int:
        """How many of these pages nobody holds: taking them lowers `available` by as much."""
        return sum(1 for page in pages if self._pages[page].refs == 0)

    def match(self, root: BlockHash, tokens: Sequence[int]) -> Match:
        """The longest computed prefix of `tokens` under `root`; takes nothing.

        Tokens are compared, names only lead to candidates: a collision is a miss, never a wrong answer. Inside the
        first block that is not wholly known, the page that shares most tokens is offered as `tail`.
        """
        pages: list[PageId] = []
        names: list[BlockHash] = []
        parent, size = root, self.page
        for start in range(0, len(tokens) - size + 1, size):
            block = tuple(tokens[start : start + size])
            name = self._name(parent, block)
            found = self._index.full(name, parent, block)
            if found is None:
                break
            pages.append(PageId(found))
            names.append(name)
            parent = name
        rest = tokens[len(pages) * size : (len(pages) + 1) * size]
        tail, shared = self._index.part(parent, rest)
        return Match(tuple(pages), tuple(names), None if tail is None else PageId(tail), shared)

    # -- taking and giving back

    def take(self, pages: Iterable[PageId]) -> None:
        """One more holder for each of these pages; cached ones leave the reach of eviction."""
        for number in pages:
            page = self._pages[number]
            if page.refs == 0:
                if self._index.get(number) is None:
                    raise NotHeld(f"page {number} is free: allocate it before taking it")
                self._cached -= 1
                page.stamp += 1
            page.refs += 1

    def drop(self, pages: Iterable[PageId], *, stale: bool = False) -> None:
        """One holder less for each of these pages. Pages without a holder stay findable until they are evicted.

        `stale` says that nobody is expected to come back for them. Raises NotHeld, and changes nothing, if a page
        would be given back more often than it was taken.
        """
        numbers = list(pages)
        for number, times in Counter(numbers).items():
            if self._pages[number].refs < times:
                raise NotHeld(f"page {number} has {self._pages[number].refs} holders and was given back {times} times")
        self._clock += 1
        for number in numbers:
            page = self._pages[number]
            page.refs -= 1
            if page.refs == 0:
                self._let_go(number, page, stale)

    def alloc(self, count: int) -> tuple[PageId, ...]:
        """`count` empty pages, each with one holder; free ones first, then whatever ranks lowest.

        Raises OutOfPages, and changes nothing, if there are not as many.
        """
        if count > self.available:
            raise OutOfPages(count, self.available)
        taken = []
        for _ in range(count):
            number = self._free.pop() if self._free else self._evict()
            page = self._pages[number]
            page.refs = 1
            page.fill = 0
            taken.append(PageId(number))
        return tuple(taken)

    # -- what lies in a page

    def claim(self, page: PageId, start: int, stop: int) -> bool:
        """May a holder that stands at slot `start` write up to `stop`? Yes if nobody has claimed beyond `start`."""
        entry = self._pages[page]
        if entry.fill != start:
            return False
        entry.fill = stop
        return True

    def unclaim(self, page: PageId, start: int) -> None:
        """The holder that claimed a page gives back what it did not write: everything from slot `start` on."""
        content = self._index.get(page)
        self._pages[page].fill = max(start, len(content.tokens) if content is not None else 0)

    def truncate(self, page: PageId, start: int) -> None:
        """Give up what the only holder of a page has behind slot `start`; its name is forgotten first."""
        entry = self._pages[page]
        if entry.refs != 1:
            raise NotHeld(f"page {page} has {entry.refs} holders: only a single one may cut it")
        content = self._index.get(page)
        if content is not None and len(content.tokens) > start:
            self._index.put(page, Content(content.parent, content.tokens[:start], None, content.depth))
        entry.fill = start

    def publish(self, page: PageId, parent: BlockHash, tokens: Sequence[int], *, depth: int) -> BlockHash | None:
        """Say that the first slots of a page hold computed `tokens` after `parent`: others may find them now.

        Returns the block's name once it is full, and None before. Raises LookupError when another content already
        has that name (a collision): the first stays, and this page and all that follows must not be published.
        """
        block = tuple(tokens)
        name = self._name(parent, block) if len(block) == self.page else None
        self._index.put(page, Content(parent, block, name, depth))
        self._pages[page].fill = max(self._pages[page].fill, len(block))
        return name

    # -- leases

    def hold(self, key: str, snapshot: Snapshot, *, until: float, budget: int) -> Lease:
        """Keep a prefix until `until`, as much of its head as fits into `budget` distinct held pages.

        Holding again under the same key replaces the lease: its clock starts anew. The answer's `pages` are what
        is held, its `asked` what was wanted.
        """
        self.release(key)
        granted: list[PageId] = []
        for page in snapshot.pages:
            new = self._pages[page].leases == 0
            if new and self._held >= budget:
                break
            self.take((page,))
            self._pages[page].leases += 1
            self._held += new
            granted.append(page)
        tokens = snapshot.tokens[: len(granted) * self.page]
        lease = Lease(key, tokens, tuple(granted), until, len(snapshot.pages))
        self.leases[key] = lease
        heapq.heappush(self._expiry, (until, key))
        if len(self._expiry) > 4 * len(self.leases) + 64:  # those that were replaced or released
            self._expiry = [(held.until, name) for name, held in self.leases.items()]
            heapq.heapify(self._expiry)
        return lease

    def release(self, key: str, *, stale: bool = False) -> Lease | None:
        """End a lease now; None if there is none under this key."""
        lease = self.leases.pop(key, None)
        if lease is None:
            return None
        for page in lease.pages:
            self._pages[page].leases -= 1
            self._held -= self._pages[page].leases == 0
        self.drop(reversed(lease.pages), stale=stale)
        return lease

    def expire(self, now: float) -> tuple[Lease, ...]:
        """End every lease whose time has come. The pages stay findable: an expired hold deletes nothing."""
        ended = []
        while self._expiry and self._expiry[0][0] <= now:
            until, key = heapq.heappop(self._expiry)
            lease = self.leases.get(key)
            if lease is not None and lease.until == until:
                self.release(key)
                ended.append(lease)
        return tuple(ended)

    @property
    def soonest(self) -> float | None:
        """When the next lease ends; None without any."""
        while self._expiry:
            until, key = self._expiry[0]
            lease = self.leases.get(key)
            if lease is not None and lease.until == until:
                return until
            heapq.heappop(self._expiry)
        return None

    # -- the whole

    def clear(self) -> int:
        """Forget what nobody holds; returns how many pages became free. What is held stays and can be found."""
        count = 0
        for number, page in enumerate(self._pages):
            if page.refs == 0 and self._index.get(number) is not None:
                self._index.forget(number)
                page.stamp += 1
                self._free.append(number)
                count += 1
        self._cached = 0
        self._heap.clear()
        return count

    def check(self, holders: Iterable[Iterable[PageId]] = ()) -> None:
        """Raise BrokenBooks unless every invariant holds; `holders` are all holders' pages besides the leases."""
        counts: Counter[int] = Counter()
        for pages in holders:
            counts.update(pages)
        for lease in self.leases.values():
            counts.update(lease.pages)
        free = set(self._free)
        cached = {n for n, p in enumerate(self._pages) if p.refs == 0 and n not in free}
        for number, page in enumerate(self._pages):
            if page.refs != counts[number]:
                raise BrokenBooks(f"page {number} counts {page.refs} holders, there are {counts[number]}")
            content = self._index.get(number)
            if number in free and (page.refs or content is not None):
                raise BrokenBooks(f"page {number} is free, and yet held or findable")
            if number in cached and content is None:
                raise BrokenBooks(f"page {number} is lost: not held, not findable, not free")
            tokens = len(content.tokens) if content is not None else 0
            if not tokens <= page.fill <= self.page:
                raise BrokenBooks(f"page {number}: {tokens} tokens, fill {page.fill}, size {self.page}")
        if len(free) != len(self._free) or len(cached) != self._cached:
            raise BrokenBooks(f"{len(self._free)} free ({len(free)} distinct), {self._cached} cached ({len(cached)})")
        if self._held != len({page for lease in self.leases.values() for page in lease.pages}):
            raise BrokenBooks(f"{self._held} pages are said to be under a lease")

    def __repr__(self) -> str:
        taken = self.room - self.available
        return f"<Ledger {taken}/{self.room} taken | {self.cached} cached | {self.held} held by {len(self.leases)}>"

    # -- private

    def _let_go(self, number: int, page: _Page, stale: bool) -> None:
        page.stamp += 1
        content = self._index.get(number)
        if content is None or not content.tokens:
            self._index.forget(number)
            self._free.append(number)
            return
        page.fill = len(content.tokens)  # what was claimed and never computed is nobody's
        self._cached += 1
        rank = self._rank(Cached(PageId(number), content.depth, self._clock, stale))
        heapq.heappush(self._heap, (rank, page.stamp, number))
        if len(self._heap) > 4 * self.room:
            self._heap = [entry for entry in self._heap if self._pages[entry[2]].stamp == entry[1]]
            heapq.heapify(self._heap)

    def _evict(self) -> int:
        while True:
            _, stamp, number = heapq.heappop(self._heap)
            page = self._pages[number]
            if page.stamp == stamp and page.refs == 0:
                self._index.forget(number)
                page.stamp += 1
                self._cached -= 1
                self.evicted += 1
                return number
