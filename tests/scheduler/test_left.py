"""What a program leaves behind is given up when it is over, or goes another way, though nothing held it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from sostenuto.kvstore import BlockHash, Group, Groups, find
from sostenuto.scheduler import Cancelled, Closed, Event, Finished, Marked, NeedRoom, ProgramId, Travelled, TurnId
from sostenuto.tests.kvstore.room import known, leave, victims

from .stage import ROOT, Stage


def told(stage: Stage, turn: str, tokens: Sequence[int], *, program: str = "", branch: str = "main") -> None:
    """A turn that computes its prompt, and is over."""
    stage.run(turn, tokens, program=program, branch=branch)
    stage.tell(Finished(TurnId(turn)))


def order(stage: Stage, contexts: Mapping[str, Sequence[int]]) -> list[str]:
    """Which context loses tokens at each eviction from now on."""
    stage.kernel.books.check()
    return victims(stage.kernel.ledger, contexts)


CONTEXTS = {"old": [1] * 8, "new": [2] * 8}


@pytest.mark.parametrize("over", [Closed(ProgramId("new")), Travelled(ProgramId("new"), "before")])
def test_a_program_that_is_over_goes_before_all_others_though_it_held_nothing(over: Event) -> None:
    stage = Stage(room=4)
    for name, tokens in CONTEXTS.items():
        told(stage, name, tokens)
    assert not stage.kernel.books.programs  # it held and ran nothing: the kernel knows it no more
    stage.tell(over)
    assert order(stage, CONTEXTS) == ["new", "new", "old", "old"]


def test_a_program_that_is_not_over_goes_when_its_turn_comes() -> None:
    stage = Stage(room=4)
    for name, tokens in CONTEXTS.items():
        told(stage, name, tokens)
    stage.tell(Closed(ProgramId("somebody")))
    assert order(stage, CONTEXTS) == ["old", "old", "new", "new"]


def test_the_turns_that_run_when_their_program_is_over_go_first_too() -> None:
    stage = Stage(room=5)
    told(stage, "old", CONTEXTS["old"])
    stage.run("new", CONTEXTS["new"])
    stage.tell(Closed(ProgramId("new")))
    assert order(stage, CONTEXTS) == ["new", "new", "old", "old"]


def test_a_turn_that_was_cancelled_before_goes_with_its_program() -> None:
    stage = Stage(room=5)
    told(stage, "old", CONTEXTS["old"])
    stage.run("new", CONTEXTS["new"])
    stage.tell(Cancelled(TurnId("new")))
    stage.tell(Closed(ProgramId("new")))
    assert order(stage, CONTEXTS) == ["new", "new", "old", "old"]


def test_what_another_context_stands_on_is_spared() -> None:
    stage = Stage(room=6)
    contexts = {"old": [9] * 4, "one": [7] * 4 + [1] * 6, "two": [7] * 4 + [2] * 4}
    for name, tokens in contexts.items():
        told(stage, name, tokens)
    stage.tell(Closed(ProgramId("one")))
    assert order(stage, contexts) == ["one", "one", "old", "two", "one", "two"]


def test_a_turn_that_takes_another_way_gives_up_what_only_the_one_before_it_used() -> None:
    stage = Stage(room=8)
    contexts = {"old": [1] * 8, "first": [2] * 8 + [3] * 4, "second": [2] * 8 + [4] * 4}
    told(stage, "old", contexts["old"])
    told(stage, "first", contexts["first"], program="p")
    stage.run("second", contexts["second"], program="p")
    stage.kernel.ledger.alloc(stage.kernel.ledger.free)
    stage.kernel.ledger.alloc(1)
    assert [known(stage.kernel.ledger, tokens) for tokens in contexts.values()] == [8, 8, 12]


def test_a_turn_that_goes_on_gives_up_nothing() -> None:
    stage = Stage(room=8)
    contexts = {"old": [1] * 8, "first": [2] * 8}
    told(stage, "old", contexts["old"])
    told(stage, "first", contexts["first"], program="p")
    told(stage, "second", [2] * 8 + [3] * 3, program="p")
    assert order(stage, contexts)[:2] == ["old", "old"]


def test_another_line_of_a_program_gives_up_nothing() -> None:
    stage = Stage(room=5)
    told(stage, "old", CONTEXTS["old"])
    told(stage, "new", CONTEXTS["new"], program="p", branch="one")
    told(stage, "more", [3] * 4, program="p", branch="two")
    assert order(stage, CONTEXTS) == ["old", "old", "new", "new"]


def test_a_mark_of_it_stays_when_a_program_is_over() -> None:
    stage = Stage(room=6)
    for name, tokens in CONTEXTS.items():
        told(stage, name, tokens)
    stage.tell(Marked("here", ROOT, tuple(CONTEXTS["new"])))
    stage.tell(Closed(ProgramId("new")))
    assert order(stage, CONTEXTS) == ["old", "old"]


def test_a_conversation_that_goes_back_gives_up_at_once_what_it_had_said() -> None:
    stage = Stage(room=8)
    contexts = {"old": [1] * 8, "whole": [2] * 12, "begun": [2] * 8}
    leave(stage.kernel.ledger, contexts["old"])
    leave(stage.kernel.ledger, contexts["whole"])
    for tokens in (contexts["whole"], contexts["begun"]):
        stage.tell(Marked("place", ROOT, tuple(tokens)))
    assert order(stage, contexts) == ["whole", "old", "old"]


def test_what_has_come_into_its_pages_since_is_not_given_up() -> None:
    stage = Stage(room=4)
    contexts = {"old": [1] * 8, "here": [2] * 6}
    told(stage, "gone", [3] * 6)
    for tokens in contexts.values():
        leave(stage.kernel.ledger, tokens)
    stage.tell(Closed(ProgramId("gone")))
    assert order(stage, contexts) == ["old", "old", "here", "here"]


def test_an_unfinished_page_in_which_another_context_goes_on_is_not_given_up() -> None:
    stage = Stage(room=5)
    contexts = {"old": [1] * 8, "more": [2] * 7}
    told(stage, "gone", contexts["more"][:5])
    for name, tokens in contexts.items():
        told(stage, name, tokens)
    stage.tell(Closed(ProgramId("gone")))
    assert order(stage, contexts) == ["old", "old", "more", "more"]


@pytest.mark.parametrize("length", [12, 13, 16])
@pytest.mark.parametrize(("over", "lost"), [("new", "new"), ("nobody", "old")])
def test_what_every_group_of_layers_keeps_is_given_up(length: int, over: str, lost: str) -> None:
    stage = Stage(room=32)
    ledger = stage.kernel.ledger
    ledger.groups = Groups((Group((0,)), Group((1,), 2)), stride=4)
    contexts = {"old": range(length), "new": range(100, 100 + length)}
    for name, tokens in contexts.items():
        stage.arrive(name, tokens)
        for at in range(0, length, 4):
            stage.compute(name, min(4, length - at))
            stage.tell(NeedRoom((TurnId(name),)))
        stage.tell(Finished(TurnId(name)))
    pages = -(-length // 4) + 1
    assert len(stage.kernel._kept.left) == 2 * pages
    passed = ledger.cached - 2 * pages  # goes first in any case
    stage.tell(Closed(ProgramId(over)))
    ledger.alloc(ledger.free + passed + pages)
    root = BlockHash(bytes.fromhex(ROOT))
    found = {name: find(ledger, root, tokens).tokens(4) for name, tokens in contexts.items()}
    assert found == {"old": length, "new": length} | {lost: 0}


def test_no_more_is_remembered_than_four_pools_have_pages() -> None:
    stage = Stage(room=6)
    for number in range(20):
        told(stage, f"t{number}", [number] * 7)
        assert len(stage.kernel._kept.left) == min(2 * number + 2, 24)
    for number in range(20):
        stage.tell(Closed(ProgramId(f"t{number}")))
    assert repr(stage.kernel._kept.left) == "<Left 0 pages of 0 programs>"
