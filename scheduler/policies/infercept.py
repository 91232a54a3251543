"""InferCept (arXiv 2402.01869, ICML 2024): of keeping, swapping and computing anew, what wastes the least memory-time.

With C tokens of the paused request, C_other of those that run, T_fwd the time of a prefill, n chunks, everything over
the bytes of a token:

    discard   T_fwd(C) * C + T_fwd(C) * C_other                 (1)
    preserve  T_INT * C                                         (2)
    swap      2 * T_swap(C) * C_batch                           (3)
    chunked   T_fwd(C) * C / 2 + n * T_fwd(C / n) * C_other     (4)

How long the call will be out is taken to be as long as it has been out already, so keeping costs nothing at first and
is given up when it has come to (4): after (4) / C seconds. Swapping is free as far as it hides behind the forward
pass, T_swap(N) <= T_fwd(batch). Under pressure whoever wastes the least by being discarded goes first. Requests are
served in the order of their first arrival.

Not public: nothing of the formulas; the workload's durations are. Different here: a context is swapped whole or not at
all, when it pauses and not in each iteration, and what is computed anew is computed in the chunks of the engine.
"""

from __future__ import annotations

from ..world import Pause, Program, World
from .bundle import Policy
from .order import by_first_arrival
from .preempt import always_yields
from .retain import Retention
from .worth import LONGEST_S


def discard(world: World, tokens: int) -> float:
    """(4): token-seconds that computing a context again in chunks wastes."""
    costs = world.costs
    chunks = -(-tokens // costs.chunk) if tokens else 0
    each = costs.prefill(-(-tokens // chunks)) if chunks else 0.0
    return costs.prefill(tokens) * tokens / 2 + chunks * each * world.seen


def swap(world: World, tokens: int, tier: str) -> float:
    """(3): token-seconds that both copies waste."""
    there_and_back = world.costs.store(tier, tokens) + world.costs.fetch(tier, tokens)
    return there_and_back * (world.seen + tokens)


def least_waste(world: World, program: Program, pause: Pause) -> Retention:
    """Keep until (2) has come to (4); and copy meanwhile where (3) is less, and hides behind a step."""
    if not pause.tools or not pause.tokens:
        return Retention(0.0, "waits for a person")
    waste = discard(world, pause.tokens)
    seconds = min(waste / pause.tokens, LONGEST_S)
    tier = world.tiers[0] if world.tiers else None
    tiers: tuple[str, ...] = ()
    if tier is not None and tier in world.costs.links and swap(world, pause.tokens, tier) < waste:
        behind = world.costs.step([(world.costs.chunk, world.seen)], world.running, world.seen)
        tiers = (tier,) if world.costs.store(tier, pause.tokens) <= behind else ()
    return Retention(seconds, f"until it has wasted {waste:.3g} token-seconds", tiers)


def by_waste(world: World, program: Program) -> tuple[float, ...]:
    """(5): whoever wastes the least by being discarded, or by being kept as long again, goes first."""
    pause = program.pause
    if pause is None:
        return (0.0, program.number)
    kept = (world.now - pause.since) * pause.tokens
    return (-min(kept, discard(world, pause.tokens)), program.number)


INFERCEPT = Policy(name="infercept", order=by_first_arrival, retain=least_waste, gives=by_waste, yields=always_yields)
