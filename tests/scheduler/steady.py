"""A policy without forecasts or prices, for tests of the mechanism: a minute for tools, programs as they came."""

from __future__ import annotations

from sostenuto.scheduler import Pause, Policy, Program, Retention, Waiting, World
from sostenuto.scheduler.policies.evict import stale_first
from sostenuto.scheduler.policies.preempt import untended_then_latest
from sostenuto.scheduler.policies.retain import until_wanted

HEAD_START_S = 30.0


def by_program(world: World, turn: Waiting) -> tuple[float, ...]:
    start = turn.program.arrived - (HEAD_START_S if turn.holds else 0.0)
    return (start, turn.program.number, turn.number)


def with_headroom(world: World, turn: Waiting, pages: int) -> bool:
    if turn.program.turns > 0 or turn.preempted or turn.holds or not world.grows:
        return True
    return world.available >= pages + world.growth(turn.tokens, 0.5 * turn.tokens)


def through_tools(world: World, program: Program, pause: Pause) -> Retention:
    if not pause.tools:
        return Retention(0.0, "waits for a person", world.tiers[-1:])
    return Retention(60.0, f"waits for {', '.join(sorted(set(pause.tools)))}", world.tiers[:1])


def to_earlier(world: World, holder: Program, wanting: Waiting) -> bool:
    return not holder.tended or holder.number > wanting.program.number


STEADY = Policy(
    name="steady",
    order=by_program,
    admit=with_headroom,
    retain=through_tools,
    mark=until_wanted,
    gives=untended_then_latest,
    yields=to_earlier,
    evict=stale_first,
)
