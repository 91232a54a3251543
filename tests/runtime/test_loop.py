"""The loop: whatever ends a turn frees everything it had, and everybody who waits gets an answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import Any

import pytest

from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import EngineFailed, GrammarStuck, HostClosed, Refused
from sostenuto.runtime.request import Request
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import Closed, Effect, Hold, ProgramId, Refuse, Release, Start

from .conftest import Gated, Pair, Stage, draw, read

pytestmark = pytest.mark.every_way

Stages = Callable[..., Stage]
EMPTY = "0 waiting | 0 running | <Ledger 0/256 taken"


@pytest.fixture
def gate(tiny: Pair) -> Gated:
    """Steps of 16 tokens, one at a time."""
    return Gated(tiny.ours, chunk=16)


@pytest.fixture
def stage(stages: Stages, gate: Gated) -> Stage:
    return stages(gate)


def test_a_turn_cancelled_in_the_middle_of_its_prompt_frees_everything(stage: Stage, gate: Gated) -> None:
    ticket = stage.submit(draw(100))
    gate.wait()
    gate.let()
    gate.wait()
    assert "0 waiting | 1 running | <Ledger 13/256 taken" in stage.loop.ask()
    ticket.cancel()
    assert EMPTY in stage.loop.ask()
    gate.open()
    assert stage.say(draw(100)).end.facts.reused_tokens == 16, "what was computed before stays findable"
    assert EMPTY in stage.loop.ask()


def test_a_turn_cancelled_while_it_speaks_frees_everything_and_its_late_token_is_dropped(
    stage: Stage, gate: Gated
) -> None:
    ticket = stage.submit(draw(10), max_tokens=100)
    for _ in range(3):
        gate.wait()
        gate.let()
    gate.wait()
    ticket.cancel()
    assert EMPTY in stage.loop.ask()
    gate.open()
    with pytest.raises(CancelledError):
        list(ticket)
    assert stage.say(draw(10), max_tokens=3).end.reason == "length"


def test_a_turn_cancelled_while_it_waits_never_starts(tiny: Pair, stages: Stages) -> None:
    gate = Gated(tiny.ours, pool_tokens=64)
    stage = stages(gate, policy="forgetful")
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    first = stage.submit(draw(50, seed=1), "a", max_tokens=3)
    second = stage.submit(draw(50, seed=2), "b", max_tokens=3)
    third = stage.submit(draw(50, seed=3), "c", max_tokens=3)
    gate.wait()
    assert "2 waiting | 1 running" in stage.loop.ask()
    second.cancel()
    assert "1 waiting | 1 running" in stage.loop.ask()
    gate.open()
    assert [read(first).end.reason, read(third).end.reason] == ["length", "length"]
    assert sum(isinstance(effect, Start) for effect in effects) == 2
    assert "0 waiting | 0 running | <Ledger 0/8 taken" in stage.loop.ask()


def test_leaving_the_chunks_early_cancels_the_turn_and_cancelling_twice_is_harmless(stage: Stage, gate: Gated) -> None:
    gate.open()
    ticket = stage.submit(draw(10), max_tokens=500)
    chunks = iter(ticket)
    next(chunks)
    chunks.close()  # type: ignore[attr-defined]
    ticket.cancel()
    ticket.cancel()
    assert EMPTY in stage.loop.ask()


def test_another_thread_that_reads_a_cancelled_turn_is_told(stage: Stage, gate: Gated) -> None:
    ticket = stage.submit(draw(10))
    caught: list[BaseException] = []

    def reading() -> None:
        try:
            list(ticket)
        except CancelledError as error:
            caught.append(error)

    thread = threading.Thread(target=reading)
    thread.start()
    gate.wait()
    ticket.cancel()
    thread.join(20)
    assert len(caught) == 1


def test_closing_a_program_refuses_its_turns_with_the_reason(stage: Stage, gate: Gated) -> None:
    ticket = stage.submit(draw(10), "a")
    gate.wait()
    stage.loop.tell(Closed(ProgramId("a"), "was told to stop"))
    with pytest.raises(Refused, match="its program was told to stop"):
        list(ticket)
    assert EMPTY in stage.loop.ask()


@pytest.mark.parametrize(
    ("tokens", "pool", "why"),
    [
        (0, 256, "needs at least one"),
        (64, 64, "the pool has 8: shorten the prompt or give the pool more"),
        (512, 2048, "512 tokens, tiny takes 512 in all: shorten it"),
    ],
)
def test_a_prompt_that_can_never_run_is_refused_with_the_reason(
    tiny: Pair, stages: Stages, tokens: int, pool: int, why: str
) -> None:
    stage = stages(tiny.ours, pool=pool)
    with pytest.raises(Refused, match=why):
        stage.say(draw(tokens))
    assert stage.say(draw(30)).end.facts.said_tokens == 8, "and others run as ever"


def test_a_turn_that_grows_to_the_pools_bound_ends_there(tiny: Pair, stages: Stages) -> None:
    stage, prompt = stages(tiny.ours, pool=64), draw(50, seed=3)
    told = stage.say(prompt, max_tokens=500)
    assert told.end.reason == "length"
    assert len(told.tokens) == 15, "the last one is said and needs no room any more"
    tiny.agrees(prompt, told.tokens, 50)
    assert "<Ledger 0/8 taken" in stage.loop.ask()


def test_a_turn_that_grows_to_the_models_bound_ends_there(tiny: Pair, stages: Stages) -> None:
    told = stages(tiny.ours).say(draw(505, seed=3), max_tokens=500)
    assert (len(told.tokens), told.end.reason) == (7, "length")


def test_answers_end_by_their_limit_by_an_end_token_or_by_a_stop_string(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    words = tiny.ours.tokenizer.encode("one two three")
    (end,) = tiny.ours.eos
    assert stage.say(draw(9), max_tokens=3).end.reason == "length"
    ended = stage.say(draw(9), forced=(*words, end))
    assert (ended.text, ended.end.reason) == ("one two three", "stop")
    stopped = stage.say(draw(9), forced=tuple(words), stop=("two",))
    assert (stopped.text, stopped.end.reason) == ("one ", "stop")
    assert len(stopped.tokens) == 7
    several = stage.say(draw(9), forced=tuple(words), stop=("three", "e two t"))
    assert several.text == "on"


def test_a_seed_gives_one_answer_whatever_else_is_in_the_batch(tiny: Pair, stages: Stages) -> None:
    prompt = draw(20, seed=3)
    drawn: dict[str, Any] = {"temperature": 1.0, "seed": 11, "max_tokens": 20}
    alone = stages(tiny.ours).say(prompt, **drawn)
    gate = Gated(tiny.ours, chunk=24)
    stage = stages(gate)
    others = [stage.submit(draw(10 * n, seed=n), f"p{n}", temperature=1.0, max_tokens=30) for n in (1, 2, 3)]
    ticket = stage.submit(prompt, "mine", **drawn)
    gate.open()
    assert read(ticket).tokens == alone.tokens
    for other in others:
        read(other)


class Stuck:
    """A grammar that lets two tokens through and then none."""

    def __init__(self) -> None:
        self.taken = 0

    def mask(self) -> bytes | None:
        return None if self.taken < 2 else bytes(36)

    def accept(self, token: int) -> bool:
        self.taken += 1
        return True


def test_a_grammar_that_is_stuck_ends_its_turn_and_no_other(tiny: Pair, stages: Stages) -> None:
    gate = Gated(tiny.ours)
    stage = stages(gate)
    stuck = stage.submit(draw(10), "a", grammar=Stuck())
    other = stage.submit(draw(12, seed=1), "b", max_tokens=6)
    gate.open()
    with pytest.raises(GrammarStuck, match="allows no token"):
        list(stuck)
    assert len(read(other).tokens) == 6
    assert "0 waiting | 0 running | <Ledger 0/" in stage.loop.ask()


def test_a_step_that_fails_fails_its_turns_and_the_loop_lives_on(tiny: Pair, stages: Stages) -> None:
    gate = Gated(tiny.ours, pool_tokens=64)
    stage = stages(gate, policy="forgetful")
    first = stage.submit(draw(40, seed=1), "a", max_tokens=3)
    waiting = stage.submit(draw(40, seed=2), "b", max_tokens=3)
    gate.wait()
    assert "1 waiting | 1 running" in stage.loop.ask()
    fault = gate.fault = ArithmeticError("the device is on fire")
    gate.let()
    with pytest.raises(EngineFailed, match="ArithmeticError: the device is on fire") as caught:
        list(first)
    assert caught.value.__cause__ is fault
    gate.wait()
    gate.fault = None
    gate.open()
    assert read(waiting).end.reason == "length", "who had not started has lost nothing"
    assert stage.say(draw(40, seed=1), max_tokens=3).end.facts.reused_tokens == 0
    assert "0 waiting | 0 running | <Ledger 0/8 taken" in stage.loop.ask()


def test_closing_ends_turns_on_their_way_and_lets_nobody_in(tiny: Pair, stages: Stages) -> None:
    gate = Gated(tiny.ours, pool_tokens=64)
    stage = stages(gate)
    running, waiting = stage.submit(draw(50), "a"), stage.submit(draw(50, seed=1), "b")
    gate.wait()
    closing = threading.Thread(target=stage.loop.close)
    closing.start()
    gate.open()
    for ticket in (running, waiting):
        with pytest.raises(HostClosed):
            list(ticket)
    closing.join(20)
    assert not closing.is_alive()
    with pytest.raises(HostClosed, match="open another one"):
        stage.submit(draw(5))
    with pytest.raises(HostClosed):
        stage.loop.ask()
    running.cancel()
    stage.loop.tell(Closed(ProgramId("a")))
    stage.loop.close()


def test_a_defect_in_the_loop_ends_every_turn_and_hangs_nobody(
    tiny: Pair, stages: Stages, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gated(tiny.ours)
    stage = stages(gate)
    good = stage.submit(draw(10), "a")
    gate.wait()
    bad = stage.loop.submit(replace(small(), sampling=None))  # type: ignore[arg-type]
    gate.open()
    for ticket in (good, bad):
        with pytest.raises(HostClosed):
            list(ticket)
    assert "max_tokens" in caplog.text


def small() -> Request:
    return Request("p", "main", (1, 2, 3), Sampling())


def test_a_paused_program_holds_its_context_until_its_next_turn_or_its_end(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    prompt = draw(30)
    told = stage.say(prompt, tools_called=lambda text, reason: ("search",))
    facts = told.end.facts
    assert (facts.held_tokens, facts.hold_why) == (37, "waits for search")
    assert 0 < facts.held_s <= 60
    assert facts.held_until > 0
    assert "<Ledger 5/256 taken | 0 cached | 5 held by 1>" in stage.loop.ask()
    after = stage.say([*prompt, *told.tokens, 5, 6])
    assert (after.end.facts.reused_tokens, after.end.facts.why) == (37, "held")
    assert EMPTY in stage.loop.ask()
    stage.say(prompt, "other", tools_called=lambda text, reason: ("search",))
    stage.loop.tell(Closed(ProgramId("other")))
    assert EMPTY in stage.loop.ask()
    assert [type(effect) for effect in effects if isinstance(effect, Hold | Release)] == [Hold, Release, Hold, Release]


def test_tenants_share_nothing(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    request = replace(small(), tokens=tuple(draw(40)))
    told = [read(stage.loop.submit(replace(request, tenant=tenant))) for tenant in ("a", "b", "a")]
    reused = [one.end.facts.reused_tokens for one in told]
    assert reused == [0, 0, 39]


def test_many_turns_by_many_threads_all_end_and_free_everything(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours, pool=256, chunk=16)
    failed: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(4):
                prompt = [*draw(20), *draw(5 + 9 * turn, seed=number)]
                ticket = stage.submit(prompt, f"p{number}", max_tokens=4 + number, seed=number, temperature=1.0)
                if (number + turn) % 5 == 0:
                    next(iter(ticket))  # and leave
                else:
                    read(ticket)
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed
    assert "0 waiting | 0 running | <Ledger 0/32 taken" in stage.loop.ask()


def test_effects_that_end_turns_are_carried_out_after_the_others(tiny: Pair, stages: Stages) -> None:
    """Ending posts an event of its own: its effects must not overtake those of the event before it."""
    order: list[str] = []

    class Noting(TorchEngine):
        def start(self, job: Any, effect: Start) -> int:
            order.append(f"start {job.turn}")
            return super().start(job, effect)

        def drop(self, turn: Any) -> None:
            order.append(f"drop {turn}")
            super().drop(turn)

        def plan(self) -> Any:
            return None  # nobody gets on

    stage = stages(Noting(tiny.ours, pool_tokens=64), policy="forgetful")
    first = stage.submit(draw(50, seed=1), "a")
    stage.submit(draw(50, seed=2), "b")
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    stage.loop.ask()
    stage.loop.tell(Closed(ProgramId("a")))
    with pytest.raises(Refused):
        list(first)
    stage.loop.ask()
    assert order[:3] == ["start t1", "start t2", "drop t1"]
    assert isinstance(effects[-1], Refuse)
