"""Who keeps which pages until when, and how many pages that makes, in all and by group."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from .errors import BrokenBooks
from .snapshot import Lease, PageId


class Leases:
    """The leases of a ledger by key. A page under several leases counts once, in all and in each group.

    Entering and leaving cost a step a page and O(log n); looking costs nothing.
    """

    def __init__(self) -> None:
        self.by_key: dict[str, Lease] = {}
        self.pages: Counter[int] = Counter()
        """How many leases a page is under; pages under none are absent."""
        self.expiry: list[tuple[float, str, int]] = []
        self._groups: dict[str, Counter[int]] = {}
        self._made = 0

    def count(self, group: str) -> int:
        """Distinct pages under the leases of a group."""
        return len(self._groups.get(group, ()))

    def fitting(self, pages: Sequence[PageId], budget: int, caps: Mapping[str, int]) -> int:
        """How many of these pages, from the first on, may be held within a budget in all and the caps of groups."""
        limits = [(self.pages, budget)]
        limits += [(self._groups.get(group, Counter()), cap) for group, cap in caps.items()]
        spare = [cap - len(held) for held, cap in limits]
        for index, page in enumerate(pages):
            for which, (held, _) in enumerate(limits):
                if page not in held:
                    if spare[which] <= 0:
                        return index
                    spare[which] -= 1
        return len(pages)

    def add(self, lease: Lease) -> Lease:
        """Enter a lease under a key that has none; returns it with its number."""
        self._made += 1
        lease = replace(lease, number=self._made)
        self.by_key[lease.key] = lease
        self.pages.update(lease.pages)
        for group in lease.terms.caps:
            self._groups.setdefault(group, Counter()).update(lease.pages)
        heapq.heappush(self.expiry, (lease.until, lease.key, lease.number))
        if len(self.expiry) > 4 * len(self.by_key) + 64:  # those that were replaced or released
            self.expiry = [(held.until, key, held.number) for key, held in self.by_key.items()]
            heapq.heapify(self.expiry)
        return lease

    def remove(self, key: str, number: int | None = None) -> Lease | None:
        """Take out the lease of a key; None if there is none, or another than the one of this number."""
        lease = self.by_key.get(key)
        if lease is None or number not in (None, lease.number):
            return None
        del self.by_key[key]
        _subtract(self.pages, lease.pages)
        for group in lease.terms.caps:
            _subtract(self._groups[group], lease.pages)
            if not self._groups[group]:
                del self._groups[group]
        return lease

    def due(self, now: float) -> Iterator[str]:
        """Keys whose time has come, soonest first; each must be removed before the next is asked for."""
        while (soonest := self.soonest) is not None and soonest <= now:
            yield self.expiry[0][1]

    @property
    def soonest(self) -> float | None:
        """When the next lease ends; None without any."""
        while self.expiry:
            until, key, number = self.expiry[0]
            lease = self.by_key.get(key)
            if lease is not None and lease.number == number:
                return until
            heapq.heappop(self.expiry)
        return None

    def check(self) -> None:
        """Raise BrokenBooks unless what is counted is what there is."""
        counted: dict[str | None, Counter[int]] = {None: Counter()}
        for lease in self.by_key.values():
            for group in (None, *lease.terms.caps):
                counted.setdefault(group, Counter()).update(lease.pages)
        for group, pages in counted.items():
            said = self.pages if group is None else self._groups.get(group, Counter())
            if said != pages:
                what = f"{len(said)} pages are said to be under a lease, {len(pages)} are"
                raise BrokenBooks(what if group is None else f"{what}, in group {group}")
        if extra := self._groups.keys() - counted.keys():
            raise BrokenBooks(f"groups without a lease are counted: {sorted(extra)}")


def _subtract(counts: Counter[int], pages: Sequence[int]) -> None:
    for page in pages:
        counts[page] -= 1
        if not counts[page]:
            del counts[page]
