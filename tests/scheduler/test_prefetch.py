"""Prefetches: what is fetched and what is not, and what one tenant's may cost others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sostenuto.kvstore import BlockHash, root
from sostenuto.scheduler import Cancelled, CancelMove, Finished, Known, Move, Moved, Moving, Start, TurnId

from .hearing import ALL, EACH, OTHER, ROOM, Hearing, blocks, counts
from .stage import PAGE, ROOT


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


def test_a_turn_that_comes_while_its_context_is_being_fetched_waits_for_that_and_fetches_the_rest() -> None:
    it, wanted = Hearing(), blocks(0, 4)
    it.tell(Known("host", wanted))
    _, (ahead,) = it.prefetch(wanted[:2])
    (rest,) = [effect for effect in it.arrive("a", range(4 * PAGE + 1)) if isinstance(effect, Move)]
    assert [block.name for block in rest.blocks] == [block.name for block in wanted[2:]]
    assert (ahead.turn, rest.turn) == (None, "a")
    it.arrived(ahead)
    assert it.starts() == []
    it.arrived(rest)
    (start,) = [effect for effect in it.log if isinstance(effect, Start)]
    assert (start.turn, start.reuse, start.tier) == ("a", 4 * PAGE, "host")
    it.tell(Finished(TurnId("a")))
    assert list(it.kernel.moves.pages) == []


def test_a_turn_whose_whole_context_is_being_fetched_sends_nothing_and_starts_when_it_is_there() -> None:
    it, wanted = Hearing(), blocks(0, 3)
    it.tell(Known("host", wanted))
    _, (ahead,) = it.prefetch(wanted)
    assert [effect for effect in it.arrive("a", range(3 * PAGE + 1)) if isinstance(effect, Move)] == []
    it.arrived(ahead)
    (start,) = [effect for effect in it.log if isinstance(effect, Start)]
    assert (start.reuse, start.tier) == (3 * PAGE, "host")


def test_a_turn_that_leaves_takes_the_prefetch_that_it_waits_for_with_it_and_what_did_not_come_is_computed() -> None:
    it, wanted = Hearing(), blocks(0, 3)
    it.tell(Known("host", wanted))
    _, (ahead,) = it.prefetch(wanted)
    it.arrive("a", range(3 * PAGE + 1))
    (cancel,) = it.tell(Cancelled(TurnId("a")))
    assert isinstance(cancel, CancelMove)
    it.tell(Moved(ahead.id))
    assert list(it.kernel.moves.pages) == []
    _, (again,) = it.prefetch(wanted)
    it.arrive("b", range(3 * PAGE + 1))
    it.tell(Moved(again.id))
    (start,) = [effect for effect in it.log if isinstance(effect, Start)]
    assert (start.turn, start.reuse, start.tier) == ("b", 0, "device")
