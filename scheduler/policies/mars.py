"""MARS, as its preview has it: a window of programs from the pressure on memory and tools, queues by service had.

The window is additive up, multiplicative down: one more every five seconds while neither memory nor tools are short,
half as many when either is. Whoever has begun may go on. Turns wait in queues by the tokens that their programs
have computed (2048, 8192, 32768), and the same order says who gives way. A pause is held for InferCept's time,

    ttl = T_fwd(C) * (C + C_other) / 2 / C

Not public beyond its preview: the bounds of pressure and the first window, which are ours (a tenth of the pool; tools
that wait for a worker; as many programs as fit at the size that contexts have), and quanta inside a call, which here
runs to its end.
"""

from __future__ import annotations

from math import inf

from ..world import Pause, Program, Waiting, World
from .autellix import BOUNDS
from .bundle import Key, Policy
from .retain import Retention
from .worth import LONGEST_S

SHORT = 0.1
"""Memory is short when less of the pool can be had."""
FIRST = 8.0
"""The window, before it is known how large contexts are."""


def queue(program: Program) -> int:
    """Which queue a program's turns wait in."""
    return sum(program.work >= bound for bound in BOUNDS)


def by_queue(world: World, turn: Waiting) -> Key:
    """The first queue first; in it programs as they came."""
    return (queue(turn.program), turn.program.number, turn.number)


def window(world: World, before: float) -> float:
    """Additive up, multiplicative down."""
    if before == inf:
        pages = world.meters.pages.value
        return max(1.0, world.room / pages) if pages else FIRST
    tools_short = world.workers is not None and world.calls >= world.workers
    if world.available < SHORT * world.room or tools_short:
        return max(1.0, before / 2)
    return before + 1


def within_window(world: World, turn: Waiting, pages: int) -> bool:
    """A new program waits until the window has room for it."""
    return turn.program.turns > 0 or world.active < world.window


def ttl(world: World, program: Program, pause: Pause) -> Retention:
    """The time after which keeping has wasted as much as computing it anew would."""
    if not pause.tools or not pause.tokens:
        return Retention(0.0, "waits for a person")
    seconds = world.costs.prefill(pause.tokens) * (pause.tokens + world.seen) / 2 / pause.tokens
    return Retention(min(seconds, LONGEST_S), f"{seconds:.3g} s waste as much as computing it anew")


def last_queue_first(world: World, program: Program) -> Key:
    """The same order from its end."""
    return (queue(program), program.number)


def to_earlier_queues(world: World, holder: Program, wanting: Waiting) -> bool:
    """Whoever comes later in that order gives way."""
    return last_queue_first(world, holder) > last_queue_first(world, wanting.program)


MARS = Policy(
    name="mars",
    order=by_queue,
    admit=within_window,
    retain=ttl,
    gives=last_queue_first,
    yields=to_earlier_queues,
    preempt=last_queue_first,
    window=window,
)
