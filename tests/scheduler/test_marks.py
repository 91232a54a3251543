"""Contexts that somebody may come back to: kept by name, first to give way, and nobody's after new weights."""

from __future__ import annotations

from typing import Any

import pytest

from sostenuto.kvstore import root
from sostenuto.scheduler import (
    HOLD_BUDGET,
    Arrived,
    Closed,
    Effect,
    Finished,
    Forget,
    Hold,
    Keep,
    KvPolicy,
    Marked,
    NeedRoom,
    Preempt,
    ProgramId,
    Refuse,
    Reweighted,
    Setting,
    Start,
    Tick,
    TurnId,
    Unmarked,
)

from .stage import PAGE, ROOT, Stage

NEXT = root(model="m", weights="1").hex()


def mark(stage: Stage, key: str, tokens: Any) -> list[Effect]:
    return stage.tell(Marked(key, ROOT, tuple(tokens)))


def said(stage: Stage, turn: str, tokens: Any, **rest: Any) -> None:
    """A turn from its arrival to its end; nothing is held."""
    stage.run(turn, tokens, **rest)
    stage.tell(Finished(TurnId(turn)))


def test_a_marked_context_outlives_its_program_and_the_need_of_its_pages() -> None:
    stage = Stage(room=8)
    said(stage, "a", range(10))
    (keep, _) = mark(stage, "here", range(10))
    assert isinstance(keep, Keep)
    assert (keep.key, keep.tokens, keep.pages) == ("here", 10, 3)
    stage.tell(Closed(ProgramId("a")))
    for number in range(3):
        said(stage, f"b{number}", range(100 * number, 100 * number + 10))  # more than all the other pages
    assert stage.run("c", [*range(10), 5]).reuse == 10
    assert stage.tell(Unmarked(("here", "no such"))) == [Forget("here", 10, "nobody will come back to it")]


def test_a_mark_keeps_what_is_computed_and_a_mark_of_nothing_keeps_nothing() -> None:
    stage = Stage()
    said(stage, "a", range(6))
    (keep, _) = mark(stage, "long", range(20))
    assert isinstance(keep, Keep)
    assert keep.tokens == 6
    assert mark(stage, "none", range(50, 60)) == []
    assert stage.tell(Unmarked(("none",))) == []


def test_the_same_name_moves_a_mark() -> None:
    stage = Stage()
    said(stage, "a", range(4))
    mark(stage, "here", range(4))
    said(stage, "b", range(40, 44))
    mark(stage, "here", range(40, 44))
    assert stage.kernel.books.held == 1
    assert stage.tell(Unmarked(("here",))) == [Forget("here", 4, "nobody will come back to it")]


def test_marks_give_way_before_anybody_waits_or_a_hold_ends_the_oldest_first() -> None:
    stage = Stage(room=8)
    for number, key in enumerate(("first", "second")):
        said(stage, key, range(100 * number, 100 * number + 8))
        mark(stage, key, range(100 * number, 100 * number + 8))
    stage.run("held", range(300, 304))
    stage.pause("held")
    effects = stage.arrive("big", range(400, 410))
    assert [effect.key for effect in effects if isinstance(effect, Forget)] == ["first"]
    assert [effect.turn for effect in effects if isinstance(effect, Start)] == ["big"]
    assert stage.kernel.books.held == 3, "the second mark and the hold"


def test_a_growing_turn_takes_a_mark_before_it_preempts_anybody() -> None:
    stage = Stage(room=4)
    said(stage, "a", range(4))
    mark(stage, "here", range(4))
    stage.run("b", range(50, 58))
    stage.compute("b", 0, 1, 2, 3, 4, 5)
    effects = stage.tell(NeedRoom((TurnId("b"),)))
    assert [type(effect) for effect in effects if not isinstance(effect, Start)][:1] == [Forget]
    assert not [effect for effect in effects if isinstance(effect, Preempt)]


def test_a_hold_is_not_clipped_for_the_sake_of_a_mark() -> None:
    stage = Stage(room=10, setting=Setting(hold_budget=0.6))
    said(stage, "a", range(16))
    mark(stage, "here", range(16))
    stage.run("b", range(100, 116))
    effects = stage.pause("b")
    (hold,) = [effect for effect in effects if isinstance(effect, Hold)]
    assert hold.pages == hold.asked == 4
    assert [effect.key for effect in effects if isinstance(effect, Forget)] == ["here"]


