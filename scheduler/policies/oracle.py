"""What can be done by who knows the future: how long each pause will be, and how much of each job is left.

As `sostenuto` it lets as many programs begin as fit together, but goes by what is left of jobs, the shortest first and
those that have begun before others; holds a context through its pause where that costs less than losing it; and of
those that give way takes whoever is back last (Belady's rule, on contexts). It is a yardstick and no optimum: knowing
all pauses still leaves a packing problem that nobody solves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from ..events import ProgramId
from ..world import Pause, Program, Waiting, World
from .bundle import Key, Policy
from .evict import stale_first
from .retain import Retention
from .sostenuto import admit, price
from .worth import LONGEST_S, reload_s


@dataclass(slots=True)
class Future:
    """Kept by whoever plays it, before each turn arrives: plain books of what is to come."""

    pauses: dict[ProgramId, float] = field(default_factory=dict)
    """How long a program's tools will be out after its present turn."""
    left: dict[ProgramId, float] = field(default_factory=dict)
    """Seconds of work, pauses apart, that are left of its present job."""


def oracle(future: Future) -> Policy:
    """The policy that knows this future."""
    pauses: Mapping[ProgramId, float] = future.pauses
    left: Mapping[ProgramId, float] = future.left

    def shortest(world: World, turn: Waiting) -> Key:
        begun = turn.holds or turn.program.turns > 0
        return (not begun, left.get(turn.program.id, inf), turn.number)

    def through(world: World, program: Program, pause: Pause) -> Retention:
        seconds = pauses.get(program.id, inf) if pause.tools else inf
        return Retention(0.0 if seconds > LONGEST_S else seconds + 1.0, f"back in {seconds:.3g} s")

    def back(world: World, program: Program) -> float:
        pause = program.pause
        return inf if pause is None else pause.since + pauses.get(program.id, inf)

    def last_back(world: World, program: Program) -> Key:
        # What is back already waits; of those the longest job waits longest.
        return (max(back(world, program), world.now), left.get(program.id, inf), program.number)

    def dear(world: World, holder: Program, wanting: Waiting) -> bool:
        pause, rest = holder.pause, back(world, holder) - world.now
        if pause is None or rest == inf or wanting.running:
            return True
        return price(world, pause.tokens) * rest >= reload_s(world, pause.tokens) * (1 + world.running)

    def longest(world: World, program: Program) -> Key:
        return (left.get(program.id, inf), program.number)

    return Policy(
        name="oracle",
        order=shortest,
        admit=admit,
        retain=through,
        gives=last_back,
        yields=dear,
        preempt=longest,
        evict=stale_first,
    )
