"""What attention promises to the bit, and that nobody's pages reach into another's answer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.nn import functional as F

from sostenuto.runtime.engines.torch import attention, pieces
from sostenuto.runtime.engines.torch.model import Piece

from .conftest import Pair, Runner, draw

pytestmark = pytest.mark.every_way

Make = Callable[..., Pair]
LENGTHS = [1, 9, 10, 33, 100, 130, 300, 490]


def bfloat16_rows_are_independent() -> bool:
    """Whether this CPU's products give a row the same bits in any batch of 2 to 32."""
    weight, rows = torch.randn(96, 64).bfloat16(), torch.randn(32, 64).bfloat16()
    return all(torch.equal(F.linear(rows[:n], weight)[:2], F.linear(rows, weight)[:2]) for n in range(2, 33))


@pytest.mark.skipif(not bfloat16_rows_are_independent(), reason="this CPU rounds rows by the size of their batch")
def test_a_decode_step_gives_the_same_bits_alone_and_beside_others_of_any_length(make_either: Make) -> None:
    pair = make_either(dtype="bfloat16")
    runner = Runner(pair.ours, room=200)
    turns = []
    for length in LENGTHS:
        prompt, table = draw(length + 1, seed=length), runner.table(length + 1)
        runner.step(Piece(table, 0, tuple(prompt[:-1]), wants=False))
        turns.append(Piece(table, length, (prompt[-1],), wants=True))
    together = runner.step(*turns)
    for row, turn in zip(together, turns, strict=True):
        assert torch.equal(runner.step(turn)[0], row)
    assert torch.equal(runner.step(*turns[:3]), together[:3])


@pytest.mark.parametrize("family", ["llama", "mistral, window of 24"])
def test_not_even_nan_in_the_pages_of_others_reaches_an_answer(make_either: Make, family: str) -> None:
    pair = make_either(family)
    runner = Runner(pair.ours)
    for tensor in (*runner.pages.k, *runner.pages.v):
        tensor.fill_(float("nan"))
    short, long = draw(11), draw(50, seed=1)
    tables = runner.table(11), runner.table(50)
    runner.step(Piece(tables[0], 0, tuple(short[:10]), wants=False), Piece(tables[1], 0, tuple(long[:49]), wants=False))
    last = Piece(tables[0], 10, tuple(short[10:]), wants=True), Piece(tables[1], 49, tuple(long[49:]), wants=True)
    for row, prompt in zip(runner.step(*last), (short, long), strict=True):
        assert (row - pair.reference(prompt)[-1]).abs().max() < pair.tolerance


@pytest.mark.parametrize("family", ["llama", "mistral, window of 24"])
def test_tiles_of_a_long_prompt_meet_without_a_seam(
    make_either: Make, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_TILE", 16)
    monkeypatch.setattr(attention, "_GATHER", 64)
    pair, prompt = make_either(family), draw(101)
    runner = Runner(pair.ours)
    table = runner.table(101)
    first = runner.step(Piece(table, 0, tuple(prompt[:70]), wants=False, wants_all=True))
    rest = runner.step(Piece(table, 70, tuple(prompt[70:]), wants=True, wants_all=True))
    assert (torch.cat([first, rest]) - pair.reference(prompt)).abs().max() < pair.tolerance


def test_few_different_paddings_waste_at_most_a_third() -> None:
    padded = [pieces.padded(positions, 8) for positions in range(1, 2000)]
    assert padded == sorted(padded)
    assert len(set(padded)) < 20
    for positions, span in enumerate(padded, start=1):
        assert span >= positions
        assert span % 8 == 0
        assert span <= 8 or span * 2 <= (positions + 7) * 3 + 8


def test_a_step_that_cannot_run_counts_and_writes_nothing(make_either: Make) -> None:
    pair = make_either()
    runner, before = Runner(pair.ours), pair.ours.rows
    for wrong in [Piece((0,), 0, (), wants=True), Piece((0,) * 65, 511, (1, 2), wants=True)]:
        with pytest.raises(ValueError, match="piece"):
            runner.step(wrong)
    with pytest.raises(IndexError, match="take more pages"):
        runner.step(Piece((0,), 0, tuple(draw(9)), wants=True))
    assert pair.ours.rows == before
    assert not any(tensor.any() for tensor in runner.pages.k)
