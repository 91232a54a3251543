"""Ours: few programs at a time, short ones first, each finding its context again; no hand in it where all is idle.

**Order.** Turns whose context is held go first, for as long as they wait their pages serve nobody; then programs that
have begun; then new ones. Among those the one that came first, where each second of work, had or to be done to read its
prompt, counts as `WEIGHT_S` of coming later, and tenants come later by what they are ahead of their shares. Short jobs
so overtake long ones, but none that came long before: the ratio of waiting to work is what is kept even (Brinch Hansen,
"An analysis of response ratio scheduling", IFIP 1971). Nobody starves: whoever has waited for `STARVED_S` goes before
all that have not, in the order in which they came, and takes whatever room is held.

**Admission.** A new program starts when the contexts of all that have begun, those that are away too, and its own with
room to grow fit together, or nearly (`OVER`, for not all are back at once), and a worker is free for its tools.
Contexts only grow: letting programs in until the pool is full at their smallest means that they evict each other from
then on (ThunderAgent's thrashing; MARS's window). Where R, the programs that compute at a time in a full pool, is below
1, the device is idle whatever is held back: all come in.

**Retention.** A paused context is held for the tau with the least

    price * E[min(t, tau)] + loss * P(t > tau)

over the durations that were seen of its tools, given how long they have been out: exact, and never worse than a fixed
time or Continuum's formula on the same curve. `loss` is the reload, for its own program and once more for each that
runs beside it and waits for its steps; `price` is nothing where nobody waits, else the context's size over the mean
one, since that is whom it keeps out. Where too little is known of a tool, tau is loss / price: ski rental, at most
twice what knowing would cost. Holds are given for `SLICE_S` at a time and then asked about anew, and whenever somebody
wants the room; so a price that rises, or a tool that does not come back, ends them. A newer turn of its branch and the
program's end do so at once. Whoever has waited for `PATIENCE_S` takes the room of programs that came later.

**Where to.** What pauses is copied to the nearest tier if fetching is quicker than computing it anew; so is what leaves
the batch; and what gave way is fetched back when nine in ten of its tool's calls would still be out.
"""

from __future__ import annotations

from math import inf

from ..world import Pause, Program, Waiting, World
from .bundle import Key, Policy
from .evict import stale_first
from .preempt import latest, untended_then_latest
from .retain import Retention, until_wanted
from .worth import LONGEST_S, reload_s

WEIGHT_S = 100.0
"""A second of work counts as much as having come so much later."""
PATIENCE_S = 60.0
STARVED_S = 600.0
LATE_S = 300.0
"""At most so much later for what its tenant has had before others."""
OVER = 1.25
"""So much of the pool may be promised to programs that have begun."""
HEADROOM = 0.5
"""Share of its prompt by which a new program is expected to grow."""
SLICE_S = 30.0
SURE = 0.5
"""From here on a forecast is believed."""
EARLY = 0.1
"""Share of calls that come back before their context was fetched ahead of them."""


def idle(world: World) -> bool:
    """Is the device idle for want of room, whoever is held back?"""
    return world.meters.ratio(world.room) < 1.0


def order(world: World, turn: Waiting) -> Key:
    """Held, begun, new; in each the least of arrival and work."""
    if starved(world, turn):
        return (0, turn.arrived, turn.number)
    program = turn.program
    place = 1 if turn.holds else 2 if program.turns > 0 else 3
    work = program.served + world.costs.prefill(turn.tokens)
    return (place, program.arrived + min(world.lead(program.tenant), LATE_S) + WEIGHT_S * work, turn.number)


def starved(world: World, turn: Waiting) -> bool:
    """Has it waited so long that it goes before all others?"""
    return world.now - turn.arrived >= STARVED_S


def again(world: World, turn: Waiting) -> float:
    """From then on programs that came later give way, and then all."""
    ends = (turn.arrived + PATIENCE_S, turn.arrived + STARVED_S)
    return next((at for at in ends if at > world.now), inf)


def admit(world: World, turn: Waiting, pages: int) -> bool:
    """A new program needs room for all that have begun and for itself."""
    if turn.program.turns > 0 or turn.preempted or turn.holds or not world.grows:
        return True
    wanted = pages + world.growth(turn.tokens, HEADROOM * turn.tokens)
    if world.available < wanted:
        return False
    if idle(world) or starved(world, turn):
        return True
    busy = world.workers is not None and world.calls >= world.workers
    return not busy and world.committed + wanted <= OVER * world.room


def price(world: World, tokens: int) -> float:
    """What a second of holding so many tokens costs: the share of a program that they keep out."""
    if not world.waiting:
        return 0.0
    mean = world.meters.pages.value * world.page
    return tokens / mean if mean else 1.0


def worth_waiting(world: World, pause: Pause) -> float:
    """For how much longer a context is worth its room; 0 if it is not."""
    out, now = world.now - pause.since, price(world, pause.tokens)
    most = LONGEST_S - out
    if now <= 0 or most <= 0:
        return max(most, 0.0)
    loss = reload_s(world, pause.tokens) * (1 + world.running)
    known = world.forecasts.of(pause.tools, pause.shape)
    if known.sure < SURE:
        return max(min(loss / now - out, most), 0.0)
    return known.curve.best(loss, now, out=out, most=most)


def retain(world: World, program: Program, pause: Pause) -> Retention:
    """A slice of the time that it is worth, and a copy where that can be had back sooner than it is computed."""
    if not pause.tools:
        # Whoever waits for a person may do so for days: what is durable is last.
        return Retention(0.0, "waits for a person", world.tiers[-1:])
    why = f"waits for {', '.join(sorted(set(pause.tools)))}"
    return Retention(min(worth_waiting(world, pause), SLICE_S), why, swap(world, pause.tokens))


def renew(world: World, program: Program, pause: Pause) -> Retention:
    """Another slice, if it is still worth it now that its tools have been out for so long."""
    return Retention(
        min(worth_waiting(world, pause), SLICE_S), f"still waits for {', '.join(sorted(set(pause.tools)))}"
    )


def yields(world: World, holder: Program, wanting: Waiting) -> bool:
    """What is not worth its room any more gives way to all, the rest to earlier programs that have waited enough, and
    to whoever starves."""
    pause = holder.pause
    if not holder.tended or pause is None or worth_waiting(world, pause) <= 0 or starved(world, wanting):
        return True
    patient = wanting.running or world.now - wanting.arrived >= PATIENCE_S
    return patient and holder.number > wanting.program.number


def swap(world: World, tokens: int) -> tuple[str, ...]:
    """The nearest tier, where that is quicker than computing it anew."""
    tier = world.costs.nearest(tokens, world.tiers)
    return () if tier is None else (tier,)


def prefetch(world: World, program: Program, pause: Pause) -> float:
    """Shortly before the first of its tool's calls would be back."""
    known = world.forecasts.of(pause.tools, pause.shape)
    if known.sure < SURE:
        return inf  # it is fetched when its tools are back
    out = world.now - pause.since
    return max(0.0, known.curve.quantile(EARLY, out=out) - reload_s(world, pause.tokens))


SOSTENUTO = Policy(
    name="sostenuto",
    order=order,
    again=again,
    admit=admit,
    retain=retain,
    renew=renew,
    mark=until_wanted,
    gives=untended_then_latest,
    yields=yields,
    preempt=latest,
    swap=swap,
    prefetch=prefetch,
    evict=stale_first,
)
