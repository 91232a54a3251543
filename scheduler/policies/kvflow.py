"""KVFlow (arXiv 2507.07400, NeurIPS 2025): contexts leave by how many steps of their graph lie before their next use.

Every agent of a workflow has a number of steps to its next execution, the least over all ways through the graph; what
is farthest from it is evicted first, and the context of whoever comes next is prefetched from host memory while others
compute. Here the graph's runtime tells the steps (`Planned`); a program of which nobody has told any, and whose tools
are out, is two steps away: the tools, then the model.

Not public: nothing of the mechanism. Different here: whole contexts give way, not nodes of a radix tree, and programs
that share a prefix share its pages anyway.
"""

from __future__ import annotations

from math import inf

from ..world import Pause, Program, World
from .bundle import Key, Policy
from .preempt import always_yields
from .retain import Retention
from .worth import LONGEST_S

TOOLS = 2
NEXT = 1
"""So few steps before its use a context is fetched."""


def steps(program: Program) -> float:
    """To its next execution; infinite for one that waits for nothing."""
    if program.steps is not None:
        return program.steps
    return TOOLS if program.pauses else inf


def until_farthest(world: World, program: Program, pause: Pause) -> Retention:
    """A context stays until somebody nearer to its use wants the room; and a copy of it in host memory."""
    if not pause.tools:
        return Retention(0.0, "waits for a person", world.tiers[:1])
    return Retention(LONGEST_S, f"{steps(program):g} steps to its next use", world.tiers[:1])


def farthest(world: World, program: Program) -> Key:
    """The most steps to the next use."""
    return (steps(program), program.number)


def when_next(world: World, program: Program, pause: Pause) -> float:
    """At once for who comes next."""
    return 0.0 if steps(program) <= NEXT else inf


KVFLOW = Policy(name="kvflow", retain=until_farthest, gives=farthest, yields=always_yields, prefetch=when_next)
