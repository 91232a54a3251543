"""Behaviours of schedules on the engine itself, by their numbers; `docs/policies.md` lists where each is tested."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest

from sostenuto.kvstore import BlockHash
from sostenuto.kvstore.record import Buffer
from sostenuto.kvstore.tiers import HostTier
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.loop import Loop
from sostenuto.scheduler import Move, Policy, Preempt, ProgramId, Retention, Start, ToolEnded

from .conftest import Gated, Pair, Stage, draw, read, still

Stages = Callable[..., Stage]


def test_26_what_a_preempted_turn_finds_of_itself_is_no_hit_and_what_it_computes_again_is_counted(
    tiny: Pair, stages: Stages
) -> None:
    gate = Gated(tiny.ours, pool_tokens=80)
    stage = stages(gate, policy="forgetful")
    effects: list[object] = []
    stage.loop.watch(effects.append)
    before = tiny.ours.rows
    tickets = [stage.submit(draw(20, seed=seed), f"p{seed}", max_tokens=40) for seed in (3, 4)]
    gate.open()
    facts = [read(ticket).end.facts for ticket in tickets]
    taken = [effect.turn for effect in effects if isinstance(effect, Preempt)]
    again = [effect for effect in effects if isinstance(effect, Start) and effect.why.startswith("again")]
    assert [effect.turn for effect in again] == taken != []
    assert [fact.reused_tokens for fact in facts] == [0, 0], "nothing was there before either of them"
    rows = sum(fact.computed_tokens + fact.said_tokens - 1 + fact.recomputed_tokens for fact in facts)
    assert tiny.ours.rows - before == rows, "every row that entered the model is accounted for once"
    assert sum(fact.recomputed_tokens for fact in facts) > 0


@pytest.mark.parametrize("found", [0, 8, 13], ids=["from the start", "from a block's edge", "from inside a block"])
def test_28_chunks_of_any_size_give_the_same_logits_on_and_off_the_edges_of_blocks(
    tiny: Pair, stages: Stages, found: int
) -> None:
    """Blocks have eight tokens here. Greedy answers, and how likely each token of them was."""
    prompt, known = draw(61, seed=9), []
    for chunk in (512, 4, 7, 8, 9, 16, 31):
        stage = stages(tiny.ours, chunk=chunk)
        if found:
            stage.say(prompt[:found], max_tokens=1)
        told = stage.say(prompt, "q", max_tokens=6, logprobs=1)
        assert found - 8 <= told.end.facts.reused_tokens <= found
        known.append((told.tokens, [piece.logprob for piece in told.pieces]))
    tiny.agrees(prompt, known[0][0], len(prompt))
    for tokens, rates in known[1:]:
        assert tokens == known[0][0]
        assert rates == pytest.approx(known[0][1], abs=1e-4)


class Slow(HostTier):
    """Puts and gets nothing before it is let through."""

    def __init__(self) -> None:
        super().__init__(verify=False)
        self.asked, self.open = threading.Semaphore(0), threading.Event()

    async def put(self, records: Mapping[BlockHash, Buffer]) -> None:
        await self._through()
        await super().put(records)

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        await self._through()
        return await super().get(names)

    async def _through(self) -> None:
        self.asked.release()
        await asyncio.to_thread(self.open.wait, 60)


COPYING = Policy("copying", retain=lambda world, program, pause: Retention(0.0, "copied", world.tiers))
"""Holds nothing and copies all; what gave way is fetched when its tools are back."""


@pytest.mark.parametrize("leg", ["out", "back"])
def test_31_a_result_that_comes_while_its_context_is_on_its_way_is_served_once_and_rightly(
    tiny: Pair, stages: Stages, leg: str
) -> None:
    tier, prompt = Slow(), draw(40, seed=2)
    engine = TorchEngine(tiny.ours, pool_tokens=128)
    effects: list[Any] = []
    with Loop(engine, COPYING, below=[Below(tier, 4096)]) as loop:
        loop.watch(effects.append)
        stage = Stage(loop)
        if leg == "back":
            tier.open.set()
        first = read(stage.submit(prompt, "a", tools_called=lambda text, reason: ("look",)))
        if leg == "back":
            still(loop)
            tier.open.clear()
            while tier.asked.acquire(blocking=False):
                pass
            # Others take its pages; when its tool is back it is fetched, and that stands still.
            for number in range(3):
                stage.say(draw(100, seed=50 + number), f"rival {number}", max_tokens=4)
            loop.tell(ToolEnded(ProgramId("a"), "look", "c1"))
        assert tier.asked.acquire(timeout=60)
        longer = [*prompt, *first.tokens, *draw(6, seed=7)]
        ticket = stage.submit(longer, "a")
        loop.ask()
        tier.open.set()
        second = read(ticket)
        still(loop)
        starts = [effect for effect in effects if isinstance(effect, Start) and effect.turn == second.end.facts.turn]
        fetched = [
            block.name
            for effect in effects
            if isinstance(effect, Move) and effect.target == "device"
            for block in effect.blocks
        ]
        assert "0 waiting | 0 running" in loop.ask()
    assert len(starts) == 1
    assert len(set(fetched)) == len(fetched), "no block was fetched twice"
    assert second.end.facts.reused_tokens >= len(prompt)
    assert second.tokens == stages(tiny.ours, policy="forgetful").say(longer).tokens


def test_32_a_resumed_segment_longer_than_a_step_keeps_every_count_at_or_above_nothing(
    tiny: Pair, stages: Stages
) -> None:
    stage, prompt = stages(tiny.ours, chunk=16), draw(40, seed=1)
    first = stage.say(prompt, tools_called=lambda text, reason: ("look",))
    longer = [*prompt, *first.tokens, *draw(90, seed=8)]
    before = tiny.ours.rows
    second = stage.say(longer, max_tokens=5)
    facts = second.end.facts
    assert facts.reused_tokens == len(prompt) + len(first.tokens) - 1
    assert facts.computed_tokens == 91
    assert tiny.ours.rows - before == 91 + 4
    assert (facts.recomputed_tokens, facts.lost_tokens) == (0, 0)
    assert min(facts.queued_s, facts.held_s, facts.dropped_tokens, facts.stale_tokens) >= 0
    books = stage.loop.kernel.books
    stage.loop.ask()
    assert (books.seen, books.waiting, books.running) == (0, 0, 0)
