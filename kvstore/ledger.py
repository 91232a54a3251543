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

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from . import hashes
from .errors import BrokenBooks, NotHeld, OutOfPages
from .feed import Indexed, Listener
from .groups import Groups
from .hashes import BlockHash
from .index import Content, Index, Match
from .leases import Leases
from .order import Cached, Order, Rank, oldest_first
from .ranges import Priorities, Range
from .snapshot import Lease, PageId, Prefix, Terms


@dataclass(slots=True)
class _Page:
    refs: int = 0
    fill: int = 0  # slots that somebody claimed, written or about to be
    reach: int = 0  # tokens of the longest context with which it was released


_NO_TERMS = Terms()


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
        """Raises ValueError for a pool without room."""
        if room < 1 or page < 1:
            raise ValueError(f"a pool needs at least one page of one token; found room={room}, page={page}")
        self.room = room
        self.page = page
        self.evicted = 0
        self._pages = [_Page() for _ in range(room)]
        self._free = list(range(room - 1, -1, -1))
        self._cached = Order(rank)
        self.groups = Groups()
        """Of the layers of the model whose contexts these are; to be set before the first of them."""
        self.name = name
        self.index = Index(name)  # others only look at it
        self._leases = Leases()
        self._priorities = Priorities()
        self._clock = 0

    # -- looking

    @property
    def free(self) -> int:
        """Pages with nothing in them."""
        return len(self._free)

    @property
    def cached(self) -> int:
        """Pages that nobody holds, and that can still be found."""
        return len(self._cached)

    @property
    def available(self) -> int:
        """Pages that `alloc` can give."""
        return len(self._free) + len(self._cached)

    @property
    def held(self) -> int:
        """Distinct pages under a lease."""
        return len(self._leases.pages)

    @property
    def leases(self) -> Mapping[str, Lease]:
        """The leases by their keys, oldest first. Not to be changed."""
        return self._leases.by_key

    def held_by(self, group: str) -> int:
        """Distinct pages under the leases of a group."""
        return self._leases.count(group)

    def priority(self, page: PageId) -> int:
        """The highest priority that is claimed for what lies in a page."""
        return self._priorities.of(page)

    def listen(self, listener: Listener | None) -> None:
        """Have one listener told of every full block that can be found from now on, and of each that no longer can."""
        self.index.listener = listener

    def blocks(self) -> Mapping[BlockHash, Indexed]:
        """All full blocks that can be found: a copy, at a step a block."""
        return self.index.blocks()

    def chain(self, root: BlockHash, names: Sequence[BlockHash]) -> tuple[PageId, ...]:
        """The pages of full blocks, told by their names, as far as they can be found from the root on."""
        return self.index.chain(root, names)

    def content(self, page: PageId) -> Content | None:
        """What can be found in a page; None for nothing."""
        return self.index.get(page)

    def refs(self, page: PageId) -> int:
        """How many holders a page has; contexts that share a past (`Past`) hold its pages as one."""
        return self._pages[page].refs

    def released(self, page: PageId) -> int | None:
        """The number of the release since which nobody holds a page that can be found; None for any other page."""
        return self._cached[page].used if page in self._cached else None

    def idle(self, pages: Iterable[PageId]) -> int:
        """How many of these pages nobody holds: taking them lowers `available` by as much."""
        return sum(1 for page in pages if self._pages[page].refs == 0)

    def match(self, root: BlockHash, tokens: Sequence[int]) -> Match:
        """The longest computed prefix of `tokens` under `root`; takes nothing.

        Tokens are compared, names only lead to candidates: a collision is a miss, never a wrong answer. Inside the
        first block that is not wholly known, the page that shares most tokens is offered as `tail`.
        """
        return self.index.match(root, tokens, self.page)

    # -- taking and giving back

    def take(self, pages: Iterable[PageId]) -> None:
        """One more holder for each of these pages; cached ones leave the reach of eviction."""
        for number in pages:
            page = self._pages[number]
            if page.refs == 0:
                if number not in self._cached:
                    raise NotHeld(f"page {number} is free: allocate it before taking it")
                if self._cached.remove(number).stale:
                    self.index.renew(number)
            page.refs += 1

    def drop(self, pages: Iterable[PageId], *, stale: bool = False, passed: bool = False) -> None:
        """One holder less for each of these pages. Pages without a holder stay findable until they are evicted.

        `stale` says that nobody is expected to come back for them; a page on which another context goes on that was
        not given up is spared, for without it that one could not be found, unless it is `passed`: not needed there.
        Raises NotHeld, and changes nothing, if a page would be given back more often than it was taken.
        """
        numbers = list(pages)
        for number, times in Counter(numbers).items():
            if self._pages[number].refs < times:
                raise NotHeld(f"page {number} has {self._pages[number].refs} holders and was given back {times} times")
        self._clock += 1
        idle = []
        for number in numbers:
            page = self._pages[number]
            page.refs -= 1
            if page.refs == 0:
                idle.append(number)
        self._let_go(idle, stale, passed)

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
            page.refs, page.fill, page.reach = 1, 0, 0
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
        content = self.index.get(page)
        self._pages[page].fill = max(start, len(content.tokens) if content is not None else 0)

    def truncate(self, page: PageId, start: int) -> None:
        """Give up what the only holder of a page has behind slot `start`; its name is forgotten first."""
        entry = self._pages[page]
        if entry.refs != 1:
            raise NotHeld(f"page {page} has {entry.refs} holders: only a single one may cut it")
        content = self.index.get(page)
        if content is not None and len(content.tokens) > start:
            self.index.put(page, replace(content, tokens=content.tokens[:start], name=None))
        entry.fill = start

    def publish(
        self, page: PageId, parent: BlockHash, tokens: Sequence[int], *, depth: int, session: str | None = None
    ) -> BlockHash | None:
        """Say that the first slots of a page hold computed `tokens` after `parent`: others may find them now.

        Returns the block's name once it is full, and None before. Raises LookupError when another content already
        has that name (a collision): the first stays, and this page and all that follows must not be published.
        """
        block = tuple(tokens)
        name = self.name(parent, block) if len(block) == self.page else None
        self.index.put(page, Content(parent, block, name, depth, session))
        self._pages[page].fill = max(self._pages[page].fill, len(block))
        return name

    # -- leases and priorities

    def hold(self, key: str, prefix: Prefix, *, until: float, budget: int, terms: Terms = _NO_TERMS) -> Lease:
        """Keep a prefix until `until`, as much of its head as fits into `budget` distinct held pages.

        Holding again under the same key replaces the lease: its clock starts anew. The answer's `pages` are what
        is held, its `asked` what was wanted. With `terms` it must also fit into the caps of its groups, and the
        priorities of its ranges hold for all its pages, the clipped ones too, beyond its end until their own.
        """
        self.release(key)
        fits = self._leases.fitting(prefix.pages, budget, terms.caps)
        tokens, granted = self.groups.head(prefix, fits, self.page)
        self.take(granted)
        lease = self._leases.add(Lease(key, tokens, granted, until, len(prefix.pages), terms))
        self.retain(key, prefix.pages, terms.ranges)
        return lease

    def release(self, key: str, *, stale: bool = False, number: int | None = None) -> Lease | None:
        """End a lease now, and the priorities that its key claims; None if there is none under this key.

        With the `number` of a lease only that one is ended: a late release cannot end its successor.
        """
        lease = self._leases.remove(key, number)
        if lease is not None:
            self._rerank(self._priorities.end(key))
            self.drop(reversed(lease.pages), stale=stale)
        return lease

    def retain(self, key: str, pages: Sequence[PageId], ranges: Sequence[Range]) -> int:
        """Claim priorities for a context that lies in `pages` from its beginning; returns how many pages got one.

        What the key claimed before is over. Nothing is held: a claim says what goes first, and ends with the content
        of its page. Of several claims on a page the highest counts.
        """
        lost = [page for page in pages if self._pages[page].refs == 0 and page not in self._cached]
        if lost:
            raise NotHeld(f"page {lost[0]} is free: there is nothing in it to retain")
        depths = None if self.groups.plain else [c.depth if (c := self.index.get(page)) else -1 for page in pages]
        self._rerank(self._priorities.claim(key, pages, ranges, size=self.page, depths=depths))
        return len(self._priorities.pages(key))

    def forgo(self, key: str) -> int:
        """End the priorities that a key claims; returns on how many pages it did."""
        touched = self._priorities.end(key)
        self._rerank(touched)
        return len(touched)

    def demote(self, pages: Iterable[PageId]) -> int:
        """Nobody is expected to come back for these, and they rank so from now on; returns how many do.

        Spared are those that somebody holds, and those on which a context goes on that was not given up.
        """
        return sum(self._age(page) and self._cached.changed(page, stale=True) for page in self._last_first(pages))

    def expire(self, now: float) -> tuple[Lease, ...]:
        """End every lease and every priority whose time has come; returns the leases. This deletes nothing."""
        self._rerank(self._priorities.expire(now))
        ended = []
        for key in self._leases.due(now):
            lease = self._leases.remove(key)
            assert lease is not None  # only leases that there are come due
            self.drop(reversed(lease.pages))
            ended.append(lease)
        return tuple(ended)

    @property
    def soonest(self) -> float | None:
        """When the next lease ends; None without any."""
        return self._leases.soonest

    # -- the whole

    def clear(self) -> int:
        """Forget what nobody holds; returns how many pages became free. What is held stays and can be found."""
        gone = list(self._cached)
        self.index.forget_all(gone)
        for number in gone:
            self._cached.remove(number)
            self._priorities.forget(number)
            self._free.append(number)
        return len(gone)

    def check(self, holders: Iterable[Iterable[PageId]] = ()) -> None:
        """Raise BrokenBooks unless every invariant holds; `holders` are all holders' pages besides the leases."""
        counts: Counter[int] = Counter()
        for pages in holders:
            counts.update(pages)
        for lease in self.leases.values():
            counts.update(lease.pages)
        self._leases.check()
        free = set(self._free)
        cached = {n for n, p in enumerate(self._pages) if p.refs == 0 and n not in free}
        self.index.check({page for page in self._cached if self._cached[page].stale})
        if wrong := [page for page in self._cached if self._cached[page].priority != self._priorities.of(page)]:
            raise BrokenBooks(f"pages {wrong} rank by priorities that they no longer have")
        if lost := free.intersection(self._priorities.claimed()):
            raise BrokenBooks(f"priorities are claimed for free pages: {sorted(lost)}")
        for number, page in enumerate(self._pages):
            if page.refs != counts[number]:
                raise BrokenBooks(f"page {number} counts {page.refs} holders, there are {counts[number]}")
            content = self.index.get(number)
            if number in free and (page.refs or content is not None):
                raise BrokenBooks(f"page {number} is free, and yet held or findable")
            if number in cached and content is None:
                raise BrokenBooks(f"page {number} is lost: not held, not findable, not free")
            tokens = len(content.tokens) if content is not None else 0
            if not tokens <= page.fill <= self.page:
                raise BrokenBooks(f"page {number}: {tokens} tokens, fill {page.fill}, size {self.page}")
        if len(free) != len(self._free) or cached != set(self._cached):
            raise BrokenBooks(f"{len(self._free)} free ({len(free)} distinct), {self.cached} cached ({len(cached)})")

    def __repr__(self) -> str:
        taken = self.room - self.available
        return f"<Ledger {taken}/{self.room} taken | {self.cached} cached | {self.held} held by {len(self.leases)}>"

    # -- private

    def _let_go(self, numbers: Sequence[int], stale: bool, passed: bool) -> None:
        """Pages without a holder become cached, or free if nothing can be found in them."""
        contents = {number: content for number in numbers if (content := self.index.get(number)) and content.tokens}
        reach = max((content.depth * self.page + len(content.tokens) for content in contents.values()), default=0)
        for number in self._last_first(numbers) if stale else numbers:
            content, page = contents.get(number), self._pages[number]
            if content is None:
                self._forget(number)
                self._free.append(number)
                continue
            page.fill = len(content.tokens)  # what was claimed and never computed is nobody's
            page.reach = max(page.reach, reach)
            self._cached.put(
                Cached(
                    PageId(number),
                    content.depth,
                    self._clock,
                    (stale or passed) and self._age(number, passed),
                    self._priorities.of(number),
                    page.reach,
                    content.name or self.name(content.parent, content.tokens),
                    self._cached.floor,
                )
            )

    def _last_first(self, pages: Iterable[int]) -> list[int]:
        """What others go on from after what goes on from it."""
        return sorted(pages, key=lambda page: -content.depth if (content := self.index.get(page)) else 1)

    def _age(self, page: int, passed: bool = False) -> bool:
        """Give up what nobody holds and nothing goes on from, and say whether that was so."""
        alone = self._pages[page].refs == 0 and (passed or not self.index.followed(page))
        if alone:
            self.index.age(page)
        return alone

    def _forget(self, number: int) -> None:
        self.index.forget(number)
        self._priorities.forget(number)

    def _rerank(self, touched: Iterable[int]) -> None:
        for page in touched:
            self._cached.changed(page, priority=self._priorities.of(page))

    def _evict(self) -> int:
        number = self._cached.pop()
        self._forget(number)
        self.evicted += 1
        return number
