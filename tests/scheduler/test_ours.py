"""Our own policy against cases computed by hand: who goes first, who comes in, who is held and who gives way."""

from __future__ import annotations

from math import inf

import pytest

from sostenuto.scheduler import Forecasts, Pause, named
from sostenuto.tests.scheduler.seen import Seen, pause, program, waiting

OURS = named("sostenuto")
# In these worlds a token takes a hundredth of a second to compute, and a page has ten.


def crowded(*, room: int = 100, available: int = 100, committed: int = 0, contexts: float = 10.0) -> Seen:
    """Somebody waits, contexts have so many pages, and programs compute all the time: R is room over contexts."""
    world = Seen(room=room, available=available, committed=committed, waiting=1)
    world.meters.pages.add(contexts)
    return world


def known(seconds: float, times: int = 200) -> Forecasts:
    forecasts = Forecasts()
    for _ in range(times):
        forecasts.observe("bash", seconds)
    return forecasts


def test_held_then_begun_then_new_programs() -> None:
    world = Seen()
    held, begun = waiting(program(3), tokens=900, holds=True), waiting(program(2), tokens=500)
    new = waiting(program(1, turns=0), tokens=10)
    keys = [OURS.order(world, turn) for turn in (held, begun, new)]
    assert keys == sorted(keys)


def test_a_second_of_work_counts_as_a_hundred_of_coming_later() -> None:
    world = Seen()
    short, long = program(200, turns=0), program(1, turns=0)
    # Two seconds more to read: 200 s later, which is one more than it came earlier.
    assert OURS.order(world, waiting(short, tokens=100)) < OURS.order(world, waiting(long, tokens=300))
    assert OURS.order(world, waiting(short, tokens=102)) > OURS.order(world, waiting(long, tokens=300))
    had = program(1)
    had.served = 4.0
    assert OURS.order(world, waiting(had, tokens=100))[1] == 1.0 + 100 * (4.0 + 1.0)


def test_a_tenant_ahead_of_its_share_comes_later_but_not_by_more_than_five_minutes() -> None:
    for ahead, late in ((20.0, 20.0), (9999.0, 300.0)):
        world = Seen(leads={"default": ahead})
        assert OURS.order(world, waiting(program(5), tokens=100))[1] == 5.0 + 100.0 + late


def test_whoever_has_waited_ten_minutes_goes_before_all_that_have_not() -> None:
    turn = waiting(program(1, turns=0), tokens=900, arrived=7.0)
    assert [OURS.again(Seen(now=now), turn) for now in (7.0, 67.0, 607.0)] == [67.0, 607.0, inf]
    before, then = Seen(now=606.9), Seen(now=607.0)
    held = waiting(program(2), tokens=10, arrived=600.0, holds=True)
    assert OURS.order(before, turn) > OURS.order(before, held)
    assert OURS.order(then, turn) < OURS.order(then, held)
    earlier = waiting(program(3), tokens=900, arrived=5.0)
    assert OURS.order(then, earlier) < OURS.order(then, turn)


def test_a_new_program_comes_in_if_all_that_have_begun_fit_with_it_or_nearly() -> None:
    new = waiting(program(turns=0), tokens=100)  # ten pages, and five to grow
    assert OURS.admit(crowded(committed=110), new, 10)
    assert not OURS.admit(crowded(committed=111), new, 10)
    assert not OURS.admit(crowded(available=14), new, 10)
    assert OURS.admit(crowded(committed=9999), waiting(program(), tokens=100), 10)


def test_where_the_device_is_idle_all_come_in_and_so_does_who_has_starved() -> None:
    new = waiting(program(turns=0), tokens=100)
    idle = crowded(committed=9999, contexts=200.0)  # not one context fits
    assert OURS.admit(idle, new, 10)
    late = crowded(committed=9999)
    late.now = 600.0
    assert OURS.admit(late, new, 10)


def test_no_new_program_comes_in_while_every_worker_has_a_tool_to_run() -> None:
    world = crowded()
    world.calls = world.workers = 4
    assert not OURS.admit(world, waiting(program(turns=0), tokens=100), 10)
    world.calls = 3
    assert OURS.admit(world, waiting(program(turns=0), tokens=100), 10)


def test_in_a_cold_start_it_holds_as_long_as_its_loss_over_the_price() -> None:
    world = crowded()
    world.running = 2
    # 100 tokens: one second to compute, for itself and for both that run beside it, at the size of the mean context.
    assert OURS.retain(world, program(), pause(100)).seconds == pytest.approx(3.0)
    # Twice the size keeps out two, and is twice the loss.
    assert OURS.retain(world, program(), pause(200)).seconds == pytest.approx(3.0)
    world.now = 2.0
    assert OURS.renew(world, program(), pause(100)).seconds == pytest.approx(1.0)
    world.now = 4.0
    assert OURS.renew(world, program(), pause(100)).seconds == 0.0


def test_while_nobody_waits_holding_costs_nothing() -> None:
    assert OURS.retain(Seen(), program(), pause(100)).seconds == 30.0  # and is asked about again


def test_a_tool_that_is_known_is_waited_for_if_it_is_back_before_the_loss_is_spent() -> None:
    world = crowded()
    world.forecasts = known(2.0)
    world.running = 2
    assert 2.0 <= OURS.retain(world, program(), pause(100)).seconds < 3.0
    world.forecasts = known(20.0)
    assert OURS.retain(world, program(), pause(100)).seconds == 0.0


def test_for_a_person_nothing_is_held_and_the_last_tier_gets_a_copy() -> None:
    told = OURS.retain(Seen(tiers=("host", "disk")), program(), Pause("main", (), 0.0, 100))
    assert (told.seconds, told.tiers) == (0.0, ("disk",))


def test_what_is_worth_its_room_yields_to_earlier_programs_that_have_waited_and_to_who_starves() -> None:
    world = crowded()
    world.running, world.now = 200, 100.0  # three minutes are worth it
    holder = program(5, pause=pause(100, since=99.0))
    assert not OURS.yields(world, holder, waiting(program(1), arrived=41.0))
    assert OURS.yields(world, holder, waiting(program(1), arrived=40.0))
    assert not OURS.yields(world, holder, waiting(program(9), arrived=40.0))
    assert OURS.yields(world, holder, waiting(program(9), arrived=-500.0))
    world.running = 0  # a second is worth it, and that is over
    assert OURS.yields(world, holder, waiting(program(9), arrived=99.0))


def test_what_gave_way_is_fetched_shortly_before_the_first_of_its_tools_calls_is_back() -> None:
    world = Seen(tiers=("host",), forecasts=known(20.0))
    # Fetching a hundred tokens takes 0.5 + 0.2 s.
    seconds = OURS.prefetch(world, program(), pause(100))
    assert world.forecasts.of(("bash",), "").curve.quantile(0.1) - 0.7 == pytest.approx(seconds)
    assert OURS.prefetch(Seen(tiers=("host",)), program(), pause(100)) == inf
