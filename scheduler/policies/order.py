"""Who runs next: the smallest key.

Keys do not depend on the present time, so that nothing needs sorting again as time passes: aging is an arrival that
lies earlier (a virtual arrival).
"""

from __future__ import annotations

from math import inf

from ..world import Waiting, World


def by_arrival(world: World, turn: Waiting) -> tuple[float, ...]:
    """First come, first served, turn by turn: what serving engines do."""
    return (turn.arrived, turn.number)


def by_first_arrival(world: World, turn: Waiting) -> tuple[float, ...]:
    """First come, first served by program."""
    return (turn.program.arrived, turn.program.number, turn.number)


def pinned_first(world: World, turn: Waiting) -> tuple[float, ...]:
    """Preempted turns, then those whose context is held, then programs by their first arrival: Continuum's queue."""
    return (0 if turn.preempted else 1 if turn.holds else 2, turn.program.number, turn.number)


def once(world: World, turn: Waiting) -> float:
    """Its place stays what it is."""
    return inf
