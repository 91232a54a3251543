"""What a context is worth: the seconds that it takes to have it again."""

from __future__ import annotations

from ..world import World

LONGEST_S = 3600.0
"""No hold is longer: its program may never come back."""


def reload_s(world: World, tokens: int) -> float:
    """Computing a context of so many tokens again, or fetching it from a tier where that is quicker."""
    tier = world.costs.nearest(tokens, world.tiers)
    return world.costs.prefill(tokens) if tier is None else world.costs.fetch(tier, tokens)


def lost_s(world: World, tokens: int, *, eta: float = 1.0) -> float:
    """What its program loses: the reload, and the wait of those that came without their context, as far as that
    is the wait's fault (`eta`)."""
    return reload_s(world, tokens) + world.meters.queued.value * eta
