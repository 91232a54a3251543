"""How long a paused context stays."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from ..world import Pause, Program, World

MARK_S = 3600.0
"""A mark's length. It is an end and no forecast: marks give way before that to whoever wants their pages."""


@dataclass(frozen=True, slots=True)
class Retention:
    """Hold for so many seconds; zero lets go, and the context stays only until its pages are wanted."""

    seconds: float
    why: str
    tiers: tuple[str, ...] = ()
    """Where copies are made, so that it can be taken up again when the hold is over."""


def nothing(world: World, program: Program, pause: Pause) -> Retention:
    """Serving engines do not know that anybody will come back."""
    return Retention(0.0, "no holds under this policy")


def no_marks(world: World) -> Retention:
    """Serving engines keep nothing by name."""
    return Retention(0.0, "no marks under this policy")


def until_wanted(world: World) -> Retention:
    """As long as nobody else wants the room."""
    return Retention(MARK_S, "marked")


def never(world: World, program: Program, pause: Pause) -> float:
    """It is fetched when its turn comes."""
    return inf
