"""Hints in the kernel's own terms: what follows from each, what it may cost others, and what its reply says."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

import pytest

from sostenuto.kvstore import BlockHash, Elsewhere, PageId, root
from sostenuto.kvstore.hints import Reply
from sostenuto.kvstore.record import links
from sostenuto.scheduler import (
    Answered,
    Arrived,
    Cancelled,
    Finished,
    Hinted,
    Known,
    Move,
    Moved,
    Moving,
    ProgramId,
    Progress,
    Start,
    Stepped,
    TurnId,
)

from .stage import PAGE, ROOT, Stage

OTHER = root(model="m", tenant="other").hex()
ROOM = 16
EACH, ALL = 4, 8
"""Pages that the prefetches of a tenant, and of all, may take of this pool; as many may be raised."""


def blocks(start: int, size: int, at: str = ROOT) -> tuple[Moving, ...]:
    """A chain of full blocks of the tokens from `start` on."""
    tokens = range(start, start + size * PAGE)
    found = links(tokens, PAGE, BlockHash(bytes.fromhex(at)))
    return tuple(Moving(link.name.hex(), link.parent.hex(), link.tokens) for link in found)


class Hearing(Stage):
    """A stage that is also told hints."""

    def __init__(self, room: int = ROOM, **rooms: int | None) -> None:
        super().__init__(room=room, elsewhere=Elsewhere(PAGE, rooms or {"host": None}))
        self._ids = count(1)

    def hint(self, verb: str, *, tenant: str = "default", at: str = ROOT, **payload: Any) -> tuple[Reply, list[Move]]:
        action = {"action_id": "1", "action_type": verb, "action_version": "1", "payload": payload}
        message = json.dumps({"protocol_version": "0.1", "message_id": "m", "actions": [action]})
        effects = self.tell(Hinted(next(self._ids), tenant, at, message))
        ((reply,),) = [effect.replies for effect in effects if isinstance(effect, Answered)]
        return reply, [effect for effect in effects if isinstance(effect, Move)]

    def prefetch(self, wanted: Iterable[Moving], **rest: Any) -> tuple[Reply, list[Move]]:
        return self.hint("Prefetch", target={"blocks": [block.name for block in wanted]}, **rest)

    def here(self, wanted: Sequence[Moving], at: str = ROOT) -> int:
        """How many blocks of a chain lie on the device."""
        names = [block.link.name for block in wanted]
        return len(self.kernel.ledger.chain(BlockHash(bytes.fromhex(at)), names))

    def arrived(self, move: Move) -> None:
        self.tell(Moved(move.id, tuple(block.name for block in move.blocks)))

    def leave(self, start: int, size: int, at: str = ROOT) -> tuple[Moving, ...]:
        """A context of so many blocks, computed and held by nobody; one that fills the pool lacks a token."""
        turn, found = TurnId(f"left {start} {at}"), blocks(start, size, at)
        tokens = tuple(range(start, start + size * PAGE))[: self.kernel.ledger.room * PAGE - 1]
        effects = self.tell(Arrived(turn, ProgramId(turn), "main", at, tokens, 4))
        (begun,) = [effect for effect in effects if isinstance(effect, Start)]
        self.tell(Stepped((Progress(turn, len(tokens) - begun.reuse),)))
        self.tell(Finished(turn))
        return found

    def session(self, name: str, start: int, size: int) -> tuple[PageId, ...]:
        """A session that paused for a tool; the pages that it holds."""
        self.run(name, range(start, start + size * PAGE), program=f"default/{name}")
        self.pause(name)
        return self.kernel.ledger.leases[self.kernel.books.programs[ProgramId(f"default/{name}")].leases["main"]].pages


def counts(reply: Reply) -> tuple[str, int, int]:
    return reply.outcome, reply.asked, reply.granted


# -- prefetch


def test_what_is_on_its_way_already_is_not_fetched_twice() -> None:
    it, wanted = Hearing(), blocks(0, 3)
    it.tell(Known("host", wanted))
    first, (move,) = it.prefetch(wanted[:2])
    assert counts(first) == ("deferred", 2, 2)
    again, moves = it.prefetch(wanted[:2])
    assert (counts(again), moves, again.why) == (("deferred", 2, 2), [], "2 blocks are on their way already")
    longer, (rest,) = it.prefetch(wanted)
    assert (counts(longer), [block.name for block in rest.blocks]) == (("deferred", 3, 3), [wanted[2].name])
    it.arrived(rest)
    it.arrived(move)
    assert it.here(wanted) == 3
    assert [it.kernel.ledger.content(page).depth for page in pages_of(it, wanted)] == [0, 1, 2]  # type: ignore[union-attr]
    done, moves = it.prefetch(wanted)
    assert (counts(done), moves, done.why) == (("accepted", 3, 3), [], "it is on the device")


def pages_of(it: Hearing, wanted: Sequence[Moving]) -> Sequence[Any]:
    return it.kernel.ledger.chain(BlockHash(bytes.fromhex(ROOT)), [block.link.name for block in wanted])


def test_what_is_on_its_way_though_its_beginning_did_not_arrive_is_not_fetched_twice() -> None:
    it, wanted = Hearing(), blocks(0, 4)
    it.tell(Known("host", wanted))
    _, (beginning,) = it.prefetch(wanted[:2])
    _, (end,) = it.prefetch(wanted[:3])
    it.tell(Moved(beginning.id))
    _, (again,) = it.prefetch(wanted)
    assert [block.name for block in again.blocks] == [block.name for block in wanted[:2]]
    it.arrived(again)
    it.arrived(end)
    assert it.here(wanted) == 3


def test_what_is_fetched_for_a_turn_is_not_fetched_once_more_unless_that_turn_is_gone() -> None:
    it, wanted = Hearing(), blocks(0, 3)
    it.tell(Known("host", wanted))
    it.arrive("a", range(14))
    assert it.prefetch(wanted)[1] == []
    it.tell(Cancelled(TurnId("a")))
    _, (move,) = it.prefetch(wanted)
    assert [block.name for block in move.blocks] == [block.name for block in wanted]


def test_where_a_beginning_is_on_the_device_the_rest_is_fetched_and_the_beginning_stays_meanwhile() -> None:
    it = Hearing()
    wanted = blocks(0, 4)
    it.leave(0, 2)
    it.leave(100, ROOM - 2)
    it.tell(Known("host", wanted))
    reply, (move,) = it.prefetch(wanted)
    assert (counts(reply), [block.name for block in move.blocks]) == (
        ("deferred", 4, 4),
        [block.name for block in wanted[2:]],
    )
    assert it.here(wanted) == 2, "the oldest pages of all were not evicted for what goes on from them"
    it.arrived(move)
    assert it.here(wanted) == 4


def test_what_nobody_knows_is_missing_and_another_tier_than_the_device_is_refused() -> None:
    it, wanted = Hearing(), blocks(0, 2)
    reply, moves = it.prefetch(wanted)
    assert (counts(reply), moves) == (("missing", 0, 0), [])
    it.tell(Known("host", wanted))
    reply, moves = it.prefetch(wanted, tier="host")
    assert (reply.outcome, moves) == ("rejected", [])


def test_another_tenant_fetches_nothing_by_names_of_blocks_that_are_on_their_way() -> None:
    it, wanted = Hearing(), blocks(0, 3)
    it.tell(Known("host", wanted))
    it.prefetch(wanted[:2])
    for start in range(3):
        reply, moves = it.prefetch(wanted[start:], tenant="other", at=OTHER)
        assert (counts(reply), moves) == (("missing", 0, 0), [])


def test_a_tenants_prefetches_take_free_pages_first_and_push_out_no_more_than_its_share() -> None:
    it = Hearing()
    theirs = it.leave(500, ROOM - 2, OTHER)
    wanted = blocks(0, 12)
    it.tell(Known("host", wanted))
    _, (move,) = it.prefetch(wanted[:2])
    assert it.here(theirs, OTHER) == ROOM - 2, "two pages were free"
    it.arrived(move)
    reply, (move,) = it.prefetch(wanted)
    assert (counts(reply), reply.cap) == (("clipped", 12, EACH), EACH)
    assert "the tenant's budget of 4 pages" in reply.why
    it.arrived(move)
    for number in range(4):
        reply, moves = it.prefetch(wanted[: EACH + number])
        assert moves == []
    assert counts(reply) == ("clipped", EACH + 3, EACH), "what has come lies there, and no more comes"
    reply, moves = it.prefetch(blocks(0, 1))
    assert counts(reply) == ("accepted", 1, 1)
    elsewhere = blocks(900, 2)
    it.tell(Known("host", elsewhere))
    reply, moves = it.prefetch(elsewhere)
    assert (counts(reply), moves) == (("rejected", 2, 0), [])
    assert it.here(theirs, OTHER) == ROOM - EACH


def test_the_prefetches_of_all_tenants_share_half_of_the_pool() -> None:
    it = Hearing()
    granted = []
    for tenant in ("a", "b", "c"):
        at = root(model="m", tenant=tenant).hex()
        wanted = blocks(0, 3, at)
        it.tell(Known("host", wanted))
        reply, _ = it.prefetch(wanted, tenant=tenant, at=at)
        granted.append(counts(reply))
    assert granted == [("deferred", 3, 3), ("deferred", 3, 3), ("clipped", 3, ALL - 6)]
    assert "8 pages for all tenants" in reply.why


def test_what_was_used_counts_no_more_and_what_was_not_still_does() -> None:
    it = Hearing()
    it.tell(Known("host", (*blocks(0, EACH), *blocks(500, 3))))
    _, (move,) = it.prefetch(blocks(0, EACH))
    it.arrived(move)
    it.run("a", range(2 * PAGE + 1))
    it.tell(Finished(TurnId("a")))
    reply, (move,) = it.prefetch(blocks(500, 3))
    assert (counts(reply), len(move.blocks)) == (("clipped", 3, 2), 2)


def test_asking_for_more_of_the_same_does_not_make_it_used() -> None:
    it, wanted = Hearing(), blocks(0, 8)
    it.tell(Known("host", wanted))
    for stop in range(1, 9):
        reply, moves = it.prefetch(wanted[:stop])
        for move in moves:
            it.arrived(move)
    assert it.here(wanted) == EACH
    assert counts(reply) == ("clipped", 8, EACH)


def test_asking_for_more_while_the_same_is_on_its_way_does_not_make_it_used() -> None:
    it, wanted = Hearing(), blocks(0, 8)
    it.tell(Known("host", wanted))
    moves = []
    for stop in range(1, 9):
        moves += it.prefetch(wanted[:stop])[1]
        if len(moves) > 1:
            it.arrived(moves.pop(0))
    for move in moves:
        it.arrived(move)
    assert it.here(wanted) == EACH


def test_what_did_not_arrive_counts_no_more() -> None:
    it, wanted = Hearing(), blocks(0, EACH)
    it.tell(Known("host", wanted))
    _, (move,) = it.prefetch(wanted)
    it.tell(Moved(move.id))
    reply, _ = it.prefetch(wanted)
    assert counts(reply) == ("deferred", EACH, EACH)


def test_what_was_evicted_counts_no_more() -> None:
    it, wanted = Hearing(), blocks(0, EACH)
    it.tell(Known("host", (*wanted, *blocks(900, EACH))))
    _, (move,) = it.prefetch(wanted)
    it.arrived(move)
    it.leave(100, ROOM)
    assert it.here(wanted) == 0
    reply, _ = it.prefetch(blocks(900, EACH))
    assert counts(reply) == ("deferred", EACH, EACH)


def test_a_prefetch_leaves_each_running_turn_a_page_to_grow_into_and_takes_nobody_out() -> None:
    it = Hearing()
    it.tell(Known("host", blocks(500, 4)))
    it.run("a", range((ROOM - 2) * PAGE))
    reply, (move,) = it.prefetch(blocks(500, 4))
    assert (counts(reply), len(move.blocks)) == (("clipped", 4, 1), 1)
    assert reply.why == "there is room for 1 pages more"


def test_a_prefetch_for_which_only_its_own_beginning_could_make_room_fetches_nothing() -> None:
    it = Hearing()
    it.leave(0, 4)
    it.tell(Known("host", blocks(0, 6)))
    it.run("a", range(500, 500 + (ROOM - 5) * PAGE))
    reply, moves = it.prefetch(blocks(0, 6))
    assert (counts(reply), moves, reply.why) == (("clipped", 6, 4), [], "there is room for 0 pages more")


def test_a_turn_starts_with_what_was_fetched_for_nobody() -> None:
    it, wanted = Hearing(), blocks(0, 3)
    it.tell(Known("host", wanted))
    _, (move,) = it.prefetch(wanted)
    it.arrived(move)
    assert it.run("a", range(14)).reuse == 12


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
