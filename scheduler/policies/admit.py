"""How much may run at once."""

from __future__ import annotations

from math import inf

from ..world import Waiting, World

HEADROOM = 0.5
"""Share of its first prompt by which a new program is expected to grow at least, before anything is known of it."""


def always(world: World, turn: Waiting, pages: int) -> bool:
    """Whatever fits starts."""
    return True


def with_headroom(world: World, turn: Waiting, pages: int) -> bool:
    """A new program starts only if it may also grow; a program that has begun goes on whenever it fits.

    Contexts only grow. Letting programs in until the pool is full at their smallest means that they evict each other
    from then on.
    """
    if turn.program.turns > 0 or turn.preempted or turn.holds or not world.grows:
        return True
    return world.available >= pages + world.growth(turn.tokens, HEADROOM * turn.tokens)


def open_window(world: World, window: float) -> float:
    """As many programs as come."""
    return inf
