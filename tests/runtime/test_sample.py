"""Tokens are drawn from what the parameters leave, and from nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from sostenuto.runtime.engines.torch.sample import Sampler
from sostenuto.runtime.engines.torch.spread import Row, Summed, summed
from sostenuto.runtime.errors import BadSampling
from sostenuto.runtime.sampling import Sampling

VOCAB = 24
DRAWS = 3000


def row(seed: int = 0, spread: float = 1.5) -> torch.Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed)) * spread


def shares(logits: torch.Tensor, **sampling: Any) -> torch.Tensor:
    """How often each token was drawn, of DRAWS draws at the first position, each with a seed of its own."""
    drawn = [Sampler(Sampling(seed=seed, **sampling), []).pick(logits).token for seed in range(DRAWS)]
    return torch.bincount(torch.tensor(drawn), minlength=VOCAB) / DRAWS


FILTERS: dict[str, tuple[dict[str, Any], Any]] = {
    "top_k": ({"top_k": 5}, TopKLogitsWarper(5)),
    "top_k of one": ({"top_k": 1}, TopKLogitsWarper(1)),
    "top_k beyond the vocabulary": ({"top_k": 100}, TopKLogitsWarper(VOCAB)),
    "top_p": ({"top_p": 0.6}, TopPLogitsWarper(0.6)),
    "top_p next to nothing": ({"top_p": 1e-6}, TopPLogitsWarper(1e-6)),
    "min_p": ({"min_p": 0.2}, MinPLogitsWarper(0.2)),
    "min_p of one": ({"min_p": 1.0}, MinPLogitsWarper(1.0)),
    "nothing": ({}, lambda ids, scores: scores),
}


@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("name", FILTERS)
def test_draws_follow_the_distribution_that_transformers_own_filter_leaves(name: str, temperature: float) -> None:
    sampling, warp = FILTERS[name]
    logits = row()
    expected = warp(None, logits[None] / temperature)[0].softmax(0)
    drawn = shares(logits, temperature=temperature, **sampling)
    assert not drawn[expected == 0].any(), "a token was drawn that had been filtered out"
    # Five standard deviations of a share: with these fixed seeds the outcome is always the same.
    assert ((drawn - expected).abs() <= 5 * (expected / DRAWS).sqrt() + 1e-9).all()


def test_filters_together_leave_what_each_of_them_leaves() -> None:
    logits = row(1)
    probs = logits.softmax(0)
    order = probs.argsort(descending=True)
    before = probs[order].cumsum(0) - probs[order]
    kept = set(order[:6].tolist()) & set(order[before < 0.7].tolist())
    kept &= set((probs >= 0.1 * probs.max()).nonzero().flatten().tolist())
    expected = torch.zeros(VOCAB)
    expected[sorted(kept)] = probs[sorted(kept)]
    expected /= expected.sum()
    drawn = shares(logits, temperature=1.0, top_k=6, top_p=0.7, min_p=0.1)
    assert ((drawn - expected).abs() <= 5 * (expected / DRAWS).sqrt() + 1e-9).all()


def test_draws_from_a_large_vocabulary_look_at_all_of_it_and_not_beyond() -> None:
    logits = torch.full((1000,), -math.inf)
    logits[[5, 300, 700, 990]] = 1.0
    drawn = [Sampler(Sampling(temperature=1.0, seed=seed), []).pick(logits).token for seed in range(400)]
    assert set(drawn) == {5, 300, 700, 990}
    assert min(map(drawn.count, (5, 300, 700, 990))) > 60
    flat = {
        Sampler(Sampling(temperature=1.0, top_p=0.9, seed=seed), []).pick(torch.zeros(1000)).token
        for seed in range(400)
    }
    assert max(flat) < 900, "of equals those with the smallest ids are kept"
    assert len(flat) > 250


def test_equal_logits_are_settled_by_the_smallest_id() -> None:
    logits = torch.zeros(VOCAB)
    logits[[3, 9, 20]] = 1.0
    assert Sampler(Sampling(), []).pick(logits).token == 3


@pytest.mark.parametrize("penalty", [1.3, 0.7])
def test_the_repetition_penalty_is_that_of_transformers_over_prompt_and_answer(penalty: float) -> None:
    processor: Any = RepetitionPenaltyLogitsProcessor(penalty)
    prompt = [1, 4, 4, 7]
    sampler = Sampler(Sampling(repetition_penalty=penalty), prompt)
    said: list[int] = []
    for step in range(12):
        logits = row(step)
        expected = processor(torch.tensor([[*prompt, *said]]), logits[None].clone())[0]
        said.append(sampler.pick(logits).token)
        assert said[-1] == int(expected.argmax())


def test_presence_and_frequency_count_what_was_said_and_not_the_prompt() -> None:
    logits = torch.tensor([3.0, 2.5, 2.0, 0.0])
    once = Sampler(Sampling(presence_penalty=1.2), [0, 0])
    assert [once.pick(logits).token for _ in range(4)] == [0, 1, 2, 0]
    often = Sampler(Sampling(frequency_penalty=0.6), [0, 0])
    assert [often.pick(logits).token for _ in range(5)] == [0, 1, 0, 2, 1]


def test_a_mask_is_obeyed_in_greedy_and_drawn_answers() -> None:
    logits = row()
    bits = allowing({2, 11, 23})
    best = max((2, 11, 23), key=lambda token: float(logits[token]))
    assert Sampler(Sampling(), []).pick(logits, bits).token == best
    drawn = {Sampler(Sampling(temperature=2.0, seed=n), []).pick(logits, bits).token for n in range(200)}
    assert drawn == {2, 11, 23}
    with pytest.raises(ValueError, match="allows no token"):
        Sampler(Sampling(), []).pick(logits, bytes(3))


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.5, seed=1), Sampling(temperature=1, top_k=2)])
@pytest.mark.parametrize("below", [1.0, 20.0, 60.0, 500.0])
def test_what_a_mask_leaves_is_drawn_by_its_own_shares_however_unlikely_it_was(
    sampling: Sampling, below: float
) -> None:
    logits = torch.zeros(VOCAB)
    logits[3], logits[7] = -below, -below - 30.0
    picked = Sampler(sampling, []).pick(logits, allowing({3, 7}))
    assert picked.token == 3
    assert picked.drawn == pytest.approx(0.0, abs=1e-6)
    logits[7] = -below
    alike = [Sampler(Sampling(temperature=0.5, seed=n), []).pick(logits, allowing({3, 7})) for n in range(64)]
    assert {one.token for one in alike} == {3, 7}
    assert all(one.drawn == pytest.approx(math.log(0.5), abs=1e-6) for one in alike)


def test_a_mask_shorter_than_the_logits_forbids_the_rest() -> None:
    logits = torch.zeros(VOCAB)
    logits[VOCAB - 1] = 9.0
    assert Sampler(Sampling(), []).pick(logits, b"\xff").token == 0


def test_equal_seeds_give_equal_answers_and_other_seeds_others() -> None:
    def answer(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(temperature=1.0, seed=seed), [])
        return [sampler.pick(row(9)).token for _ in range(30)]

    assert answer(1) == answer(1)
    assert len({tuple(answer(seed)) for seed in (0, 1, 2, 2**62, -3)}) == 5
    assert answer(None) != answer(None)
    assert len(set(answer(1))) > 3, "neighbouring positions draw for themselves"


def test_what_is_unsaid_is_drawn_again_alike() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=4, frequency_penalty=0.5), [1, 2])
    first = [sampler.pick(row(n)).token for n in range(10)]
    sampler.rollback(6)
    assert [sampler.pick(row(n)).token for n in range(4, 10)] == first[4:]
    with pytest.raises(ValueError, match="unsay 11 of 10"):
        sampler.rollback(11)


def test_log_probabilities_are_those_of_the_model_whatever_was_done_to_choose() -> None:
    logits = row(3)
    known = logits.log_softmax(0)
    sampling = Sampling(temperature=0.5, top_k=3, repetition_penalty=1.5, logprobs=4, seed=1)
    picked = Sampler(sampling, [int(logits.argmax())]).pick(logits)
    assert picked.logprob == pytest.approx(float(known[picked.token]), abs=1e-5)
    values, ids = known.topk(4)
    assert [token for token, _ in picked.top] == ids.tolist()
    assert [value for _, value in picked.top] == pytest.approx(values.tolist(), abs=1e-5)
    assert Sampler(Sampling(), []).pick(logits).top == ()


SAMPLINGS = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.0, 1.6]),
    top_k=st.sampled_from([0, 5]),
    top_p=st.sampled_from([1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.4]),
    presence_penalty=st.sampled_from([0.0, 0.5]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    seed=st.integers(0, 2**62),
)


def allowing(tokens: set[int]) -> bytes:
    bits = bytearray(3)
    for token in tokens:
        bits[token // 8] |= 1 << token % 8
    return bytes(bits)


@given(SAMPLINGS, st.integers(0, 12), st.booleans())
@settings(max_examples=60, deadline=None)
def test_an_answer_cut_anywhere_and_continued_equals_the_uncut_one(sampling: Sampling, cut: int, masked: bool) -> None:
    prompt = [1, 4, 7, 7]

    def mask(step: int) -> bytes | None:
        return allowing({step % VOCAB, 5, 11, 20}) if masked else None

    whole = Sampler(sampling, prompt)
    picked = [whole.pick(row(step), mask(step)) for step in range(12)]
    rest = Sampler(sampling, prompt, [one.token for one in picked[:cut]])
    assert [rest.pick(row(step), mask(step)) for step in range(cut, 12)] == picked[cut:]
    rest.rollback(12)  # what was said before the cut can be unsaid as well
    assert [rest.pick(row(step), mask(step)) for step in range(12)] == picked


@given(SAMPLINGS, st.sets(st.integers(0, VOCAB - 1), min_size=1) | st.none())
@settings(max_examples=60, deadline=None)
def test_a_token_is_counted_under_what_it_was_drawn_from(sampling: Sampling, allowed: set[int] | None) -> None:
    prompt, said, logits = [1, 4, 4], [2, 2, 9], row(6)
    warm = sampling.temperature or 1.0
    shaped = logits.clone()
    processor: Any = RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
    shaped = processor(torch.tensor([[*prompt, *said]]), shaped[None])[0]
    for token in set(said):
        shaped[token] -= sampling.presence_penalty + said.count(token) * sampling.frequency_penalty
    if allowed is not None:
        shaped[sorted(set(range(VOCAB)) - allowed)] = -math.inf
    picked = Sampler(sampling, prompt, said).pick(logits, None if allowed is None else allowing(allowed))
    assert picked.logprob == pytest.approx(float(logits.log_softmax(0)[picked.token]), abs=1e-5)
    assert picked.tempered == pytest.approx(float((logits / warm).log_softmax(0)[picked.token]), abs=1e-5)
    assert picked.drawn == pytest.approx(float((shaped / warm).log_softmax(0)[picked.token]), abs=1e-5)
    assert picked.forced == (allowed is not None and len(allowed) == 1)
    if picked.forced:
        assert picked.drawn == 0.0, "what had to come was certain"


@given(SAMPLINGS, st.booleans())
@settings(max_examples=40, deadline=None)
def test_no_distribution_is_summed_twice(sampling: Sampling, masked: bool) -> None:
    sums = 0

    def counted(values: Row, warm: float, mask: bytes | None) -> Summed:
        nonlocal sums
        sums += 1
        return summed(values, warm, mask)

    picked = Sampler(sampling, [1], [1], sum_up=counted).pick(row(2), allowing({1, 2}) if masked else None)
    penalised = sampling.repetition_penalty != 1 or sampling.presence_penalty or sampling.frequency_penalty
    cooled = sampling.temperature not in (0, 1)
    assert sums == 1 + cooled + bool(masked or penalised)
    if not cooled:
        assert picked.tempered == picked.logprob
    if not masked and not penalised:
        assert picked.drawn == picked.tempered


def test_a_mask_that_forbids_nothing_changes_nothing() -> None:
    sampling = Sampling(temperature=0.8, seed=3)
    assert Sampler(sampling, []).pick(row(), b"\xff" * 3) == Sampler(sampling, []).pick(row())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("max_tokens", 0),
        ("logprobs", 21),
        ("logprobs", -1),
        ("stop", ("",)),
    ],
)
def test_a_value_out_of_its_range_is_named(name: str, value: object) -> None:
    with pytest.raises(BadSampling, match=name):
        Sampling(**{name: value})  # type: ignore[arg-type]
