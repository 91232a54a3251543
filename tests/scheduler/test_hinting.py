"""Hints that raise, lower and demote: what follows from each, what it may cost others, and what its reply says."""

from __future__ import annotations

import pytest

from sostenuto.scheduler import Finished, Known, Move, Moved, TurnId

from .hearing import EACH, OTHER, ROOM, Hearing, blocks, counts
from .stage import PAGE

# -- priorities


def test_a_tenant_raises_its_share_from_the_beginning_on_and_is_told_how_much() -> None:
    it = Hearing()
    mine, later = it.session("a", 0, 3), it.session("b", 100, 3)
    reply, _ = it.hint("Retain", target={"session": "a"}, steps=1)
    assert counts(reply) == ("accepted", 3, 3)
    reply, _ = it.hint("Retain", target={"session": "b"}, ranges=[{"priority": 80}])
    assert (counts(reply), reply.cap) == (("clipped", 3, 1), EACH)
    assert "the tenant's budget of 4 pages" in reply.why
    priority = it.kernel.ledger.priority
    assert [priority(page) for page in (*mine, *later)] == [96, 96, 96, 80, 35, 35]
    again, _ = it.hint("Retain", target={"session": "a"}, ranges=[{"priority": 90}])
    assert counts(again) == ("accepted", 3, 3), "what is raised already is not in its own way"


def test_a_tenant_at_its_cap_leaves_the_rest_of_the_pool_to_those_who_wish_for_nothing() -> None:
    it = Hearing()
    mine = it.leave(0, 10)
    for stop in (2, 6, 10):
        names = [block.name for block in mine[:stop]]
        it.hint("Retain", target={"blocks": names}, ranges=[{"priority": 100}])
    it.leave(500, ROOM, OTHER)
    assert it.here(mine) == 0, "whoever needs the pool gets it"
    assert it.kernel.ledger.available == ROOM
    mine = it.leave(0, 10)
    it.hint("Retain", target={"blocks": [block.name for block in mine]}, ranges=[{"priority": 100}])
    theirs = it.leave(500, ROOM - EACH, OTHER)
    assert (it.here(mine), it.here(theirs, OTHER)) == (EACH, ROOM - EACH)


def test_lowering_is_free_and_holds_for_what_lies_beyond_the_cap() -> None:
    it = Hearing()
    pages = it.session("a", 0, 8)
    ranges = [{"stop": 6 * PAGE, "priority": 80}, {"priority": 5}]
    reply, _ = it.hint("Retain", target={"session": "a"}, ranges=ranges)
    assert counts(reply) == ("clipped", 8, 6)
    assert [it.kernel.ledger.priority(page) for page in pages] == [80] * EACH + [35] * 2 + [5] * 2
    reply, _ = it.hint("Retain", target={"session": "a"}, ranges=[{"priority": 0}])
    assert counts(reply) == ("accepted", 8, 8)


def test_what_a_wish_raised_before_is_not_in_the_way_of_the_one_that_replaces_it() -> None:
    it = Hearing()
    pages = it.session("a", 0, 2 * EACH)
    for ranges in ([{"stop": EACH * PAGE, "priority": 80}], [{"start": EACH * PAGE, "priority": 80}]):
        reply, _ = it.hint("Retain", target={"session": "a"}, ranges=ranges)
        assert counts(reply) == ("accepted", EACH, EACH)
    assert [it.kernel.ledger.priority(page) for page in pages] == [35] * EACH + [80] * EACH


def test_a_reply_counts_the_pages_that_the_ranges_are_about() -> None:
    it = Hearing()
    it.session("a", 0, 4)
    reply, _ = it.hint("Retain", target={"session": "a"}, ranges=[{"stop": 2 * PAGE, "priority": 80}])
    assert counts(reply) == ("accepted", 2, 2)
    reply, _ = it.hint("Retain", target={"session": "a"}, ranges=[{"start": 100 * PAGE, "priority": 80}])
    assert (counts(reply), reply.why) == (("missing", 0, 0), "none of its pages begins in these ranges")


