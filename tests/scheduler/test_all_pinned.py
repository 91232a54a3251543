"""Every page that may be pinned or held is, and somebody new comes: progress or a refusal in bounded time."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import Branch, Pins, Wish, root
from sostenuto.scheduler import (
    POLICIES,
    Cancelled,
    Evict,
    Finished,
    Hold,
    NeedRoom,
    Policy,
    Preempt,
    Refuse,
    Start,
    Tick,
    TurnId,
)
from sostenuto.tests.scheduler.steady import STEADY

from .stage import PAGE, Stage

ROOM = 8


def pin(stage: Stage, pins: Pins, key: str, tokens: list[int], seconds: float) -> int:
    """Pin what is computed of a context; returns the pages that were granted."""
    branch = Branch.resume(stage.kernel.ledger, root(model="m"), tokens)
    snapshot = branch.freeze()
    branch.close()
    grant = pins.pin(key, snapshot, Wish("t", stage.now + seconds), now=stage.now)
    snapshot.close()
    stage.kernel.books.check()
    return grant.granted


def full(policy: str | Policy = STEADY) -> tuple[Stage, Pins]:
    """A pool of which all pages but one are pinned for a minute."""
    stage = Stage(policy, room=ROOM)
    pins = Pins(stage.kernel.ledger, total=ROOM - 1, each=ROOM - 1)
    stage.run("first", range(PAGE * (ROOM - 1)))
    stage.tell(Finished(TurnId("first")))
    assert pin(stage, pins, "a", list(range(PAGE * (ROOM - 1))), 60.0) == ROOM - 1
    return stage, pins


def test_a_turn_that_fits_into_what_budgets_leave_starts_at_once() -> None:
    stage, _ = full()
    assert stage.run("small", [100, 101, 102]).reuse == 0


def test_a_turn_that_wants_what_is_pinned_shares_it() -> None:
    stage, _ = full()
    prompt = [*range(PAGE * (ROOM - 1)), 100]
    assert stage.run("same", prompt).reuse == PAGE * (ROOM - 1)


def test_a_turn_too_large_for_the_rest_starts_at_once_where_nobody_else_could_make_room() -> None:
    for policy in POLICIES:
        stage, pins = full(policy)
        effects = stage.arrive("large", range(100, 100 + 2 * PAGE))
        assert [effect.turn for effect in effects if isinstance(effect, Start)] == ["large"]
        assert len(pins) == 0, "its pin had to give way"


def test_a_pin_gives_way_only_when_nobody_runs_whose_end_could_make_room() -> None:
    stage, pins = full()
    stage.run("small", [100, 101, 102])
    assert stage.arrive("large", range(200, 200 + 2 * PAGE)) == []
    assert len(pins) == 1
    effects = stage.tell(Finished(TurnId("small")))
    assert [effect.turn for effect in effects if isinstance(effect, Start)] == ["large"]


def test_a_turn_larger_than_the_pool_is_refused_at_once_with_the_numbers() -> None:
    stage, _ = full()
    (refusal,) = stage.arrive("huge", range(100, 100 + PAGE * (ROOM + 1)))
    assert isinstance(refusal, Refuse)
    assert f"the pool has {ROOM}" in refusal.why


def test_a_turn_that_grows_into_pins_alone_is_taken_out_once_and_goes_on_in_their_place() -> None:
    stage = Stage(room=ROOM)
    pins = Pins(stage.kernel.ledger, total=5, each=5)
    stage.run("first", range(PAGE * 5))
    stage.tell(Finished(TurnId("first")))
    assert pin(stage, pins, "a", list(range(PAGE * 5)), 60.0) == 5
    stage.run("grows", range(100, 100 + PAGE * 3))
    stage.compute("grows", 0, 7)
    effects = stage.tell(NeedRoom((TurnId("grows"),)))
    assert [type(effect) for effect in effects] == [Preempt, Start, Evict]
    assert len(pins) == 0


def test_where_pins_fill_the_pool_a_hold_gets_what_is_left_and_blocks_nobody_for_longer_than_its_time() -> None:
    stage, _ = full()
    stage.run("b1", [100, 101, 102], program="b")
    held = [effect for effect in stage.pause("b1") if isinstance(effect, Hold)]
    assert all(hold.pages <= 1 for hold in held)
    stage.arrive("c", [200, 201, 202])
    for _ in range(3):
        if "c" in stage.starts():
            break
        stage.tell(Tick(), after=60.0)
    assert "c" in stage.starts()


moves = st.lists(
    st.tuples(
        st.sampled_from(["arrive", "finish", "pause", "pin", "unpin", "wait", "cancel"]),
        st.integers(0, 3),
        st.integers(1, PAGE * ROOM),
    ),
    max_size=40,
)


@given(policy=st.sampled_from(sorted(POLICIES)), moves=moves)
@settings(deadline=None, max_examples=150)
# What the second turn goes on from is held for as long as it waits, and there is no page to copy it into.
@example(policy="fixed-ttl", moves=[("arrive", 0, 1), ("arrive", 0, 29), ("pause", 0, 1)])
def test_whatever_is_pinned_everybody_starts_or_is_refused_once_pins_are_asked_for_no_more(
    policy: str, moves: list[tuple[str, int, int]]
) -> None:
    stage = Stage(policy, room=ROOM)
    pins = Pins(stage.kernel.ledger, total=ROOM - 1, each=5, longest=100.0)
    for number, (move, who, size) in enumerate(moves):
        running = [turn for turn, found in stage.kernel.books.turns.items() if found.branch is not None]
        tokens = [1000 * who + index for index in range(size)]
        if move == "arrive":
            stage.arrive(f"t{number}", tokens, program=f"p{who}")
        elif move == "pin":
            pin(stage, pins, f"k{who}", tokens, float(size))
        elif move == "unpin":
            pins.unpin(f"k{who}", tenant="t")
        elif move == "wait":
            stage.tell(Tick(), after=float(size))
        elif running:
            finish(stage, running[who % len(running)], move)
    known = len(stage.kernel.books.turns)
    stage.tell(Tick(), after=100.0)  # the longest that a pin, or a hold, lasts
    for _ in range(known + 1):
        for turn in [turn for turn, found in stage.kernel.books.turns.items() if found.branch is not None]:
            finish(stage, turn, "finish")
    assert stage.kernel.books.turns == {}
    assert len(pins) == 0


def finish(stage: Stage, turn: str, move: str) -> None:
    """A running turn computes its prompt and ends."""
    found = stage.kernel.books.turns[TurnId(turn)]
    stage.compute(turn, found.missing)
    if move == "pause":
        stage.pause(turn)
    else:
        stage.tell(Finished(TurnId(turn)) if move == "finish" else Cancelled(TurnId(turn)))
