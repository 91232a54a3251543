"""A turn says the same, to the bit, alone and in any company: forks, cancels, preemptions and prompts in chunks."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
import torch

from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.lean.linear import even
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.loop import Loop
from sostenuto.scheduler import named

from .conftest import Pair, Stage, Told, draw, read

pytestmark = pytest.mark.skipif(
    not even(64, 48, torch.bfloat16, 2), reason="this processor rounds rows by the size of their batch"
)
CHUNK = 48
BY_ROUNDING = 0.1
"""How far a logarithm of a probability may be where keys and values were computed once more, in another shape."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A prompt, and what is read behind its answer by each that forks from there."""

    prompt: tuple[int, ...]
    forks: tuple[tuple[int, ...], ...]
    most: int


def talks(seed: int) -> list[Talk]:
    chance = random.Random(seed)
    made = []
    for number in range(6):
        own = draw(chance.choice([3, 17, 40, 64, 65, 130]), seed=1000 * seed + number)
        forks = [
            draw(chance.choice([1, 2, 9, 70]), seed=500 + 10 * number + each) for each in range(chance.randrange(3))
        ]
        made.append(Talk(tuple(own), tuple(map(tuple, forks)), chance.choice([1, 5, 14])))
    return made


def rates(told: Told) -> list[tuple[int | None, float]]:
    return [(piece.token, piece.logprob) for piece in told.pieces if piece.token is not None]


def reused(told: Told) -> int:
    return told.end.facts.reused_tokens


def alone(engine: Callable[[int], TorchEngine], talk: Talk) -> list[Told]:
    """The answer and those of the forks, each with nobody there but its parent."""
    said = []
    for fork in (None, *talk.forks):
        with Loop(engine(4096), named("sostenuto")) as loop:
            stage = Stage(loop)
            first = stage.say(talk.prompt, "solo", max_tokens=talk.most)
            tokens = [*talk.prompt, *first.tokens, *(fork or ())]
            said.append(first if fork is None else stage.say(tokens, "fork", max_tokens=talk.most))
    return said


def close(one: Sequence[tuple[int | None, float]], other: Sequence[tuple[int | None, float]]) -> bool:
    """Up to where two tokens were as good as each other."""
    for (token, rate), (expected, its) in zip(one, other, strict=True):
        if abs(rate - its) > BY_ROUNDING:
            return False
        if token != expected:
            return True
    return True


@pytest.mark.parametrize("native", [None, False], ids=["as it is", "in torch alone"])
@pytest.mark.parametrize("seed", [1, 2, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(3, 15))])
@pytest.mark.parametrize("pool", [4096, 288], ids=["room for all", "too little room"])
def test_whoever_else_is_there_a_turn_says_what_it_says_alone(
    make_pair: Callable[..., Pair], native: bool | None, seed: int, pool: int
) -> None:
    pair = make_pair("llama", "bfloat16", way=Way("lean", native))

    def engine(tokens: int) -> TorchEngine:
        return TorchEngine(pair.ours, pool_tokens=tokens, chunk=CHUNK)

    chance, plays = random.Random(seed), talks(seed)
    expected = [alone(engine, talk) for talk in plays]
    again = exact = 0
    with Loop(engine(pool), named("sostenuto")) as loop:
        stage = Stage(loop)
        order = list(range(len(plays)))
        chance.shuffle(order)
        rivals = [stage.submit(draw(90, seed=70 + at), f"rival {at}", max_tokens=60) for at in range(2)]
        first = {at: stage.submit(plays[at].prompt, f"p{at}", max_tokens=plays[at].most) for at in order}
        rivals[0].cancel()
        answers = {at: read(ticket) for at, ticket in first.items()}
        behind = {
            (at, number): stage.submit(
                [*plays[at].prompt, *answers[at].tokens, *fork], f"p{at} {number}", max_tokens=plays[at].most
            )
            for at in order
            for number, fork in enumerate(plays[at].forks)
        }
        rivals[1].cancel()
        found = {(at, -1): answers[at] for at in order} | {key: read(ticket) for key, ticket in behind.items()}
        for (at, number), told in found.items():
            solo, parent = expected[at][number + 1], answers[at]
            if number >= 0 and parent.tokens != expected[at][0].tokens:
                continue  # its parent was computed anew, and said something else that was as good
            anew = told.end.facts.recomputed_tokens or (number >= 0 and parent.end.facts.recomputed_tokens)
            # A fork may stand on what another one of its parent's had to compute anew, where that was gone by then.
            each = range(len(plays[at].forks)) if number >= 0 else ()
            anew = anew or any(reused(found[at, one]) < reused(expected[at][one + 1]) for one in each)
            # Forks that begin alike share what one of them computed as its prompt: that is another way to the same.
            if anew or reused(told) != reused(solo):
                again += 1
                assert close(rates(told), rates(solo))
            else:
                exact += 1
                assert rates(told) == rates(solo)
    assert exact > len(plays) / 2
    if pool < 4096:
        assert again, "this was to be a pool in which turns give way to each other"
    else:
        assert again <= len(plays) / 2
