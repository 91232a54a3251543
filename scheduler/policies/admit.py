"""How much may run at once."""

from __future__ import annotations

from ..world import Waiting, World

HEADROOM = 0.5
"""Share of its first prompt by which a new program is expected to grow at least, before anything is known of it."""


def always(world: World, turn: Waiting, pages: int) -> bool:
    """Whatever fits starts."""
    return True


def with_headroom(world: World, turn: Waiting, pages: int) -> bool:
    """A new program starts only if it may also grow; a program that has begun goes on whenever it fits.

    Contexts only grow. Letting programs in until the pool is full at their smallest means that they evict each other
    from then on. An empty pool admits whatever fits: where nothing else runs there is nothing to protect.
    """
    if turn.program.turns > 0 or turn.preempted or turn.holds or not world.grows:
        return True
    if world.running == 0 and world.held == 0:
        return True
    return world.available >= pages + HEADROOM * turn.tokens / world.page
