"""The field's policies against cases computed by hand from their formulas."""

from __future__ import annotations

from math import inf, isclose, log

import pytest

from sostenuto.scheduler import POLICIES, Curve, Forecasts, Future, Pause, Policy, Retention, named, oracle
from sostenuto.scheduler.policies.autellix import level
from sostenuto.scheduler.policies.continuum import most
from sostenuto.scheduler.policies.infercept import discard, swap
from sostenuto.scheduler.policies.thunderagent import demand
from sostenuto.tests.scheduler.seen import Seen, pause, program, waiting


def told(*durations: float, tool: str = "bash") -> Forecasts:
    forecasts = Forecasts()
    for seconds in durations:
        forecasts.observe(tool, seconds)
    return forecasts


def seconds(policy: str, world: Seen, paused: Pause) -> float:
    return named(policy).retain(world, program(pause=paused), paused).seconds


def test_all_of_them_are_there_under_their_names() -> None:
    expected = "sostenuto forgetful fixed-ttl continuum infercept plas atlas mars thunderagent kvflow ski-rental"
    assert set(POLICIES) == set(expected.split())
    assert oracle(Future()).name == "oracle"
    with pytest.raises(ValueError, match="only a simulation can have it"):
        named("oracle")
    with pytest.raises(ValueError, match="there is no policy 'fifo'"):
        named("fifo")


@pytest.mark.parametrize("policy", [*POLICIES.values(), oracle(Future())], ids=lambda policy: policy.name)
def test_nobody_is_held_for_a_person(policy: Policy) -> None:
    nobody = Pause("main", (), 0.0, 500)
    world = Seen(forecasts=told(*[1.0] * 200))
    assert policy.retain(world, program(pause=nobody), nobody).seconds == 0


def test_forgetful_holds_nothing_and_goes_by_arrival() -> None:
    forgetful = named("forgetful")
    assert forgetful.retain(Seen(), program(), pause(500)) == Retention(0.0, "no holds under this policy")
    late, early = waiting(program(1), arrived=9.0), waiting(program(2), arrived=3.0)
    assert forgetful.order(Seen(), early) < forgetful.order(Seen(), late)


def test_fixed_ttl_holds_two_seconds_whatever_the_tool() -> None:
    assert [seconds("fixed-ttl", Seen(), pause(tokens, tool)) for tokens, tool in ((10, "a"), (900, "b"))] == [2, 2]


def test_ski_rental_holds_as_long_as_its_loss() -> None:
    world = Seen()
    assert seconds("ski-rental", world, pause(500)) == 5.0  # 500 tokens at 10 ms
    world.meters.queued.add(7.0)
    assert seconds("ski-rental", world, pause(500)) == 12.0
    assert seconds("ski-rental", Seen(tiers=("host",)), pause(500)) == 1.5  # 0.5 s and 500 tokens at 2 ms


def test_continuum_in_a_cold_start_takes_the_exponential_prior() -> None:
    assert isclose(seconds("continuum", Seen(), pause(500)), log(5.0))
    assert seconds("continuum", Seen(), pause(50)) == 0  # a gain of half a second is below the prior's mean
    world = Seen(forecasts=told(*[3.0] * 100))
    world.meters.queued.add(5.0)
    assert isclose(seconds("continuum", world, pause(500)), log(10.0))  # a hundred observations are not enough


def test_continuum_takes_the_tau_with_the_greatest_gain() -> None:
    halves = Curve((1.0, 8.0), (0.5, 0.5))
    assert most(halves, 1.5) == 0.0  # 0.75 - 1 and 1.5 - 8
    assert most(halves, 10.0) == 1.0  # 5 - 1 against 10 - 8
    assert most(halves, 20.0) == 8.0  # 10 - 1 against 20 - 8
    world = Seen(forecasts=told(*[1.0, 8.0] * 60))
    near, far = world.forecasts.of(["bash"]).curve.times
    assert seconds("continuum", world, pause(1000)) == near
    assert seconds("continuum", world, pause(2000)) == far
    # Of a tool that was seen too seldom, all tools' durations count.
    world.forecasts.observe("rare", 500.0)
    assert seconds("continuum", world, pause(1000, "rare")) == near


