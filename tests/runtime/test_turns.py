"""Turns through the loop say what transformers' own greedy decoding says, whatever was shared, copied or lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.scheduler import Grow, Preempt, Start

from .conftest import Gated, Pair, Stage, Told, draw, read

pytestmark = pytest.mark.every_way

Stages = Callable[..., Stage]
CHUNKS = [1, 7, 31, 32, 33, 100]
CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def generated(pair: Pair, tokens: Sequence[int], count: int) -> tuple[int, ...]:
    """What transformers says to a prompt, greedily."""
    settings: Any = GenerationConfig
    config = settings(max_new_tokens=count, do_sample=False, pad_token_id=0, eos_token_id=list(pair.ours.eos))
    ids = torch.tensor([list(tokens)])
    out = pair.theirs.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(out[0, len(tokens) :].tolist())


def test_the_packaged_model_answers_as_with_transformers_with_reuse_and_without(
    make_packaged: Callable[[Way], Pair], way: Way, stages: Stages
) -> None:
    packaged = make_packaged(way)
    encode = packaged.ours.tokenizer.encode
    first = encode(CHAT.format("Name three colours of the rainbow."), add_special_tokens=False)
    stage = stages(packaged.ours, chunk=33)
    said = stage.say(first, max_tokens=24)
    assert said.end.facts.reused_tokens == 0
    assert said.tokens == generated(packaged, first, 24)
    second = [*first, *said.tokens, *encode("<|im_end|>\n" + CHAT.format("And three more?"), add_special_tokens=False)]
    again = stage.say(second, max_tokens=24)
    assert again.end.facts.reused_tokens >= len(first) + 23  # the last one that was said was never computed
    assert again.tokens == generated(packaged, second, 24)
    fresh = stages(packaged.ours).say(second, max_tokens=24)
    assert fresh.end.facts.reused_tokens == 0
    assert fresh.tokens == again.tokens


@pytest.mark.parametrize("chunk", CHUNKS)
def test_any_size_of_chunk_gives_the_same_answer(tiny: Pair, stages: Stages, chunk: int) -> None:
    prompt = draw(90)
    told = stages(tiny.ours, chunk=chunk).say(prompt, max_tokens=16)
    assert len(told.tokens) == 16
    tiny.agrees(prompt, told.tokens, 90)


@pytest.mark.parametrize("policy", ["sostenuto", "forgetful"])
def test_turns_of_very_unequal_length_run_together(tiny: Pair, stages: Stages, policy: str) -> None:
    stage = stages(tiny.ours, chunk=20, policy=policy)
    prompts = [draw(length, seed=length) for length in [1, 2, 8, 9, 33, 150, 301]]
    limits = [20, 1, 13, 8, 2, 5, 30]
    tickets = [
        stage.submit(prompt, f"p{n}", max_tokens=limit)
        for n, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    for prompt, limit, ticket in zip(prompts, limits, tickets, strict=True):
        told = read(ticket)
        assert len(told.tokens) == limit or told.end.reason == "stop"
        tiny.agrees(prompt, told.tokens, len(prompt))


@pytest.mark.parametrize("shared", [1, 7, 8, 9, 12, 16])
def test_a_fork_inside_a_page_or_at_its_edge_equals_turns_of_their_own(tiny: Pair, stages: Stages, shared: int) -> None:
    stage = stages(tiny.ours)
    past = draw(shared)
    stage.say(past, "parent", max_tokens=1)
    children = [[*past, 250 + n % 5, *draw(n, seed=n)] for n in range(6)]
    tickets = [stage.submit(child, f"p{n}", max_tokens=6) for n, child in enumerate(children)]
    told = [read(ticket) for ticket in tickets]
    for child, one in zip(children, told, strict=True):
        assert one.end.facts.reused_tokens >= shared
        tiny.agrees(child, one.tokens, len(child))
    parent = stage.say([*past, 3, 4], "parent", max_tokens=6)
    tiny.agrees([*past, 3, 4], parent.tokens, shared + 2)


def test_a_turn_that_replaces_the_tail_equals_one_from_the_start(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    first = draw(30)
    said = stage.say(first, max_tokens=9, tools_called=lambda text, reason: ("search",))
    assert said.end.facts.held_tokens == 38
    other = [*first[:21], *draw(14, seed=9)]
    told = stage.say(other, max_tokens=9)
    assert told.end.facts.reused_tokens == 21
    tiny.agrees(other, told.tokens, 35)
    back = stage.say(first, max_tokens=9)
    assert back.tokens == said.tokens
    assert back.end.facts.reused_tokens == 29


def test_a_prompt_that_is_wholly_known_still_computes_its_last_token(tiny: Pair, stages: Stages) -> None:
    stage, prompt = stages(tiny.ours), draw(32)
    once, twice = stage.say(prompt), stage.say(prompt)
    assert (twice.end.facts.reused_tokens, twice.end.facts.computed_tokens) == (31, 1)
    assert once.tokens == twice.tokens


def test_the_log_probabilities_do_not_depend_on_what_was_reused(tiny: Pair, stages: Stages) -> None:
    stage, prompt = stages(tiny.ours), draw(45)
    for _ in range(2):
        told = stage.say(prompt, max_tokens=5)
        known = tiny.reference([*prompt, *told.tokens]).log_softmax(-1)
        for at, piece in enumerate(told.pieces, 44):
            assert piece.logprob == pytest.approx(float(known[at, piece.token]), abs=tiny.tolerance)


class Watched:
    """Turns that grow together in a pool too small for them, and what the schedule did about it."""

    def __init__(self, stage: Stage, gate: Gated, prompts: Sequence[Sequence[int]], **sampling: Any) -> None:
        self.effects: list[object] = []
        stage.loop.watch(self.effects.append)
        tickets = [stage.submit(prompt, f"p{n}", **sampling) for n, prompt in enumerate(prompts)]
        gate.open()
        self.told: list[Told] = [read(ticket) for ticket in tickets]

    @property
    def preempted(self) -> int:
        return sum(isinstance(effect, Preempt) for effect in self.effects)


@pytest.mark.parametrize(
    "sampling",
    [{}, {"temperature": 1.0, "seed": 5}, {"temperature": 0.8, "top_p": 0.9, "seed": 5, "repetition_penalty": 1.2}],
    ids=["greedy", "seeded", "seeded, with penalties"],
)
def test_what_was_preempted_and_resumed_says_what_it_would_have_said(
    tiny: Pair, stages: Stages, sampling: dict[str, Any]
) -> None:
    prompts = [draw(20, seed=3), draw(20, seed=4)]
    limit = {"max_tokens": 40, **sampling}
    alone = [stages(tiny.ours).say(prompt, f"p{n}", **limit) for n, prompt in enumerate(prompts)]
    gate = Gated(tiny.ours, pool_tokens=80)
    watched = Watched(stages(gate, policy="forgetful"), gate, prompts, **limit)
    assert watched.preempted > 0
    assert [told.tokens for told in watched.told] == [told.tokens for told in alone]
    assert [told.text for told in watched.told] == [told.text for told in alone]
    facts = [told.end.facts for told in watched.told]
    assert [fact.reused_tokens for fact in facts] == [0, 0]
    assert [fact.computed_tokens for fact in facts] == [20, 20]
    assert max(fact.recomputed_tokens for fact in facts) > 0


def test_undisturbed_turns_recompute_nothing(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours, chunk=16)
    before = tiny.ours.rows
    told = [stage.say(draw(50, seed=seed), f"p{seed}", max_tokens=20).end.facts for seed in range(3)]
    assert [fact.recomputed_tokens for fact in told] == [0, 0, 0]
    rows = sum(fact.computed_tokens + fact.said_tokens - 1 for fact in told)
    assert tiny.ours.rows - before == rows


def test_a_forced_answer_is_said_as_it_stands_and_its_context_is_as_good_as_any(tiny: Pair, stages: Stages) -> None:
    stage, prompt, words = stages(tiny.ours), draw(20), tuple(draw(13, seed=4))
    told = stage.say(prompt, forced=words, max_tokens=5)
    assert (told.tokens, told.end.reason) == (words, "stop")
    longer = [*prompt, *words, 7]
    after = stage.say(longer, max_tokens=8)
    assert after.end.facts.reused_tokens == 32
    tiny.agrees(longer, after.tokens, 34)


def test_a_page_that_two_turns_grow_from_is_copied_once(tiny: Pair, stages: Stages) -> None:
    """Siblings stand inside one page: the first goes on in it, the second gets a copy."""
    stage, past = stages(tiny.ours), draw(12)
    stage.say(past, "parent", max_tokens=1)
    effects: list[object] = []
    stage.loop.watch(effects.append)
    tickets = [stage.submit([*past, token], f"p{token}", max_tokens=4) for token in (1, 2)]
    for token, ticket in zip((1, 2), tickets, strict=True):
        tiny.agrees([*past, token], read(ticket).tokens, 13)
    copies = [effect.copy for effect in effects if isinstance(effect, Start | Grow) and effect.copy]
    assert [copy.tokens for copy in copies] == [4]


def test_a_pool_without_a_page_is_refused(tiny: Pair) -> None:
    with pytest.raises(ValueError, match="not one page"):
        TorchEngine(tiny.ours, pool_tokens=7)
