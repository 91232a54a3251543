"""The parts of the rotating codec: its rotation, its levels, its packing, and bytes that were written long ago."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import Shape
from sostenuto.kvstore.codecs import ROTATED3, ROTATED4, Codec
from sostenuto.kvstore.codecs.rotated import levels, pack, rotation, unpack

MAX_1960 = {
    3: [0.2451, 0.7560, 1.344, 2.152],
    4: [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733],
}
"""The best levels for a normal density: J. Max, Quantizing for minimum distortion, 1960, table I."""


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 64, 80, 96, 112, 128, 256])
def test_a_rotation_keeps_lengths_and_angles(dim: int) -> None:
    turn = rotation(dim).double()
    assert torch.allclose(turn @ turn.T, torch.eye(dim, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize("dim", [64, 80, 128])
def test_a_rotation_spreads_every_single_coordinate_over_all(dim: int) -> None:
    assert rotation(dim).abs().max() <= (2 / dim) ** 0.5 + 1e-6


def test_signs_are_those_that_old_bytes_were_written_with() -> None:
    assert rotation(8)[0].sign().tolist() == [-1, -1, -1, 1, -1, 1, 1, 1]


@pytest.mark.parametrize("bits", [3, 4])
def test_levels_are_the_textbooks_where_there_are_many_dimensions(bits: int) -> None:
    """A coordinate of a unit vector in d dimensions is then nearly normal, with variance 1 / d."""
    dim = 4096
    positive = levels(dim, bits)[2 ** (bits - 1) :] * dim**0.5
    assert torch.allclose(positive, torch.tensor(MAX_1960[bits]), rtol=2e-3)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("dim", [2, 8, 64, 80, 128])
def test_levels_ascend_within_the_unit_and_are_symmetric(dim: int, bits: int) -> None:
    found = levels(dim, bits)
    assert len(found) == 2**bits
    assert (found.diff() > 0).all()
    assert found.abs().max() <= 1
    assert torch.equal(found, -found.flip(0))


@pytest.mark.parametrize("bits", [3, 4])
def test_a_level_is_the_mean_of_what_is_rounded_to_it(bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    sample = torch.nn.functional.normalize(torch.randn(40_000, 16, generator=generator), dim=-1).view(-1)
    found = levels(16, bits)
    nearest = torch.bucketize(sample, (found[1:] + found[:-1]) / 2)
    means = torch.stack([sample[nearest == code].mean() for code in range(2**bits)])
    assert torch.allclose(means, found, atol=2e-3)


@given(bits=st.integers(1, 4), data=st.data())
@settings(deadline=None)
def test_packed_codes_come_back_and_take_their_bits(bits: int, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), min_size=1, max_size=40))
    packed = pack(torch.tensor(codes, dtype=torch.uint8), bits)
    assert len(packed) == -(-len(codes) // 8) * bits
    assert unpack(packed, bits)[: len(codes)].tolist() == codes


@pytest.mark.parametrize("codec", [ROTATED3, ROTATED4], ids=lambda codec: codec.name)
def test_a_vectors_inner_product_with_itself_comes_out_right(codec: Codec) -> None:
    """To what bfloat16 rounds; by the published length it would come out short by the distortion, 0.9 or 3 %."""
    block = torch.randn(1, 2, 2, 64, 64, generator=torch.Generator().manual_seed(0))
    read = codec.decode(codec.encode(block), Shape(1, 2, 64, "float32", 32), 64)
    assert torch.allclose((block * read).sum(-1), block.square().sum(-1), rtol=2**-8)


def test_codes_lie_in_their_order_the_first_in_the_lowest_bits() -> None:
    codes = torch.tensor([1, 2, 3, 4, 5, 6, 7, 0], dtype=torch.uint8)
    assert int.from_bytes(pack(codes, 3).tolist(), "little") == sum(c << 3 * i for i, c in enumerate(codes.tolist()))
    assert int.from_bytes(pack(codes, 4).tolist(), "little") == 0x07654321


def test_bytes_that_were_written_long_ago_read_as_they_did() -> None:
    """Lengths 2 and 0.5, and all sixteen codes."""
    lengths = torch.tensor([2.0, 0.5]).bfloat16().view(torch.uint8).tolist()
    read = ROTATED4.decode(bytes([*lengths, *range(0x10, 0x90, 0x10)]), Shape(1, 1, 8, "float32", 32), 1)
    codes = torch.tensor([[0, 1, 0, 2, 0, 3, 0, 4], [0, 5, 0, 6, 0, 7, 0, 8]])
    expected = levels(8, 4)[codes] @ rotation(8) * torch.tensor([[2.0], [0.5]])
    assert torch.allclose(read.view(2, 8), expected)
