"""Autellix (arXiv 2502.13965): programs that have had the least service go first.

PLAS, for chains: the priority of a call is the model time that its program has had, p(c_j) = sum of t_k over k < j.
ATLAS, for graphs of calls: the longest such path to it, p(c_j) = max over its parents k of p(c_k) + t_k. The less, the
sooner. Priorities are cut into queues; inside a queue calls come in the order of their arrival. Against starvation a
call goes to the first queue once its program has waited `BETA` times as long as it was served.

Not public: all code; formulas and beta are those that two re-implementations have in common, the queues' bounds are
one's (2048, 8192 and 32768 tokens: here the time that computing so many takes). A call that has begun is not demoted
within its queue's quantum: it runs to its end. A call's parents are not told to us either: they are taken to be all
calls of its program that were over when it came. Tools and what is kept for them are none of its affairs.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from ..world import Waiting, World
from .bundle import Key, Policy

BOUNDS = (2048, 8192, 32_768)
BETA = 2.0


def level(world: World, served: float) -> int:
    """Which queue so many seconds of service lead to."""
    return sum(served >= world.costs.prefill(tokens) for tokens in BOUNDS)


def program_service(turn: Waiting) -> float:
    """PLAS."""
    return turn.program.served


def longest_path(turn: Waiting) -> float:
    """ATLAS."""
    return turn.path


def starved_at(world: World, turn: Waiting) -> float:
    """When a call's program will have waited BETA times as long as it was served; never, if it was not served yet."""
    program = turn.program
    return turn.arrived + max(0.0, BETA * program.served - program.waited) if program.served else inf


def least_attained(priority: Callable[[Waiting], float]) -> Callable[[World, Waiting], Key]:
    """An order by service had."""

    def order(world: World, turn: Waiting) -> Key:
        starved = world.now >= starved_at(world, turn)
        return (0 if starved else level(world, priority(turn)), turn.arrived, turn.number)

    return order


def when_starved(world: World, turn: Waiting) -> float:
    """Its place is another from then on."""
    at = starved_at(world, turn)
    return at if at > world.now else inf


PLAS = Policy(name="plas", order=least_attained(program_service), again=when_starved)
ATLAS = Policy(name="atlas", order=least_attained(longest_path), again=when_starved)
