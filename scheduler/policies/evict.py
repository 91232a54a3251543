"""What leaves the cache when room is short: the smallest rank goes first.

A rank is asked once, when a page is released, and again only when somebody claims something for it. So none depends
on the present time: age is the number of a release, and a priority that expires is a change of that page. The plain
order, least recently used, is `oldest_first` of kvstore.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ...kvstore import DEFAULT_PRIORITY, BlockHash, Cached, Rank


def stale_first(page: Cached) -> tuple[float, ...]:
    """What nobody is expected to come back for, then the lowest priority, then least recently used, ends first.

    A raised priority counts for more than a conversation's end: somebody else asked for these tokens to stay.
    """
    given_up = page.stale and page.priority <= DEFAULT_PRIORITY
    return (-1 if given_up else page.priority, page.used, -page.depth)


def by_priority(page: Cached) -> tuple[float, ...]:
    """The lowest priority first, least recently used inside a level: TensorRT-LLM's order."""
    return (page.priority, page.used, -page.depth)


def by_next_use(table: Mapping[BlockHash, float]) -> Rank:
    """What is wanted again latest goes first, what never is before that: the best that any order can do (Belady,
    "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5, 1966).

    `table` says when each block, by name, is wanted next: an oracle, for simulations. It is read when a page is
    released, which is when the next use of it becomes known.
    """

    def rank(page: Cached) -> tuple[float, ...]:
        return (-table.get(page.name, math.inf), -page.depth)

    return rank


@dataclass(frozen=True, slots=True)
class Prefill:
    """What computing a token costs behind `n` others: `token_s + n * pair_s` seconds.

    The first part is that of the weights, the second that of attention, which looks at every token before; both are
    read off two measured prefills of different length. The parts of a formula that is often fitted to servers,
    `a + b n + c n^2` for a whole prompt, are b = token_s and c = pair_s / 2.
    """

    token_s: float
    pair_s: float
    token_bytes: int
    """Keys and values of one token in all layers."""

    def seconds(self, tokens: int) -> float:
        """Computing a context of so many tokens from nothing."""
        return tokens * self.token_s + tokens * tokens / 2 * self.pair_s

    def per_byte(self, tokens: int) -> float:
        """Seconds that keeping such a context saves, for each byte that it takes."""
        return self.seconds(tokens) / (tokens * self.token_bytes) if tokens else 0.0


def by_cost(prefill: Prefill) -> Rank:
    """What is cheapest to compute again for the bytes it takes goes first, and what has not been used for long.

    GreedyDual-Size (Cao and Irani, "Cost-aware WWW proxy caching algorithms", USENIX Symposium on Internet
    Technologies and Systems 1997): rank = L + cost / size, where L is the rank of what was evicted last, so that what
    is dear ages too, without touching it. Cost / size is that of the whole context with which a page was released,
    because no part of it is of use without its beginning, and because cost grows faster than length: half of two
    contexts is worth less than the whole of one. So a page of a long context stays longer than one of a short one,
    and inside a context the end goes before the beginning. What nobody is expected to come back for costs nothing.
    """

    def rank(page: Cached) -> tuple[float, ...]:
        worth = 0.0 if page.stale else prefill.per_byte(page.reach)
        return (page.floor + worth, page.used, -page.depth)

    return rank
