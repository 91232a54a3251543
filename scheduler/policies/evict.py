"""What leaves the cache when room is short: the smallest rank goes first."""

from __future__ import annotations

from ...kvstore import Cached


def stale_first(page: Cached) -> tuple[float, ...]:
    """What nobody is expected to come back for, then least recently used, ends before beginnings."""
    return (0 if page.stale else 1, page.used, -page.depth)
