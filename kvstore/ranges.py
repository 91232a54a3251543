"""Priorities by token range: who claims which, for which pages, until when.

The vocabulary is that of TensorRT-LLM's retention configuration (ranges of tokens, 0 to 100, 35 where nothing is
said, a duration). A claim deletes nothing, neither while it lasts nor when it ends: it only says what goes first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

DEFAULT_PRIORITY = 35
HIGHEST_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Range:
    """Tokens `start` to `stop` of a context, the last excluded, are worth `priority` until a time."""

    start: int
    stop: int | None
    """None: to the end of what there is."""
    priority: int
    """0 to 100: what is lower goes first."""
    until: float = math.inf
    """Seconds on the caller's clock; from then on the default holds again."""

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop <= self.start):
            raise ValueError(f"tokens {self.start} to {self.stop} are no range: it starts at 0 or later and has tokens")
        if not 0 <= self.priority <= HIGHEST_PRIORITY:
            raise ValueError(f"priority {self.priority} is not within 0 to {HIGHEST_PRIORITY}")
        if math.isnan(self.until):
            raise ValueError("a range ends at a time, or never (inf); found nan")

    def covers(self, token: int) -> bool:
        return self.start <= token and (self.stop is None or token < self.stop)


def told(ranges: Sequence[Range], pages: int, *, size: int) -> list[int | None]:
    """Which of the ranges counts for each page of a context: the first that holds its first token; None for none."""
    found: list[int | None] = [None] * pages
    for which in reversed(range(len(ranges))):
        start = min(pages, -(-ranges[which].start // size))
        stop = pages if (end := ranges[which].stop) is None else min(pages, -(-end // size))
        found[start:stop] = [which] * (stop - start)
    return found


def unraised(ranges: Sequence[Range], start: int) -> tuple[Range, ...]:
    """The same, but that nothing from token `start` on is worth more than the default; what is worth less stays so."""
    found: list[Range] = []
    for each in ranges:
        if each.priority <= DEFAULT_PRIORITY or (each.stop is not None and each.stop <= start):
            found.append(each)
            continue
        if each.start < start:
            found.append(replace(each, stop=start))
        found.append(replace(each, start=max(start, each.start), priority=DEFAULT_PRIORITY))
    return tuple(found)


@dataclass(slots=True)
class _Claim:
    number: int
    pages: dict[int, int] = field(default_factory=dict)  # page -> which of the ranges it is in


class Priorities:
    """Claims on pages, one set of ranges a key. Of several keys' claims on a page the highest counts.

    A page belongs to the first range in the list that holds its first token: on overlap the earlier one wins.
    Claiming costs a step a page and O(log n) a range; expiry touches the pages of what has expired and no others.
    """

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}
        self._pages: dict[int, dict[str, int]] = {}
        self._expiry: list[tuple[float, int, str, int]] = []
        self._count = 0
        self._crowded = 64  # entries of `_expiry` at which those that are over are worth looking for

    def __len__(self) -> int:
        return len(self._claims)

    def of(self, page: int) -> int:
        """The priority of a page now."""
        claims = self._pages.get(page)
        return max(claims.values()) if claims else DEFAULT_PRIORITY

    def pages(self, key: str) -> Collection[int]:
        """The pages that a key claims something for."""
        claim = self._claims.get(key)
        return claim.pages.keys() if claim is not None else ()

    def claim(
        self,
        key: str,
        pages: Sequence[int],
        ranges: Sequence[Range],
        *,
        size: int,
        depths: Sequence[int] | None = None,
    ) -> set[int]:
        """`pages` of `size` tokens each are a context from its beginning; what `key` claimed before is over.

        `depths` say how many pages come before each, where some are not among them. Returns the pages whose claims
        have changed.
        """
        touched = self.end(key)
        self._count += 1
        claim = _Claim(self._count)
        depths = range(len(pages)) if depths is None else depths
        each = told(ranges, max(depths, default=-1) + 1, size=size)
        for depth, page in zip(depths, pages, strict=True):
            which = each[depth] if depth >= 0 else None
            if which is not None:
                claim.pages[page] = which
                self._pages.setdefault(page, {})[key] = ranges[which].priority
        if claim.pages:
            self._claims[key] = claim
            for which in sorted(set(claim.pages.values())):
                if ranges[which].until < math.inf:
                    heapq.heappush(self._expiry, (ranges[which].until, claim.number, key, which))
            self._tidy()
        return touched | claim.pages.keys()

    def end(self, key: str) -> set[int]:
        """A key claims nothing any more; returns the pages that it had claimed."""
        claim = self._claims.pop(key, None)
        if claim is None:
            return set()
        for page in claim.pages:
            self._withdraw(page, key)
        return set(claim.pages)

    def expire(self, now: float) -> set[int]:
        """End what has come to its time; returns the pages that were touched."""
        touched: set[int] = set()
        while self._expiry and self._expiry[0][0] <= now:
            _, number, key, which = heapq.heappop(self._expiry)
            claim = self._claims.get(key)
            if claim is None or claim.number != number:
                continue
            gone = [page for page, mine in claim.pages.items() if mine == which]
            for page in gone:
                self._withdraw(page, key)
                del claim.pages[page]
            touched.update(gone)
            if not claim.pages:
                del self._claims[key]
        return touched

    def forget(self, page: int) -> None:
        """What lay in a page is gone, and every claim on it."""
        for key in self._pages.pop(page, ()):
            claim = self._claims[key]
            del claim.pages[page]
            if not claim.pages:
                del self._claims[key]

    def claimed(self) -> Collection[int]:
        """All pages on which there is a claim."""
        return self._pages.keys()

    def _withdraw(self, page: int, key: str) -> None:
        claims = self._pages[page]
        del claims[key]
        if not claims:
            del self._pages[page]

    def _tidy(self) -> None:
        """Drop the ends of claims that are over before they come up, whenever there are twice as many as last time."""
        if len(self._expiry) > self._crowded:
            live = {(claim.number, which) for claim in self._claims.values() for which in set(claim.pages.values())}
            self._expiry = [entry for entry in self._expiry if (entry[1], entry[3]) in live]
            heapq.heapify(self._expiry)
            self._crowded = 2 * len(self._expiry) + 64
