"""Pins: leases that others ask for, within a budget for each tenant and one for all.

A pin is never more than a lease with an end: it cannot outlive `longest`, it keeps the head of a context when the
whole does not fit, and it may be ended at any moment, for what it kept stays findable until its pages are wanted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .ledger import Ledger
from .ranges import DEFAULT_PRIORITY, Range
from .snapshot import Lease, Prefix, Terms

PIN_S = 3600.0
"""The longest that a pin lasts without being asked for again."""
_ALL = "pins"


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of a pin, besides the context."""

    tenant: str
    until: float
    """Seconds on the caller's clock."""
    ranges: tuple[Range, ...] = ()
    """What its tokens are worth once they are not pinned, and those that do not fit at once."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What became of it, in pages."""

    asked: int
    granted: int
    cap: int
    """Pages that the tenant may have pinned in all."""
    lease: Lease | None
    """None where nothing was granted."""
    why: str


class Pins:
    """The pins on a ledger. All that is counted lies in the ledger's leases, so nothing can come apart from it.

    A tenant's pins hold at most `each` distinct pages, all pins together at most `total`; zero switches them off. The
    rest of the pool is what others can always have. `repr` shows how full it is.
    """

    def __init__(self, ledger: Ledger, *, total: int, each: int, longest: float = PIN_S) -> None:
        """Raises ValueError unless 0 <= each <= total < the ledger's room: a pool that is all pins serves nobody."""
        if not 0 <= each <= total < ledger.room:
            raise ValueError(
                f"pins need 0 <= each <= total < {ledger.room} pages, the pool's room; found each={each}, total={total}"
            )
        self.total = total
        self.each = each
        self.longest = longest
        self._ledger = ledger

    def __len__(self) -> int:
        return sum(1 for _ in self._leases(None))

    @property
    def pages(self) -> int:
        """Distinct pages that are pinned."""
        return self._ledger.held_by(_ALL)

    def pages_of(self, tenant: str) -> int:
        """Distinct pages that a tenant has pinned."""
        return self._ledger.held_by(_group(tenant))

    def pin(self, key: str, prefix: Prefix, wish: Wish, *, now: float) -> Grant:
        """Keep a context, as much of its head as the budgets allow, until `wish.until` or as long as a pin may last.

        Pinning again under the same key replaces the pin: its clock starts anew, nothing adds up. Keys of different
        tenants never meet. Its pages must be held by the caller meanwhile, as they are after `freeze`.
        """
        asked = len(prefix.pages)
        name, group = _key(wish.tenant, key), _group(wish.tenant)
        until = min(wish.until, now + self.longest)
        if until <= now:
            self._ledger.release(name)
            return Grant(asked, 0, self.each, None, "its time is over")
        terms = Terms({_ALL: self.total, group: self.each}, wish.ranges)
        lease = self._ledger.hold(name, prefix, until=until, budget=self._ledger.room, terms=terms)
        granted = len(lease.pages)
        why = "pinned" if granted == asked else self._limit(group)
        if not granted:
            self._ledger.release(name)
            return Grant(asked, 0, self.each, None, why)
        if until < wish.until:
            why += f", for {self.longest:g} s, the longest there is"
        return Grant(asked, granted, self.each, lease, why)

    def find(self, key: str, *, tenant: str) -> Lease | None:
        """The pin of a tenant under a key, if it still lasts."""
        return self._ledger.leases.get(_key(tenant, key))

    def unpin(self, key: str, *, tenant: str, number: int | None = None, stale: bool = False) -> Lease | None:
        """End a pin now; None if there is none.

        With the `number` of its lease only that one is ended, so that a late word from a closed session cannot end
        the pin of the next session of that name. `stale` says that nobody will come back for it.
        """
        return self._ledger.release(_key(tenant, key), stale=stale, number=number)

    def unpin_all(self, *, tenant: str | None = None) -> tuple[Lease, ...]:
        """End all pins, or all of a tenant."""
        gone = tuple(self._leases(tenant))
        for lease in gone:
            self._ledger.release(lease.key)
        return gone

    def give_way(self) -> Lease | None:
        """End the pin that matters least, so that others may go on: the one of the lowest priority, of those the one
        that would end first. None without any. Costs a step a lease; meant for the moment when nothing else gives way.
        """
        least = min(self._leases(None), key=lambda lease: (_priority(lease), lease.until, lease.number), default=None)
        return None if least is None else self._ledger.release(least.key)

    def __repr__(self) -> str:
        return f"<Pins {len(self)} on {self.pages}/{self.total} pages | {self.each} a tenant>"

    def _leases(self, tenant: str | None) -> Iterator[Lease]:
        group = _ALL if tenant is None else _group(tenant)
        return (lease for lease in self._ledger.leases.values() if group in lease.terms.caps)

    def _limit(self, group: str) -> str:
        if not self.each:
            return "pins are switched off: their budget is 0 pages"
        if self._ledger.held_by(group) >= self.each:
            return f"clipped to the tenant's budget of {self.each} pages"
        return f"clipped to the budget of {self.total} pages for all tenants"


def _group(tenant: str) -> str:
    return f"{_ALL}|{tenant}"


def _key(tenant: str, key: str) -> str:
    """Never the same for two, and never that of a hold or a mark."""
    return f"pin|{len(tenant)}:{tenant}|{key}"


def _priority(lease: Lease) -> int:
    return max((each.priority for each in lease.terms.ranges), default=DEFAULT_PRIORITY)
