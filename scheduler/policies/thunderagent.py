"""ThunderAgent (arXiv 2602.13692): programs whose tools are out are paused when contexts no longer fit together.

Memory thrashes when

    C < sum of c_p over those that reason + sum of c_q * f(t_q) over those that act,   f(t) = 2 ** -t

with c the contexts and t the time that a tool has been out. Paused is whoever has the highest score 1 / c + [acting],
restored whoever has the highest 1 / c + [reasoning]: small contexts first, because computing one anew costs its square,
and new programs between those that reason and those that act. What is paused has lost its context.

Not public: the unit of t in f, taken to be seconds. Different here: it is looked at whenever somebody wants room, not
every five seconds; the router over several replicas, the best fit among them, and the preparation of tools'
environments are not of this house.
"""

from __future__ import annotations

from ..world import Pause, Program, Waiting, World
from .bundle import Key, Policy
from .preempt import always_yields
from .retain import Retention
from .worth import LONGEST_S


def demand(world: World) -> float:
    """Pages that all who are not paused want."""
    return world.seen / world.page + world.acting


def without_thrashing(world: World, turn: Waiting, pages: int) -> bool:
    """Whoever holds its context goes on; others come, or come back, where all fit together."""
    return turn.holds or turn.preempted or demand(world) + turn.tokens / world.page <= world.room


def restored_first(world: World, turn: Waiting) -> Key:
    """Who was not paused, then the smallest of those that were, then new programs as they came."""
    if turn.holds:
        return (0, turn.program.number, turn.number)
    if turn.program.turns:
        return (1, turn.tokens, turn.number)
    return (2, turn.program.number, turn.number)


def until_paused(world: World, program: Program, pause: Pause) -> Retention:
    """A context stays until somebody wants its room."""
    return Retention(LONGEST_S if pause.tools else 0.0, "acting, and not paused")


def smallest(world: World, program: Program) -> Key:
    """1 / c + [acting]; those that hold act."""
    acting = 1.0 if program.pauses else 0.0
    return (acting + 1 / max(program.tokens, 1), program.number)


THUNDERAGENT = Policy(
    name="thunderagent",
    order=restored_first,
    admit=without_thrashing,
    retain=until_paused,
    gives=smallest,
    yields=always_yields,
    preempt=smallest,
)