def test_holds_and_marks_together_leave_a_part_of_the_pool_to_others() -> None:
    stage = Stage(room=20)
    said(stage, "a", range(76))
    (keep, _) = mark(stage, "here", range(76))
    assert isinstance(keep, Keep)
    assert (keep.pages, keep.asked) == (int(20 * HOLD_BUDGET), 19)


def test_every_mark_has_an_end() -> None:
    stage = Stage()
    said(stage, "a", range(4))
    (keep, wake) = mark(stage, "here", range(4))
    assert isinstance(keep, Keep)
    assert getattr(wake, "at", None) == keep.until
    assert stage.tell(Tick(), after=keep.until + 1) == [Forget("here", 4, "its time is over")]
    assert stage.kernel.books.held == 0


def test_a_policy_without_marks_keeps_none() -> None:
    stage = Stage("forgetful")
    said(stage, "a", range(4))
    assert mark(stage, "here", range(4)) == []


@pytest.mark.parametrize("kv", ["salt", "drop", "recompute"])
def test_after_new_weights_nobody_new_hits_what_older_ones_computed(kv: KvPolicy) -> None:
    stage = Stage(room=16)
    stage.run("a", range(8))
    stage.pause("a")
    said(stage, "m", range(50, 58))
    mark(stage, "here", range(50, 58))
    stage.run("runs", range(200, 208), program="other")
    effects = stage.tell(Reweighted(kv, ((ROOT, NEXT),)))
    assert stage.kernel.books.held == 0
    assert [effect.key for effect in effects if isinstance(effect, Forget)] == ["here"]
    assert any(isinstance(effect, Preempt) for effect in effects) == (kv == "recompute")
    again = [effect for effect in effects if isinstance(effect, Start)]
    assert [start.reuse for start in again] == ([0] if kv == "recompute" else [])
    start = arrive(stage, "new", range(8))
    assert start.reuse == 0
    if kv == "drop":
        assert stage.kernel.ledger.cached == 0


def test_kept_keys_and_values_are_used_on() -> None:
    stage = Stage(room=16)
    said(stage, "a", range(8))
    assert stage.tell(Reweighted("keep")) == []
    assert stage.run("b", range(9)).reuse == 8


def test_a_turn_that_waited_while_the_weights_changed_begins_under_the_new_name() -> None:
    stage = Stage(room=4)
    said(stage, "seen", range(8))
    stage.run("busy", range(100, 112))
    assert not [e for e in stage.arrive("waits", range(8)) if isinstance(e, Start)]
    stage.tell(Reweighted("salt", ((ROOT, NEXT),)))
    (start,) = [e for e in stage.tell(Finished(TurnId("busy"))) if isinstance(e, Start)]
    assert (start.turn, start.reuse) == ("waits", 0)


def arrive(stage: Stage, turn: str, tokens: Any) -> Start:
    """A turn that comes after the weights have changed."""
    event = Arrived(TurnId(turn), ProgramId(turn), "main", NEXT, tuple(tokens), 16)
    (start,) = [effect for effect in stage.tell(event) if isinstance(effect, Start)]
    return start


def test_without_growth_a_turn_gets_all_it_may_need_at_its_start_and_one_that_never_fits_is_refused() -> None:
    stage = Stage(room=8, grows=False)
    (start,) = [e for e in stage.arrive("a", range(10)) if isinstance(e, Start)]
    assert len(start.pages) == -(-(10 + 16) // PAGE)
    assert not [e for e in stage.arrive("b", range(40, 44)) if isinstance(e, Start)], "it would need five of one page"
    stage.compute("a", 10, 1)
    assert [e.turn for e in stage.tell(Finished(TurnId("a"))) if isinstance(e, Start)] == ["b"]
    (refused,) = [e for e in stage.arrive("c", range(100, 120)) if isinstance(e, Refuse)]
    assert "20 tokens and 16 more need 9 pages" in refused.why
