"""What can be done by who knows the future: how long each pause will be, and how much of each job is left.

A context is held through its pause where that costs less than losing it; whoever comes back last gives way first
(Belady's rule on contexts); and jobs go by what is left of them, the shortest first, held ones before others. It is a
yardstick and no optimum: knowing all pauses still leaves a packing problem that nobody solves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

from ..events import ProgramId
from ..world import Pause, Program, Waiting, World
from .bundle import Key, Policy
from .preempt import always_yields
from .retain import Retention
from .worth import LONGEST_S


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
        return (left.get(turn.program.id, inf), turn.number)

    def through(world: World, program: Program, pause: Pause) -> Retention:
        seconds = pauses.get(program.id, inf) if pause.tools else inf
        return Retention(0.0 if seconds > LONGEST_S else seconds + 1.0, f"back in {seconds:.3g} s")

    def back(world: World, program: Program) -> float:
        pause = program.pause
        return inf if pause is None else pause.since + pauses.get(program.id, inf)

    def last_back(world: World, program: Program) -> Key:
        # What is back already waits; of those the longest job waits longest.
        return (max(back(world, program), world.now), left.get(program.id, inf), program.number)

    def longest(world: World, program: Program) -> Key:
        return (left.get(program.id, inf), program.number)

    return Policy(name="oracle", order=shortest, retain=through, gives=last_back, yields=always_yields, preempt=longest)
