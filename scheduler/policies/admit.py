"""How much may run at once."""

from __future__ import annotations

from math import inf

from ..world import Waiting, World


def always(world: World, turn: Waiting, pages: int) -> bool:
    """Whatever fits starts."""
    return True


def open_window(world: World, window: float) -> float:
    """As many programs as come."""
    return inf