def test_continuum_weighs_the_wait_by_eta() -> None:
    world = Seen(forecasts=told(*[1.0, 8.0] * 60))
    world.meters.queued.add(15.0)
    assert seconds("continuum", world, pause(500)) == world.forecasts.of(["bash"]).curve.times[1]  # gain 5 + 15
    for turns in (1, 40):
        world.meters.finished(turns)  # long and short programs: many turns done do not tell that few are left
    assert world.meters.eta < 1
    gain = 5 + 15 * world.meters.eta
    assert seconds("continuum", world, pause(500)) == most(world.forecasts.of(["bash"]).curve, gain)


def test_continuums_queue_is_preempted_then_pinned_then_programs_as_they_came() -> None:
    order = named("continuum").order
    plain, pinned = waiting(program(1)), waiting(program(2), holds=True)
    taken_out = waiting(program(3))
    taken_out = type(taken_out)(taken_out.turn, taken_out.program, 0.0, 3, 100, False, preempted=True)
    keys = [order(Seen(), turn) for turn in (taken_out, pinned, plain)]
    assert keys == sorted(keys)


def test_infercepts_wastes_are_those_of_the_paper() -> None:
    world = Seen(seen=300, tiers=("host",))
    # (4) for C = 200: T = 2 s, n = 2 chunks of 100: 2 * 200 / 2 + 2 * 1 * 300
    assert discard(world, 200) == 200 + 600
    # (3): (0.5 + 200 * 0.001) + (0.5 + 200 * 0.002) = 1.6 s, over 300 + 200 tokens
    assert isclose(swap(world, 200, "host"), 1.6 * 500)
    assert seconds("infercept", world, pause(200)) == 800 / 200


def test_infercept_copies_where_that_wastes_less_and_hides_behind_a_step() -> None:
    retain = named("infercept").retain
    some = pause(200)
    assert retain(Seen(seen=300, tiers=("host",)), program(pause=some), some).tiers == ()  # 800 against 800
    assert retain(Seen(seen=3000, tiers=("host",)), program(pause=some), some).tiers == ("host",)  # 5120 against 6200
    long = pause(900)
    assert retain(Seen(seen=9000, tiers=("host",)), program(pause=long), long).tiers == (), "1.4 s behind a step of 1 s"


def test_under_pressure_infercept_lets_go_what_wastes_least() -> None:
    gives = named("infercept").gives
    world = Seen(now=10.0)
    # Kept for 10 s: 2000 token-seconds of 200 tokens, of which computing anew wastes 200; and 9 of 9, 9 * 0.09 / 2.
    large, small = program(1, pause=pause(200)), program(2, pause=pause(9))
    assert gives(world, small) > gives(world, large)


def test_plas_puts_programs_into_queues_by_the_service_they_had() -> None:
    world, order = Seen(now=5.0), named("plas").order
    assert [level(world, served) for served in (0.0, 20.0, 20.48, 81.92, 327.68)] == [0, 0, 1, 2, 3]
    fresh, old = program(1), program(2)
    old.served, old.waited = 30.0, 0.0
    assert order(world, waiting(fresh, arrived=4.0)) < order(world, waiting(old, arrived=1.0))


def test_plas_lets_nobody_starve_who_waited_twice_as_long_as_it_was_served() -> None:
    plas, old = named("plas"), program(1)
    old.served, old.waited = 30.0, 10.0
    turn = waiting(old, arrived=100.0)
    assert plas.again(Seen(now=100.0), turn) == 150.0  # 2 * 30 - 10 seconds later
    assert plas.order(Seen(now=149.0), turn)[0] == 1
    assert plas.order(Seen(now=150.0), turn)[0] == 0
    assert plas.again(Seen(now=150.0), turn) == inf


def test_atlas_goes_by_the_longest_path_and_not_by_the_sum() -> None:
    wide = program(1)
    wide.served, wide.path = 400.0, 10.0
    turn = waiting(wide)
    assert named("plas").order(Seen(), turn)[0] == 3
    assert named("atlas").order(Seen(), turn)[0] == 0


