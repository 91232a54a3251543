"""What leaves the cache when room is short: the smallest rank goes first.

A rank is asked once, when a page is released, and again only when somebody claims something for it. So none depends
on the present time: age is the number of a release, and a priority that expires is a change of that page. The plain
order, least recently used, is `oldest_first` of kvstore.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...kvstore import DEFAULT_PRIORITY, BlockHash, Cached, Rank
from ..costs import Costs


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


def by_cost(costs: Costs) -> Rank:
    """What is cheapest to compute again for the room it takes goes first, and what has not been used for long.

    GreedyDual-Size (Cao and Irani, "Cost-aware WWW proxy caching algorithms", USENIX Symposium on Internet
    Technologies and Systems 1997): rank = L + cost / size, where L is the rank of what was evicted last, so that what
    is dear ages too, without touching it. Cost / size is that of the whole context with which a page was released,
    because no part of it is of use without its beginning, and because cost grows faster than length: half of two
    contexts is worth less than the whole of one. So a page of a long context stays longer than one of a short one,
    and inside a context the end goes before the beginning. What nobody is expected to come back for costs nothing.
    """

    def rank(page: Cached) -> tuple[float, ...]:
        worth = 0.0 if page.stale else costs.per_token(page.reach)
        return (page.floor + worth, page.used, -page.depth)

    return rank
