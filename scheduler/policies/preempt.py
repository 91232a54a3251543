"""Who gives way when room is short."""

from __future__ import annotations

from ..world import Program, Waiting, World


def never_yields(world: World, holder: Program, wanting: Waiting) -> bool:
    """Holds end by their own clock only."""
    return False


def always_yields(world: World, holder: Program, wanting: Waiting) -> bool:
    """Holds give way to whoever is next."""
    return True


def untended_then_latest(world: World, program: Program) -> tuple[float, ...]:
    """Those that nobody tends, then the program that came last."""
    return (not program.tended, program.number)


def latest(world: World, program: Program) -> tuple[float, ...]:
    """The program that came last leaves first."""
    return (program.number,)


def recompute(world: World, tokens: int) -> tuple[str, ...]:
    """No copy is made of what leaves the batch."""
    return ()
