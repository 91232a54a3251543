"""Contexts below the device, in the kernel's own terms: what is fetched, what waits, what is answered."""

from __future__ import annotations

import json
from typing import Any

from sostenuto.kvstore import BlockHash, Elsewhere, root
from sostenuto.kvstore.record import links
from sostenuto.scheduler import (
    Answered,
    Cancelled,
    CancelMove,
    Effect,
    Finished,
    Hinted,
    Interrupted,
    Known,
    Lost,
    Marked,
    Move,
    Moved,
    Moving,
    NeedRoom,
    ProgramId,
    Reweighted,
    Start,
    Stop,
    TurnId,
)

from .stage import PAGE, ROOT, Stage


def known(count: int) -> tuple[Moving, ...]:
    """A chain of full blocks that an earlier process has left."""
    found = links(range(count * PAGE), PAGE, BlockHash(bytes.fromhex(ROOT)))
    return tuple(Moving(link.name.hex(), link.parent.hex(), link.tokens) for link in found)


def stage(**rooms: int | None) -> Stage:
    return Stage(room=8, elsewhere=Elsewhere(PAGE, rooms))


def only(effects: list[Effect], kind: type[Any]) -> Any:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def test_a_turn_whose_context_lies_below_waits_for_it_and_starts_with_it() -> None:
    it = stage(disk=None)
    it.tell(Known("disk", known(3)))
    move = only(it.arrive("a", range(14)), Move)
    assert (move.source, move.target, [block.tier for block in move.blocks]) == ("disk", "device", ["disk"] * 3)
    assert it.starts() == []
    start = only(it.tell(Moved(move.id, tuple(block.name for block in move.blocks))), Start)
    assert (start.turn, start.reuse, start.tier, start.why) == ("a", 12, "disk", "fetched from disk")


def test_nobody_waits_for_what_another_one_fetches_unless_he_shares_it() -> None:
    it = stage(disk=None)
    it.tell(Known("disk", known(3)))
    it.arrive("a", range(14))
    it.run("b", [100, 101, 102])
    assert it.starts() == ["b"]


def test_of_what_arrives_only_what_has_no_gap_before_it_is_used() -> None:
    it = stage(disk=None)
    it.tell(Known("disk", known(3)))
    move = only(it.arrive("a", range(14)), Move)
    start = only(it.tell(Moved(move.id, (move.blocks[0].name, move.blocks[2].name))), Start)
    assert start.reuse == 4


def test_a_turn_that_leaves_takes_its_move_with_it_and_a_late_arrival_is_nobodys() -> None:
    it = stage(disk=None)
    it.tell(Known("disk", known(3)))
    move = only(it.arrive("a", range(14)), Move)
    assert only(it.tell(Cancelled(TurnId("a"))), CancelMove).id == move.id
    assert "3/8 taken" in repr(it.kernel)
    it.tell(Moved(move.id, tuple(block.name for block in move.blocks)))
    assert "0/8 taken | 3 cached" in repr(it.kernel)


def test_what_a_tier_has_lost_is_not_asked_for() -> None:
    it = stage(disk=None)
    it.tell(Known("disk", known(3)))
    it.tell(Lost("disk", (known(3)[1].name,)))
    move = only(it.arrive("a", range(14)), Move)
    assert len(move.blocks) == 1


def test_who_waits_for_a_person_is_copied_to_the_lowest_tier_and_held_no_longer() -> None:
    it = stage(host=None, disk=None)
    it.run("a", range(8), program="p")
    assert only(it.pause("a"), Move).target == "host"
    move = only(it.tell(Interrupted(ProgramId("p"))), Move)
    assert (move.source, move.target, len(move.blocks)) == ("device", "disk", 2)
    assert "0 held by 0" in repr(it.kernel)


def test_hints_are_events_and_their_answers_effects() -> None:
    it = stage()
    it.run("a", range(8), program="default/s")
    it.pause("a")
    wish = {"action_id": "1", "action_type": "Pin", "action_version": "1"}
    wish["payload"] = {"target": {"session": "s"}, "seconds": 5}  # type: ignore[assignment]
    message = json.dumps({"protocol_version": "0.1", "message_id": "m", "actions": [wish]})
    answered = only(it.tell(Hinted(1, "default", ROOT, message)), Answered)
    assert [(reply.outcome, reply.asked, reply.granted) for reply in answered.replies] == [("accepted", 2, 2)]
    assert it.kernel.pins.pages == 2
    other = only(it.tell(Hinted(2, "other", ROOT, message)), Answered)
    assert [reply.outcome for reply in other.replies] == ["missing"]


def test_what_was_fetched_in_vain_gives_way_to_its_own_turn() -> None:
    it = stage(disk=None)
    it.run("first", range(8))
    it.tell(Finished(TurnId("first")))
    it.tell(Known("disk", known(3)))
    mine = only(it.arrive("a", range(31)), Move)
    other = only(it.arrive("b", [*range(12), 99]), Move)
    assert [block.name for block in mine.blocks] == [block.name for block in other.blocks]
    only(it.tell(Moved(other.id, (other.blocks[0].name,))), Start)
    it.tell(Finished(TurnId("b")))
    # The block lies in a page that b has left; to hold a twin of it leaves too few for the rest.
    start = only(it.tell(Moved(mine.id, (mine.blocks[0].name,))), Start)
    assert (start.turn, start.reuse, len(start.pages)) == ("a", 12, 8)


def test_a_turn_that_fills_the_pool_ends_though_something_is_on_its_way() -> None:
    it = stage(disk=None)
    it.run("a", range(30))
    only(it.tell(Marked("m", ROOT, tuple(range(8)), "disk")), Move)
    it.compute("a", 0, 30, 31)
    it.compute("a", 2, 32)
    stop = only(it.tell(NeedRoom((TurnId("a"),))), Stop)
    assert "full with this turn alone" in stop.why
    assert "0 waiting | 0 running" in repr(it.kernel)


def test_a_turn_that_has_grown_as_large_as_the_pool_is_not_left_waiting_when_it_must_be_computed_anew() -> None:
    it = stage()
    it.run("a", range(30))
    it.compute("a", 0, 30, 31)
    it.compute("a", 2, 32)
    effects = it.tell(Reweighted("recompute", ((ROOT, root(model="m", weights="1").hex()),)))
    assert isinstance(effects[-1], Stop)
    assert "0 waiting | 0 running" in repr(it.kernel)
