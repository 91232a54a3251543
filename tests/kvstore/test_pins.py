"""Pins: within their budgets, with an end, and safe to end at any moment."""

from __future__ import annotations

import pytest

from sostenuto.kvstore import Grant, Ledger, OutOfPages, Pins, Range, Wish
from sostenuto.kvstore.hints import Pin, answer, hear
from sostenuto.kvstore.pins import PIN_S

from .room import PAGE, frozen, known, leave, write


def pinned(pins: Pins, ledger: Ledger, key: str, tokens: range, **wish: object) -> Grant:
    """A context that nothing keeps but its pin."""
    snapshot = frozen(ledger, tokens)
    now = float(wish.pop("now", 0.0))  # type: ignore[arg-type]
    grant = pins.pin(key, snapshot, Wish(**{"tenant": "t", "until": 60.0, **wish}), now=now)  # type: ignore[arg-type]
    snapshot.close()
    ledger.check()
    return grant


def test_a_pin_inside_the_budget_survives_any_pressure() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=4, each=2)
    grant = pinned(pins, ledger, "a", range(8))
    assert (grant.asked, grant.granted, grant.cap, grant.why) == (2, 2, 2, "pinned")
    for number in range(50):
        leave(ledger, [100 + number] * 24)
    with pytest.raises(OutOfPages):
        ledger.alloc(7)
    assert known(ledger, range(8)) == 8


def test_a_pin_over_the_budget_keeps_the_head_and_says_how_much_of_what() -> None:
    ledger = Ledger(16, PAGE)
    pins = Pins(ledger, total=5, each=3)
    one = pinned(pins, ledger, "a", range(20))
    two = pinned(pins, ledger, "b", range(100, 120), tenant="u")
    none = pinned(pins, ledger, "c", range(200, 204), tenant="v")
    assert [(each.asked, each.granted, each.cap) for each in (one, two, none)] == [(5, 3, 3), (5, 2, 3), (1, 0, 3)]
    assert "tenant's budget of 3 pages" in one.why
    assert "budget of 5 pages for all" in two.why
    assert one.lease is not None
    assert (one.lease.tokens, none.lease) == (tuple(range(12)), None)
    assert (pins.pages, pins.pages_of("t"), pins.pages_of("u"), pins.pages_of("v"), len(pins)) == (5, 3, 2, 0, 2)
    assert repr(pins) == "<Pins 2 on 5/5 pages | 3 a tenant>"


def test_pins_that_are_switched_off_say_so() -> None:
    ledger = Ledger(8, PAGE)
    grant = pinned(Pins(ledger, total=0, each=0), ledger, "a", range(8))
    assert (grant.granted, grant.cap, grant.lease) == (0, 0, None)
    assert "switched off" in grant.why


@pytest.mark.parametrize(("total", "each"), [(8, 1), (4, 5), (4, -1)])
def test_budgets_that_leave_nothing_for_others_are_refused(total: int, each: int) -> None:
    with pytest.raises(ValueError, match=r"each <= total < 8 pages"):
        Pins(Ledger(8, PAGE), total=total, each=each)


def test_pinning_again_restarts_the_clock_and_adds_nothing() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=4, each=2)
    pinned(pins, ledger, "a", range(8), until=10.0)
    pinned(pins, ledger, "a", range(8), until=15.0, now=5.0)
    assert (len(pins), pins.pages) == (1, 2)
    assert ledger.expire(10.0) == ()
    assert len(ledger.expire(15.0)) == 1
    assert (len(pins), pins.pages, pins.pages_of("t"), known(ledger, range(8))) == (0, 0, 0, 8)


def test_no_pin_lasts_longer_than_the_longest_and_one_of_the_past_is_none() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=4, each=2)
    grant = pinned(pins, ledger, "a", range(8), until=float("inf"), now=100.0)
    assert grant.lease is not None
    assert grant.lease.until == 100.0 + PIN_S
    assert "the longest there is" in grant.why
    over = pinned(pins, ledger, "a", range(8), until=100.0, now=100.0)
    assert (over.granted, len(pins)) == (0, 0)


def test_unpinning_all_empties_every_budget_and_unpinning_a_tenant_only_its_own() -> None:
    ledger = Ledger(16, PAGE)
    pins = Pins(ledger, total=8, each=4)
    for tenant in "tuv":
        pinned(pins, ledger, "a", range(8), tenant=tenant)
    hold = frozen(ledger, range(50, 54))
    ledger.hold("not a pin", hold, until=9.0, budget=16)
    assert len(pins.unpin_all(tenant="u")) == 1
    assert (len(pins), pins.pages_of("u"), pins.pages) == (2, 0, 2)
    assert len(pins.unpin_all()) == 2
    assert (len(pins), pins.pages, list(ledger.leases)) == (0, 0, ["not a pin"])
    assert pins.unpin_all() == ()


