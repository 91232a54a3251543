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
    from then on. A pool in which nobody runs or is expected back admits whatever fits: there is nothing to protect,
    and what is pinned or marked there would only end by its clock.
    """
    if turn.program.turns > 0 or turn.preempted or turn.holds or not world.grows:
        return True
    if world.running == 0 and not any(program.leases for program in world.programs.values()):
        return True
    return world.available >= pages + world.growth(turn.tokens, HEADROOM * turn.tokens)
