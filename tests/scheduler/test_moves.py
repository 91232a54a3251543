"""Contexts below the device, in the kernel's own terms: what is fetched, what waits, what is answered."""

from __future__ import annotations

import json
from typing import Any

from sostenuto.kvstore import BlockHash, Elsewhere, Group, Groups, root
from sostenuto.kvstore.record import links
from sostenuto.scheduler import (
    Answered,
    Cancelled,
    CancelMove,
    Drop,
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


def known(count: int, start: int = 0) -> tuple[Moving, ...]:
    """A chain of full blocks that an earlier process has left."""
    found = links(range(start, start + count * PAGE), PAGE, BlockHash(bytes.fromhex(ROOT)))
    return tuple(Moving(link.name.hex(), link.parent.hex(), link.tokens) for link in found)


def stage(**rooms: int | None) -> Stage:
    return Stage(room=8, elsewhere=Elsewhere(PAGE, rooms))


def copied(it: Stage, move: Move) -> list[Effect]:
    """A move is over, and all of it has arrived."""
    return it.tell(Moved(move.id, tuple(block.name for block in move.blocks)))


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


def test_a_tier_that_is_full_gives_up_what_a_window_has_passed_before_what_it_looks_at() -> None:
    it = stage(host=2)
    it.kernel.ledger.groups = Groups((Group((0,), 5),), stride=PAGE)
    for turn in range(3):
        it.run(f"t{turn}", range(4 + 4 * turn), program="p")
        move = only(it.pause(f"t{turn}"), Move)
        assert [block.tokens for block in move.blocks] == [tuple(range(4 * turn, 4 + 4 * turn))]
        gone = [effect for effect in copied(it, move) if isinstance(effect, Drop)]
    assert [effect.names for effect in gone] == [(known(1)[0].name,)]


def test_what_is_fetched_for_layers_with_windows_leaves_a_tier_after_what_was_used_before_it() -> None:
    it = stage(host=2)
    it.kernel.ledger.groups = Groups((Group((0,), 5),), stride=PAGE)
    it.tell(Known("host", (*known(1), *known(1, 100))))
    copied(it, only(it.arrive("a", range(6)), Move))
    drop = only(it.tell(Known("host", known(1, 200))), Drop)
    assert drop.names == (known(1, 100)[0].name,)


def test_what_a_tier_has_lost_is_not_asked_for() -> None:
    it = stage(disk=None)
    it.tell(Known("disk", known(3)))
    it.tell(Lost("disk", (known(3)[1].name,)))
    move = only(it.arrive("a", range(14)), Move)
    assert len(move.blocks) == 1


def test_what_one_read_did_not_find_is_lost_and_all_else_in_the_tier_stays() -> None:
    it = stage(disk=None)
    it.tell(Known("disk", (*known(3), *known(2, 100))))
    it.tell(Lost("disk", tuple(block.name for block in known(3)[1:])))
    assert it.kernel.moves.elsewhere.count("disk") == 3
    move = only(it.arrive("a", range(100, 110)), Move)
    assert [block.tokens for block in move.blocks] == [block.tokens for block in known(2, 100)]
    it.tell(Lost("disk"))
    assert it.kernel.moves.elsewhere.count("disk") == 0


def test_what_an_earlier_process_left_beyond_the_room_goes_oldest_first_and_ends_before_beginnings() -> None:
    it = stage(disk=3)
    (old, older_end), (new, newer_end) = known(2), known(2, 100)
    drop = only(it.tell(Known("disk", (older_end, old, newer_end, new))), Drop)
    assert (drop.tier, drop.names) == ("disk", (older_end.name,))
    assert it.kernel.moves.elsewhere.count("disk") == 3


def test_what_an_earlier_process_left_beyond_the_room_goes_one_tier_down_where_there_is_one() -> None:
    it = stage(disk=1, far=None)
    move = only(it.tell(Known("disk", known(2))), Move)
    assert (move.source, move.target, [block.name for block in move.blocks]) == ("disk", "far", [known(2)[1].name])


def test_a_context_whose_beginning_was_on_the_device_leaves_a_tier_after_what_was_used_before_it() -> None:
    it = stage(host=5)
    it.run("a", range(5))
    it.tell(Finished(TurnId("a")))
    it.tell(Known("host", known(3)))
    it.tell(Known("host", known(2, 100)))
    move = only(it.arrive("b", range(14)), Move)
    assert [block.tokens for block in move.blocks] == [block.tokens for block in known(3)[1:]]
    drop = only(it.tell(Known("host", known(2, 200))), Drop)
    assert sorted(drop.names) == sorted(block.name for block in known(2, 100))


def test_a_beginning_counts_as_used_though_the_tier_lacks_what_lies_between_it_and_what_was_fetched() -> None:
    it = stage(host=4)
    it.run("a", range(8))
    it.tell(Finished(TurnId("a")))
    it.tell(Known("host", (known(3)[0], known(3)[2])))
    it.tell(Known("host", known(2, 100)))
    assert len(only(it.arrive("b", range(14)), Move).blocks) == 1
    drop = only(it.tell(Known("host", known(2, 200))), Drop)
    assert sorted(drop.names) == sorted(block.name for block in known(2, 100))


def test_a_context_that_is_copied_once_more_leaves_a_tier_as_a_whole_after_what_was_used_before_it() -> None:
    it = stage(host=5)
    for turn, start in (("a", 0), ("b", 100)):
        it.run(turn, range(start, start + 8))
        copied(it, only(it.pause(turn), Move))
    it.run("a again", range(12), program="a")
    move = only(it.pause("a again"), Move)
    assert [block.tokens for block in move.blocks] == [tuple(range(8, 12))], "the rest lies there already"
    copied(it, move)
    it.run("c", range(200, 204))
    (drop,) = copied(it, only(it.pause("c"), Move))
    assert isinstance(drop, Drop)
    assert drop.names == (known(2, 100)[1].name,)


def test_a_context_of_which_all_lies_in_a_tier_counts_as_used_when_it_would_be_copied() -> None:
    it = stage(host=4)
    for turn, start in (("a", 0), ("b", 100)):
        it.run(turn, range(start, start + 8))
        copied(it, only(it.pause(turn), Move))
    it.run("a again", range(9), program="a")
    assert [effect for effect in it.pause("a again") if isinstance(effect, Move) and len(effect.blocks) > 1] == []
    drop = only(it.tell(Known("host", known(1, 200))), Drop)
    assert drop.names == (known(2, 100)[1].name,)


def test_what_passes_from_tier_to_tier_keeps_its_order() -> None:
    it = stage(host=1, disk=2)
    move = only(it.tell(Known("host", known(3))), Move)
    assert [block.name for block in move.blocks] == [block.name for block in known(3)[:0:-1]], "its end first"
    copied(it, move)
    drop = only(it.tell(Known("disk", known(1, 100))), Drop)
    assert drop.names == (known(3)[2].name,)


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


def test_a_program_that_waits_for_a_person_is_copied_though_nothing_held_what_it_left() -> None:
    it = stage(host=None, disk=None)
    it.run("a", range(10), program="p")
    it.tell(Finished(TurnId("a")))
    assert not it.kernel.books.programs
    move = only(it.tell(Interrupted(ProgramId("p"))), Move)
    assert (move.source, move.target) == ("device", "disk")
    assert [block.tokens for block in move.blocks] == [tuple(range(4)), tuple(range(4, 8)), (8, 9)]
    assert not it.kernel.books.programs
    assert it.tell(Interrupted(ProgramId("nobody"))) == []