def test_a_page_that_two_tenants_share_counts_for_both_and_once_in_all() -> None:
    ledger = Ledger(16, PAGE)
    pins = Pins(ledger, total=4, each=2)
    for tenant in "tu":
        pinned(pins, ledger, "a", range(8), tenant=tenant)
    assert (pins.pages, pins.pages_of("t"), pins.pages_of("u")) == (2, 2, 2)
    pins.unpin("a", tenant="t")
    assert (pins.pages, pins.pages_of("t"), pins.pages_of("u")) == (2, 0, 2)
    ledger.check()


def test_a_tenant_cannot_end_or_replace_the_pin_of_another() -> None:
    ledger = Ledger(16, PAGE)
    pins = Pins(ledger, total=8, each=4)
    pinned(pins, ledger, "x|a", range(8), tenant="t")
    pinned(pins, ledger, "a", range(8), tenant="t|x")
    assert len(pins) == 2
    assert pins.unpin("a", tenant="t") is None
    assert pins.find("a", tenant="u") is None
    assert pins.find("a", tenant="t|x") is not None


def test_a_pin_released_while_its_pages_are_in_use_takes_nothing_from_whoever_uses_them() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=4, each=4)
    pinned(pins, ledger, "a", range(8))
    user = write(ledger, range(10))
    pins.unpin("a", tenant="t", stale=True)
    assert [ledger.refs(page) for page in user.pages] == [1, 1, 1]
    with pytest.raises(OutOfPages):
        ledger.alloc(6)
    user.close()
    ledger.check()
    assert known(ledger, range(10)) == 10


def test_a_late_word_of_a_closed_session_does_not_end_the_pin_of_the_next_one() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=4, each=4)
    first = pinned(pins, ledger, "session", range(8)).lease
    assert first is not None
    assert pins.unpin("session", tenant="t") == first
    second = pinned(pins, ledger, "session", range(8)).lease
    assert second is not None
    assert pins.unpin("session", tenant="t", number=first.number) is None
    assert pins.find("session", tenant="t") == second


def test_the_least_important_pin_gives_way_first() -> None:
    ledger = Ledger(16, PAGE)
    pins = Pins(ledger, total=8, each=8)
    pinned(pins, ledger, "dear", range(4), until=30.0, ranges=(Range(0, None, 80),))
    pinned(pins, ledger, "later", range(10, 14), until=50.0)
    pinned(pins, ledger, "sooner", range(20, 24), until=40.0)
    gone = [pins.give_way() for _ in range(4)]
    assert [each.tokens[0] if each else None for each in gone] == [20, 10, 0, None]


def test_what_was_clipped_has_the_priorities_that_the_pin_asked_for() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=1, each=1)
    grant = pinned(pins, ledger, "a", range(12), ranges=(Range(0, 8, 70),))
    assert grant.granted == 1
    match = ledger.match(write(ledger, range(12)).root, range(12))
    assert [ledger.priority(page) for page in match.pages] == [70, 70, 35]


def test_all_pinned_and_a_new_request_gets_the_rest_or_is_told_how_much_there_is_and_what_gives_way() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=7, each=7)
    assert pinned(pins, ledger, "a", range(40, 72)).granted == 7
    assert len(ledger.alloc(1)) == 1  # budgets leave something to everybody
    with pytest.raises(OutOfPages) as told:
        ledger.alloc(4)
    assert (told.value.asked, told.value.available) == (4, 0)
    assert pins.give_way() is not None
    assert len(ledger.alloc(4)) == 4
    assert pins.give_way() is None


def test_an_empty_context_asks_for_nothing_and_gets_it() -> None:
    ledger = Ledger(8, PAGE)
    pins = Pins(ledger, total=4, each=4)
    grant = pins.pin("a", write(ledger, []).freeze(), Wish("t", 60.0), now=0.0)
    assert (grant.asked, grant.granted, grant.lease, len(pins)) == (0, 0, None, 0)


def test_a_hinted_pin_is_answered_with_what_came_of_it() -> None:
    ledger = Ledger(16, PAGE)
    pins = Pins(ledger, total=3, each=3)
    said = {"action_type": "Pin", "action_version": "1", "payload": {"target": {"session": "s"}, "seconds": 5}}
    outcomes = []
    for number, size in enumerate((8, 8, 4)):
        message = {"protocol_version": "0.1", "message_id": "m", "actions": [{"action_id": str(number), **said}]}
        ((action, verb),) = hear(message, now=10.0).wishes
        assert isinstance(verb, Pin)
        tokens = range(100 * number, 100 * number + size)
        grant = pinned(pins, ledger, str(number), tokens, until=verb.until, ranges=verb.ranges, now=10.0)
        reply = answer(action, asked=grant.asked, granted=grant.granted, why=grant.why, cap=grant.cap)
        outcomes.append((reply.outcome, reply.asked, reply.granted, reply.cap))
    assert outcomes == [("accepted", 2, 2, 3), ("clipped", 2, 1, 3), ("rejected", 1, 0, 3)]