@pytest.mark.parametrize("end", ["time", "another range", "eviction"])
def test_what_is_raised_no_more_makes_room_for_another(end: str) -> None:
    it = Hearing()
    mine = it.leave(0, EACH)
    names = [block.name for block in mine]
    it.hint("Retain", target={"blocks": names}, ranges=[{"priority": 80, "seconds": 5}])
    match end:
        case "time":
            it.now += 5.0
        case "another range":
            it.hint("Retain", target={"blocks": names}, ranges=[{"priority": 20}])
        case _:
            it.leave(100, ROOM)
    it.session("b", 900, EACH)
    reply, _ = it.hint("Retain", target={"session": "b"}, ranges=[{"priority": 80}])
    assert counts(reply) == ("accepted", EACH, EACH)


def test_the_ranges_of_a_pin_count_like_any_others() -> None:
    it = Hearing()
    pages = it.session("a", 0, 6)
    reply, _ = it.hint("Pin", target={"session": "a"}, seconds=60, ranges=[{"priority": 90}])
    assert (counts(reply), reply.cap) == (("clipped", 6, EACH), EACH)
    assert "2 pages keep their priority" in reply.why
    assert [it.kernel.ledger.priority(page) for page in pages] == [90] * EACH + [35] * 2
    it.session("b", 100, 1)
    reply, _ = it.hint("Retain", target={"session": "b"}, steps=0)
    assert counts(reply) == ("rejected", 1, 0)
    ranges = [{"start": 4 * PAGE, "priority": 90}]
    it.hint("Pin", target={"session": "a"}, seconds=60, ranges=ranges)
    assert [it.kernel.ledger.priority(page) for page in pages] == [35] * 4 + [90] * 2


def test_a_pin_that_holds_all_but_raises_a_part_says_that_it_was_clipped() -> None:
    it = Hearing()
    it.session("a", 0, 3)
    it.hint("Retain", target={"session": "a"}, steps=0)
    it.session("b", 100, 2)
    reply, _ = it.hint("Pin", target={"session": "b"}, seconds=60, ranges=[{"priority": 90}])
    assert counts(reply) == ("clipped", 2, 2)
    assert reply.why.startswith("pinned; 1 pages keep their priority")


def test_what_has_come_to_its_end_is_in_nobodys_way() -> None:
    it = Hearing()
    it.session("a", 0, EACH)
    it.session("b", 100, EACH)
    it.hint("Pin", target={"session": "a"}, seconds=5)
    it.now += 5.0
    reply, _ = it.hint("Pin", target={"session": "b"}, seconds=5)
    assert counts(reply) == ("accepted", EACH, EACH)


# -- demotion


def test_what_is_demoted_to_a_tier_stays_until_it_is_there_and_leaves_first_from_then_on() -> None:
    it = Hearing(room=10, host=None, disk=None)
    it.run("a", range(12), program="default/a")
    (copy,) = [effect for effect in it.pause("a") if isinstance(effect, Move)]
    it.arrived(copy)
    others = it.leave(500, 4)
    reply, (move,) = it.hint("Demote", target={"session": "a"}, tier="disk")
    assert (counts(reply), move.source, move.target) == (("deferred", 3, 3), "device", "disk")
    assert it.kernel.ledger.leases == {}
    it.leave(900, 5)
    assert (it.here(blocks(0, 3)), it.here(others)) == (3, 2), "it is held while it is copied"
    it.arrived(move)
    it.leave(700, 3)
    assert (it.here(blocks(0, 3)), it.here(others)) == (0, 2), "and goes before everything else afterwards"


def test_what_is_partly_there_and_partly_on_its_way_is_ranked_as_a_whole_once_it_is_there() -> None:
    it = Hearing(room=8)
    it.tell(Known("host", blocks(0, 2)))
    it.run("a", range(400, 401))
    it.tell(Finished(TurnId("a")))
    _, (fetched,) = it.prefetch(blocks(0, 2))
    it.arrived(fetched)
    it.run("s", range(12), program="default/s")
    (copy,) = [effect for effect in it.pause("s") if isinstance(effect, Move)]
    assert len(copy.blocks) == 1, "the beginning lies there already, the end is on its way"
    reply, moves = it.hint("Demote", target={"session": "s"}, tier="host")
    assert (counts(reply), moves) == (("deferred", 3, 3), [])
    others = it.leave(500, 2)
    it.leave(900, 3)
    assert it.here(blocks(0, 3)) == 3
    it.arrived(copy)
    it.leave(700, 3)
    assert (it.here(blocks(0, 3)), it.here(others)) == (0, 2)


