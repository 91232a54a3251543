"""Who gives way when room is short."""

from __future__ import annotations

from ..world import Program, Waiting, World


def never_yields(world: World, holder: Program, wanting: Waiting) -> bool:
    """Holds end by their own clock only."""
    return False


def always_yields(world: World, holder: Program, wanting: Waiting) -> bool:
    """Holds give way to whoever is next."""
    return True


def to_earlier(world: World, holder: Program, wanting: Waiting) -> bool:
    """A program gives way to those that came before it, so that the oldest one always makes progress.

    One that nobody tends gives way to all: whether it will ever come back is not known.
    """
    return not holder.tended or holder.number > wanting.program.number


def untended_then_latest(world: World, program: Program) -> tuple[float, ...]:
    """Those that nobody tends, then the program that came last."""
    return (not program.tended, program.number)


def latest(world: World, program: Program) -> tuple[float, ...]:
    """The program that came last leaves first."""
    return (program.number,)


def recompute(world: World, tokens: int) -> tuple[str, ...]:
    """No copy is made of what leaves the batch."""
    return ()