def test_mars_window_is_additive_up_and_multiplicative_down() -> None:
    window = named("mars").window
    world = Seen(available=50)
    assert window(world, inf) == 8.0
    world.meters.pages.add(10.0)
    assert window(world, inf) == 10.0  # a hundred pages, ten a context
    assert window(world, 10.0) == 11.0
    assert window(Seen(available=9), 10.0) == 5.0
    assert window(Seen(available=50, calls=4, workers=4), 10.0) == 5.0
    assert window(Seen(available=9), 1.0) == 1.0


def test_mars_lets_new_programs_in_as_far_as_the_window_goes_and_others_always() -> None:
    mars, world = named("mars"), Seen(active=5, window=5.0)
    assert not mars.admit(world, waiting(program(turns=0)), 1)
    assert mars.admit(Seen(active=4, window=5.0), waiting(program(turns=0)), 1)
    assert mars.admit(world, waiting(program(turns=3)), 1)


def test_in_mars_one_order_says_who_starts_and_who_gives_way() -> None:
    mars, world = named("mars"), Seen(seen=100)
    young, old = program(2), program(1)
    old.work = 9000
    assert mars.order(world, waiting(young)) < mars.order(world, waiting(old))
    assert mars.gives(world, old) > mars.gives(world, young)
    assert mars.yields(world, old, waiting(young))
    assert not mars.yields(world, young, waiting(old))
    assert seconds("mars", world, pause(200)) == 2 * (200 + 100) / 2 / 200


def test_thunderagent_counts_those_that_act_for_less_with_every_second() -> None:
    world, agent = Seen(seen=400, acting=12.5), named("thunderagent")
    assert demand(world) == 40 + 12.5
    assert agent.admit(world, waiting(program(), tokens=475), 48)
    assert not agent.admit(world, waiting(program(), tokens=476), 48)
    assert agent.admit(world, waiting(program(), tokens=9999, holds=True), 1)


def test_thunderagent_pauses_and_restores_the_smallest_first() -> None:
    agent, world = named("thunderagent"), Seen()
    small, large = program(1, tokens=10, pause=pause(10)), program(2, tokens=900, pause=pause(900))
    running = program(3, tokens=900)
    keys = [agent.gives(world, one)[0] for one in (small, large, running)]
    assert [round(key, 4) for key in keys] == [1.1, 1.0011, 0.0011]
    held, back = waiting(program(4), holds=True), waiting(program(5), tokens=50)
    larger, new = waiting(program(6), tokens=60), waiting(program(7, turns=0), tokens=1)
    order = [agent.order(world, turn) for turn in (held, back, larger, new)]
    assert order == sorted(order)


def test_kvflow_goes_by_steps_to_the_next_use() -> None:
    flow, world = named("kvflow"), Seen(tiers=("host",))
    next_, acting, far, done = program(1), program(2, pause=pause(10)), program(3), program(4)
    next_.steps, far.steps = 1, 5
    keys = [flow.gives(world, one)[0] for one in (next_, acting, far, done)]
    assert keys == [1, 2, 5, inf]
    assert flow.prefetch(world, next_, pause(10)) == 0.0
    assert flow.prefetch(world, far, pause(10)) == inf
    assert flow.retain(world, acting, pause(10)).tiers == ("host",)


def test_the_oracle_holds_through_pauses_it_knows_and_lets_whoever_is_back_last_give_way() -> None:
    near, far, never = (program(number, pause=pause(10)) for number in (1, 2, 3))
    future = Future(pauses={near.id: 4.0, far.id: 900.0}, left={near.id: 50.0, far.id: 10.0})
    knows, world = oracle(future), Seen()
    assert knows.retain(world, near, pause(10)).seconds == 5.0
    assert knows.retain(world, never, pause(10)).seconds == 0.0
    keys = [knows.gives(world, one) for one in (near, far, never)]
    assert keys == sorted(keys)
    assert knows.order(world, waiting(far)) < knows.order(world, waiting(near)) < knows.order(world, waiting(never))
    # Nobody waits: no room is dear. Somebody does: four seconds of one's own size against a reload of 0.1 s.
    assert not knows.yields(world, near, waiting(far))
    assert knows.yields(Seen(waiting=1), near, waiting(far))
    assert knows.yields(world, never, waiting(far))