def test_a_page_in_which_nothing_can_be_found_is_no_part_of_what_is_demoted() -> None:
    it = Hearing(room=8)
    it.leave(0, 2)
    it.arrive("s", [*range(6), 99], program="default/s")
    (copy,) = [effect for effect in it.pause("s") if isinstance(effect, Move)]
    assert it.kernel.ledger.held == 2, "the second was copied for the turn, which came to compute nothing"
    reply, _ = it.hint("Demote", target={"session": "s"}, tier="host")
    assert reply.outcome == "deferred"
    it.arrived(copy)
    assert "0/8 taken | 2 cached" in repr(it.kernel)


def test_a_twin_of_what_is_being_copied_waits_for_that_copy() -> None:
    it = Hearing(room=8)
    for name in "ab":
        it.arrive(name, range(4), program=f"default/{name}")
    for name in "ab":
        it.compute(name, 4)
    (copy,) = [effect for effect in it.pause("a") if isinstance(effect, Move)]
    assert not [effect for effect in it.pause("b") if isinstance(effect, Move)]
    reply, moves = it.hint("Demote", target={"session": "b"}, tier="host")
    assert (counts(reply), moves) == (("deferred", 1, 1), [])
    it.arrived(copy)
    reply, _ = it.hint("Demote", target={"session": "a"}, tier="host")
    assert counts(reply) == ("accepted", 1, 1)


def test_what_could_not_be_copied_to_the_tier_keeps_its_place() -> None:
    it = Hearing(room=8)
    it.leave(500, 4)
    it.run("s", range(8), program="default/s")
    (copy,) = [effect for effect in it.pause("s") if isinstance(effect, Move)]
    it.hint("Demote", target={"session": "s"}, tier="host")
    it.tell(Moved(copy.id, (copy.blocks[0].name,)))
    it.leave(700, 4)
    assert (it.here(blocks(0, 2)), it.here(blocks(500, 4))) == (2, 2), "what was used before it goes before it"


def test_what_is_demoted_while_it_is_being_copied_leaves_first_once_that_is_over() -> None:
    it = Hearing(room=8)
    it.leave(500, 4)
    it.run("s", range(8), program="default/s")
    (copy,) = [effect for effect in it.pause("s") if isinstance(effect, Move)]
    reply, moves = it.hint("Demote", target={"session": "s"})
    assert (counts(reply), moves) == (("deferred", 2, 2), [])
    it.tell(Moved(copy.id))
    it.leave(700, 4)
    assert (it.here(blocks(0, 2)), it.here(blocks(500, 4))) == (0, 4)


def test_what_is_demoted_and_copied_nowhere_leaves_first_at_once() -> None:
    it = Hearing(room=8)
    it.leave(500, 4)
    it.session("s", 0, 2)
    for move in [effect for effect in it.log if isinstance(effect, Move)]:
        it.arrived(move)
    reply, moves = it.hint("Demote", target={"session": "s"}, tier="host")
    assert (counts(reply), moves) == (("accepted", 2, 2), [])
    it.leave(700, 4)
    assert (it.here(blocks(0, 2)), it.here(blocks(500, 4))) == (0, 4)


def test_a_demoted_context_that_somebody_took_up_meanwhile_is_not_taken_from_him() -> None:
    it = Hearing(room=8)
    it.run("s", range(8), program="default/s")
    (copy,) = [effect for effect in it.pause("s") if isinstance(effect, Move)]
    it.hint("Demote", target={"session": "s"}, tier="host")
    assert it.run("t", range(10)).reuse == 8
    it.arrived(copy)
    it.tell(Finished(TurnId("t")))
    it.leave(500, 5)
    assert it.here(blocks(0, 2)) == 2
