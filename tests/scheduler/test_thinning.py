"""Contexts that are cut to a budget, in the kernel's own terms: what is held when, and who is refused."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from sostenuto.kvstore import Ledger, name, thinned_root
from sostenuto.kvstore.hashes import BlockHash
from sostenuto.scheduler import (
    Arrived,
    Cancelled,
    Closed,
    Effect,
    Event,
    Finished,
    Forget,
    Keep,
    Kernel,
    KvPolicy,
    Marked,
    NeedRoom,
    Place,
    Placed,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Reweighted,
    Start,
    Stepped,
    Stop,
    Thin,
    Thinned,
    Thinning,
    Tick,
    TurnId,
    Unmarked,
)
from sostenuto.tests.scheduler.steady import STEADY

from .stage import PAGE, ROOT, Stage

A = TurnId("a")
WHOLE = tuple(range(18))
KEPT = (0, 1, 2, 3, 16, 17)
LESS = thinned_root(name(BlockHash(bytes.fromhex(ROOT)), WHOLE), policy="streaming", budget=6, kept=b"digest").hex()


def only(effects: list[Effect], kind: type[Any]) -> Any:
    (found,) = [effect for effect in effects if isinstance(effect, kind)]
    return found


def read(stage: Stage) -> Thin:
    """A turn has computed the context, and ended; what it left is being read."""
    stage.run("a", WHOLE)
    thin = only(stage.tell(Thinning(A)), Thin)
    stage.tell(Finished(A))
    assert isinstance(thin, Thin)
    return thin


def cut(stage: Stage, key: str = "here") -> list[Effect]:
    """All of a thinning."""
    read(stage)
    stage.tell(Thinned(A, LESS, KEPT))
    return stage.tell(Placed(A, key))


def follow(stage: Stage, turn: str, *more: int, root: str = LESS, least: int = len(KEPT)) -> list[Effect]:
    """A turn that stands on what stays."""
    stage.prompts[turn] = [*KEPT, *more]
    return stage.tell(Arrived(TurnId(turn), ProgramId(turn), "main", root, (*KEPT, *more), 16, least=least))


def test_what_is_read_stays_beyond_its_turn_and_is_let_go_before_what_stays_gets_pages() -> None:
    stage = Stage(room=5)
    thin = read(stage)
    assert (thin.turn, thin.root, thin.tokens, len(thin.pages)) == (A, ROOT, 18, 5)
    assert "5/5 taken" in repr(stage.kernel), "and there is not a page besides"
    place = only(stage.tell(Thinned(A, LESS, KEPT)), Place)
    assert (place.turn, len(place.pages)) == (A, 2)
    assert "2/5 taken" in repr(stage.kernel)


def test_what_stays_is_kept_under_its_key_and_found_with_all_its_tokens() -> None:
    stage = Stage(room=8)
    keep = only(cut(stage), Keep)
    assert (keep.key, keep.tokens, keep.pages) == ("here", 6, 2)
    start = only(follow(stage, "b", 50, 51), Start)
    assert start.reuse == 6
    assert only(stage.tell(Unmarked(("here",))), Forget).tokens == 6


def test_nothing_exact_finds_what_is_thinned_nor_is_found_in_its_place() -> None:
    stage = Stage(room=16)
    cut(stage)
    assert stage.run("exact", [*KEPT, 50]).reuse == 4, "of the whole context, which begins with the same page"
    stage.tell(Finished(TurnId("exact")))
    assert stage.run("again", [*WHOLE, 50]).reuse == 18, "what was thinned lies there until its pages are wanted"
    assert only(follow(stage, "b", 50), Start).reuse == 6


def test_a_thinned_name_says_all_tokens_the_policy_the_budget_and_what_each_head_kept() -> None:
    exact = BlockHash(bytes.fromhex(ROOT))
    other = name(exact, (*WHOLE[:8], 99, *WHOLE[9:]))
    roots = {
        thinned_root(name(exact, WHOLE), policy="streaming", budget=6, kept=b"digest"),
        thinned_root(other, policy="streaming", budget=6, kept=b"digest"),
        thinned_root(name(exact, WHOLE), policy="keydiff", budget=6, kept=b"digest"),
        thinned_root(name(exact, WHOLE), policy="streaming", budget=7, kept=b"digest"),
        thinned_root(name(exact, WHOLE), policy="streaming", budget=6, kept=b"others"),
        thinned_root(name(exact, WHOLE), policy="streaming", budget=66, kept=b"digest"),
        thinned_root(name(exact, WHOLE), policy="streaming6", budget=6, kept=b"digest"),
        exact,
    }
    assert len(roots) == 8, "and none can pass for another by how they are written"


def test_marks_give_way_to_what_stays_the_oldest_first() -> None:
    stage = Stage(room=8)
    stage.run("m", range(100, 112))
    stage.tell(Finished(TurnId("m")))
    read(stage)
    stage.tell(Marked("exact", ROOT, WHOLE))
    stage.tell(Marked("other", ROOT, tuple(range(100, 112))))
    effects = stage.tell(Thinned(A, LESS, KEPT))
    assert [effect.key for effect in effects if isinstance(effect, Forget)] == ["exact"]
    assert len(only(effects, Place).pages) == 2


def test_without_room_for_what_stays_it_is_said_so_and_nothing_is_kept() -> None:
    stage = Stage(room=7)
    read(stage)
    stage.run("b", [*WHOLE, 50])  # another one runs on the very same pages
    stage.compute("b", 0, *range(60, 66))
    stage.tell(NeedRoom((TurnId("b"),)))
    place = only(stage.tell(Thinned(A, LESS, KEPT)), Place)
    assert place.pages == ()
    assert "what stays needs 2 pages, and 0 are free" in place.why
    assert stage.tell(Placed(A, "here")) == [], "there is nothing to keep"
    stage.tell(Finished(TurnId("b")))
    assert "0/7 taken" in repr(stage.kernel)


def test_a_thinning_that_is_given_up_gives_back_what_it_held_at_any_moment() -> None:
    stage = Stage(room=8)
    read(stage)
    stage.tell(Thinned(A))
    assert "0/8 taken | 5 cached" in repr(stage.kernel)
    assert stage.run("b", [*WHOLE, 50]).reuse == 18, "what was to be thinned is as good as before"
    stage.tell(Thinning(TurnId("b")))
    stage.tell(Finished(TurnId("b")))
    stage.tell(Thinned(TurnId("b"), LESS, KEPT))
    stage.tell(Thinned(TurnId("b")))
    assert "0/8 taken" in repr(stage.kernel)
    assert only(follow(stage, "c", 50), Refuse).lost


def test_a_second_thinning_of_a_turn_takes_nothing_more() -> None:
    stage = Stage(room=8)
    read(stage)
    assert stage.run("b", [*WHOLE, 50])
    assert only(stage.tell(Thinning(TurnId("b"))), Thin)
    assert stage.tell(Thinning(TurnId("b"))) == []
    stage.tell(Finished(TurnId("b")))
    stage.tell(Thinned(TurnId("b")))
    stage.tell(Thinned(A))
    assert "0/8 taken" in repr(stage.kernel)


def test_steps_out_of_their_order_change_nothing() -> None:
    stage = Stage(room=8)
    assert stage.tell(Thinning(A)) == []
    assert stage.tell(Thinned(A, LESS, KEPT)) == []
    assert stage.tell(Placed(A, "here")) == []
    read(stage)
    assert stage.tell(Placed(A, "here")) == [], "nobody knows yet what stays"
    assert "5/8 taken" in repr(stage.kernel)


def test_what_is_left_of_a_thinned_context_is_given_up_before_what_others_left() -> None:
    stage = Stage(room=9)
    stage.run("first", range(100, 108))
    stage.tell(Finished(TurnId("first")))
    cut(stage)
    stage.run("big", range(200, 220))
    stage.tell(Finished(TurnId("big")))
    assert stage.run("again", [*range(100, 108), 5]).reuse == 8, "though it was there before the context was thinned"


def test_who_does_not_find_what_it_stands_on_is_refused_as_lost_and_computes_nothing() -> None:
    stage = Stage(room=8)
    cut(stage)
    stage.tell(Unmarked(("here",)))
    stage.run("big", range(200, 230))
    stage.tell(Finished(TurnId("big")))
    refused = only(follow(stage, "b", 50, 51), Refuse)
    assert refused.lost
    assert "6 tokens of a thinned context" in refused.why
    assert "0 waiting | 0 running" in repr(stage.kernel)
    assert not only(stage.tell(Arrived(TurnId("c"), ProgramId("c"), "main", ROOT, (), 1)), Refuse).lost


def test_a_part_of_what_it_stands_on_is_not_enough() -> None:
    stage = Stage(room=8)
    cut(stage)
    assert only(follow(stage, "b", 50, least=7), Refuse).lost


def test_one_that_waits_while_it_is_lost_is_refused_and_not_left_waiting() -> None:
    stage = Stage(room=8)
    cut(stage)
    stage.run("busy", range(200, 224))
    follow(stage, "b", *range(50, 60))
    assert "1 waiting | 1 running" in repr(stage.kernel)
    stage.compute("busy", 0, *range(300, 308))
    assert only(stage.tell(NeedRoom((TurnId("busy"),))), Refuse).lost, "in the moment in which its pages go"


def test_one_that_is_preempted_and_finds_its_past_goes_on_and_one_that_does_not_is_refused() -> None:
    stage = Stage(room=6)
    cut(stage)
    stage.run("first", range(100, 108))
    start = only(follow(stage, "b", 50, 51), Start)
    stage.compute("b", 8 - start.reuse, 60)
    stage.compute("first", 0, *range(300, 313))
    effects = stage.tell(NeedRoom((TurnId("first"),)))
    assert [effect.turn for effect in effects if isinstance(effect, Preempt)] == ["b"]
    refused = [effect for effect in stage.log if isinstance(effect, Refuse)]
    refused += [effect for effect in stage.tell(Finished(TurnId("first"))) if isinstance(effect, Refuse)]
    assert [(effect.turn, effect.lost) for effect in refused] == [("b", True)]


@pytest.mark.parametrize("kv", ["salt", "drop", "recompute"])
def test_after_new_weights_nobody_who_waits_stands_on_what_older_ones_computed(kv: KvPolicy) -> None:
    stage = Stage(room=8)
    cut(stage)
    stage.run("busy", range(200, 224))
    follow(stage, "b", *range(50, 60))
    effects = stage.tell(Reweighted(kv, ((ROOT, "ab" * 16),)))
    effects += stage.tell(Closed(ProgramId("busy")))
    assert [effect.turn for effect in effects if isinstance(effect, Refuse) and effect.lost] == ["b"]


def test_kept_keys_and_values_are_stood_on_by_those_who_wait_too() -> None:
    stage = Stage(room=8)
    cut(stage)
    stage.run("busy", range(200, 224))
    follow(stage, "b", *range(50, 60))
    stage.tell(Reweighted("keep"))
    (start,) = [one for one in stage.tell(Finished(TurnId("busy"))) if isinstance(one, Start)]
    assert (start.turn, start.reuse) == ("b", 6)


def test_in_random_lives_the_books_balance_nobody_starts_without_its_past_and_a_replay_gives_the_same() -> None:
    placed = lost = stood = 0
    for seed in range(120):
        life = Life(seed)
        for number in range(80):
            life.move(number)
        life.end()
        log = life.stage.log
        placed += sum(isinstance(effect, Keep) for effect in log)
        lost += sum(isinstance(effect, Refuse) and effect.lost for effect in log)
        starts = [effect for effect in log if isinstance(effect, Start)]
        assert all(start.reuse >= life.least.get(start.turn, 0) for start in starts)
        stood += sum(start.turn in life.least for start in starts)
        again = Kernel(Ledger(8, PAGE, rank=STEADY.evict), STEADY)
        assert [effect for event, now in life.events for effect in again.handle(event, now)] == log
    assert min(placed, lost, stood) > 20


class Life:
    """Turns over all of a context and over what a thinning left, in a pool that is too small for them."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.stage = Stage(room=8)
        self.events: list[tuple[Event, float]] = []
        self.missing: dict[TurnId, int] = {}
        self.least: dict[TurnId, int] = {}
        self.reading: list[Thin] = []
        self.placing: list[TurnId] = []
        self.left: list[tuple[str, tuple[int, ...]]] = []

    def move(self, number: int) -> None:
        kinds = [
            "arrive",
            "arrive",
            "follow",
            "step",
            "step",
            "thin",
            "thin",
            "cut",
            "cut",
            "place",
            "place",
            "give up",
        ]
        turn = self.chance.choice(sorted(self.missing)) if self.missing else None
        match self.chance.choice([*kinds, "finish", "cancel", "wait"]):
            case "arrive":
                start = self.chance.randrange(4)
                self.arrive(number, ROOT, tuple(range(start, start + self.chance.randrange(1, 24))))
            case "follow" if self.left:
                root, kept = self.chance.choice(self.left)
                self.arrive(number, root, (*kept, *range(50, 50 + self.chance.randrange(1, 9))), least=len(kept))
            case "step" if turn:
                computed, self.missing[turn] = self.missing[turn], 1
                self.tell(Stepped((Progress(turn, computed, (7,)),)))
                self.tell(NeedRoom((turn,)))
            case "thin" if turn:
                self.tell(Thinning(turn))
                self.over(Finished(turn), turn)
            case "cut" if self.reading:
                self.cut(self.reading.pop(0))
            case "place" if self.placing:
                self.tell(Placed(self.placing.pop(0), f"k{self.chance.randrange(3)}"))
            case "give up" if self.placing or self.reading:
                self.tell(Thinned(self.placing.pop() if self.placing else self.reading.pop().turn))
            case "finish" if turn:
                self.over(Finished(turn), turn)
            case "cancel" if turn:
                self.over(Cancelled(turn), turn)
            case "wait":
                self.tell(Tick(), after=self.chance.choice([1.0, 4000.0]))
            case _:
                pass

    def arrive(self, number: int, root: str, tokens: tuple[int, ...], *, least: int = 0) -> None:
        turn = TurnId(f"t{number}")
        if least:
            self.least[turn] = least
        self.tell(Arrived(turn, ProgramId(f"p{self.chance.randrange(3)}"), "main", root, tokens, 8, least=least))

    def cut(self, thin: Thin) -> None:
        kept = tuple(range(min(thin.tokens, self.chance.randrange(1, 7))))
        root = thinned_root(BlockHash(bytes.fromhex(thin.root)), policy="p", budget=6, kept=thin.turn.encode()).hex()
        self.tell(Thinned(thin.turn, root, kept))
        self.left.append((root, kept))

    def over(self, event: Event, turn: TurnId) -> None:
        del self.missing[turn]
        self.tell(event)

    def tell(self, event: Event, *, after: float = 0.0) -> None:
        effects = self.stage.tell(event, after=after)
        self.events.append((event, self.stage.now))
        for effect in effects:
            match effect:
                case Start(turn=turn, reuse=reuse):
                    self.missing[turn] = len(self.stage.kernel.books.turns[turn].tokens) - reuse
                case Preempt(turn=turn) | Stop(turn=turn):
                    del self.missing[turn]
                case Thin():
                    self.reading.append(effect)
                case Place(turn=turn, pages=pages) if pages:
                    self.placing.append(turn)
                case _:
                    pass

    def end(self) -> None:
        """Everything that runs and is thinned ends: whoever waits must start, or be refused."""
        for _ in range(100):
            for gone in [*(thin.turn for thin in self.reading), *self.placing]:
                self.tell(Thinned(gone))
            self.reading, self.placing = [], []
            for turn in sorted(self.missing):
                if turn in self.missing:  # else it was preempted for one before it
                    self.over(Finished(turn), turn)
            self.tell(Tick(), after=4000.0)
        books = self.stage.kernel.books
        assert (books.waiting, books.running, books.held, books.thinning) == (0, 0, 0, {})
