"""Codecs say how many bytes they write, give back what they promise, and refuse what they cannot say or read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import Shape
from sostenuto.kvstore.codecs import CODECS, FP8, INT8, RAW, ROTATED3, ROTATED4, Codec, decoded, encoded, named

from .records import seal

LOSSY = [codec for codec in CODECS if not codec.exact]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = ((1, 1, 1, 1), (2, 3, 1, 64), (1, 2, 7, 80), (3, 1, 8, 5), (2, 1, 9, 6), (2, 3, 32, 64), (1, 1, 45, 128))
"""layers, kv_heads, tokens, head_dim."""

every_codec = pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
every_lossy_codec = pytest.mark.parametrize("codec", LOSSY, ids=lambda codec: codec.name)
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def drawn(*sizes: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    layers, heads, tokens, dim = sizes
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(layers, 2, heads, tokens, dim, generator=generator).to(dtype)


def shape_of(block: torch.Tensor) -> Shape:
    layers, _, heads, _, dim = block.shape
    return Shape(layers, heads, dim, str(block.dtype).removeprefix("torch."), page=32)


def back(codec: Codec, block: torch.Tensor) -> torch.Tensor:
    return codec.decode(codec.encode(block), shape_of(block), block.shape[3])


def distortion(codec: Codec, vectors: torch.Tensor) -> float:
    """The squared error of vectors [n, dim], in parts of their squared lengths."""
    block = torch.stack((vectors, vectors))[None, :, None]
    return float((back(codec, block) - block).square().sum() / block.square().sum())


PUBLISHED: dict[Codec, float] = {ROTATED4: 0.009, ROTATED3: 0.03}
"""The distortion of unit vectors in arXiv 2504.19874, theorem 1, to the digits given there."""


@every_codec
@every_dtype
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_a_codec_writes_as_many_bytes_as_it_says_and_reads_a_block_of_the_same_kind(
    codec: Codec, dtype: torch.dtype, sizes: tuple[int, int, int, int]
) -> None:
    block = drawn(*sizes, dtype=dtype)
    data = codec.encode(block)
    assert isinstance(data, bytes)
    assert len(data) == codec.size(shape_of(block), sizes[2])
    read = codec.decode(data, shape_of(block), sizes[2])
    assert (read.shape, read.dtype, read.device.type) == (block.shape, dtype, "cpu")
    assert torch.isfinite(read).all()


@every_dtype
@given(data=st.binary(min_size=48, max_size=48))
@settings(deadline=None)
def test_raw_gives_every_bit_back_and_changes_no_byte(dtype: torch.dtype, data: bytes) -> None:
    """Of numbers, infinities, both zeros, and every NaN there is."""
    block = torch.frombuffer(bytearray(data), dtype=dtype).view(1, 2, 1, -1, 2)
    assert RAW.exact
    assert RAW.encode(block) == data
    assert RAW.encode(back(RAW, block)) == data


@every_codec
def test_what_was_decoded_is_nobody_elses_memory(codec: Codec) -> None:
    block = drawn(1, 1, 4, 8)
    data = codec.encode(block)
    first = codec.decode(data, shape_of(block), 4)
    kept = first.clone()
    first.zero_()
    assert torch.equal(codec.decode(data, shape_of(block), 4), kept)


@every_codec
def test_equal_blocks_give_equal_bytes_however_they_lie_in_memory(codec: Codec) -> None:
    block = drawn(2, 3, 16, 64)
    strided = block.transpose(1, 3).contiguous().transpose(1, 3)
    assert not strided.is_contiguous()
    assert codec.encode(block) == codec.encode(strided) == codec.encode(block.clone())
    assert torch.equal(block, drawn(2, 3, 16, 64))


@every_codec
def test_bytes_may_come_as_a_view_of_others(codec: Codec) -> None:
    block = drawn(1, 2, 5, 16)
    data = codec.encode(block)
    inside = memoryview(b"before" + data + b"after")[6:-5]
    expected = codec.decode(data, shape_of(block), 5)
    assert torch.equal(codec.decode(inside, shape_of(block), 5), expected)
    assert torch.equal(codec.decode(bytearray(data), shape_of(block), 5), expected)


@every_codec
def test_bytes_that_are_cut_short_or_too_many_are_refused(codec: Codec) -> None:
    block = drawn(1, 1, 3, 8)
    data, shape = codec.encode(block), shape_of(block)
    for length in range(len(data)):
        with pytest.raises(ValueError, match=rf"{codec.name}: found {length} bytes, expected {len(data)}"):
            codec.decode(data[:length], shape, 3)
    with pytest.raises(ValueError, match="compute the block again"):
        codec.decode(data + b"\0", shape, 3)
    with pytest.raises(ValueError, match="for 4 tokens"):
        codec.decode(data, shape, 4)
    with pytest.raises(ValueError, match="at least one"):
        codec.decode(b"", shape, 0)


@every_codec
@pytest.mark.parametrize(
    "wrong",
    [
        torch.zeros(1, 2, 1, 4),
        torch.zeros(1, 3, 1, 4, 8),
        torch.zeros(1, 2, 1, 0, 8),
        torch.zeros(1, 2, 1, 4, 8, dtype=torch.float64),
        torch.zeros(1, 2, 1, 4, 8, dtype=torch.int8),
    ],
    ids=lambda wrong: f"{wrong.dtype} {list(wrong.shape)}",
)
def test_what_is_no_block_is_refused(codec: Codec, wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected"):
        codec.encode(wrong)


@every_lossy_codec
@every_dtype
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("side", [0, 1])
def test_lossy_codecs_refuse_numbers_that_are_not_finite(
    codec: Codec, dtype: torch.dtype, value: float, side: int
) -> None:
    block = drawn(1, 2, 9, 16, dtype=dtype)
    block[0, side, 1, 4, 3] = value
    with pytest.raises(ValueError, match=rf"{codec.name}: found .* finite"):
        codec.encode(block)


@every_codec
@every_dtype
def test_zeros_stay_zeros(codec: Codec, dtype: torch.dtype) -> None:
    block = drawn(2, 2, 9, 16, dtype=dtype)
    block[1] = 0
    block[0, 0, 0, 3] = 0
    read = back(codec, block)
    assert not read[1].any()
    if codec is not INT8:
        assert not read[0, 0, 0, 3].any()


@every_lossy_codec
@every_dtype
@pytest.mark.parametrize("tokens", [1, 8])
def test_the_largest_numbers_do_not_become_infinite(codec: Codec, dtype: torch.dtype, tokens: int) -> None:
    """Of their dtype, but for rotation, which squares them: there, those whose squares can still be said."""
    top = torch.finfo(dtype).max
    block = torch.full((1, 2, 1, tokens, 16), min(top, 1e18) if codec in PUBLISHED else top, dtype=dtype)
    read = back(codec, block)
    assert torch.isfinite(read).all()
    assert (read.sign() == 1).all()


@every_lossy_codec
def test_how_large_numbers_are_does_not_matter_to_the_error(codec: Codec) -> None:
    """Equal to within what the rounding of scales makes of it."""
    block = drawn(1, 2, 16, 64)
    least = float((back(codec, block) - block).norm() / block.norm())
    for factor in (2.0**-20, 2.0**30):
        scaled = block * factor
        assert float((back(codec, scaled) - scaled).norm() / scaled.norm()) == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("tokens", [1, 7, 8, 40])
def test_int8_is_never_further_off_than_half_a_step(tokens: int) -> None:
    block = drawn(2, 3, tokens, 64) * torch.logspace(-3, 3, 64)
    error = (back(INT8, block) - block).abs()
    for side, axis in ((0, -2 if tokens >= 8 else -1), (1, -1)):
        step = block[:, side].abs().amax(axis, keepdim=True) / 127 * (1 + 2**-8)
        assert (error[:, side] <= step / 2 * (1 + 1e-5)).all()
        assert (error[:, side] > 0).any() or tokens == 1


@pytest.mark.parametrize("tokens", [1, 7, 8, 40])
def test_fp8_is_off_in_proportion_to_the_number(tokens: int) -> None:
    block = drawn(2, 3, tokens, 64) * torch.logspace(-3, 3, 64)
    error = (back(FP8, block) - block).abs()
    for side, axis in ((0, -2 if tokens >= 8 else -1), (1, -1)):
        scale = block[:, side].abs().amax(axis, keepdim=True) / 448 * (1 + 2**-8)
        bound = torch.maximum(block[:, side].abs() / 16, scale.expand_as(block[:, side]) / 1024)
        assert (error[:, side] <= bound * (1 + 1e-5)).all()


@pytest.mark.parametrize("codec", [INT8, FP8], ids=lambda codec: codec.name)
def test_a_channel_of_the_keys_that_is_large_in_every_token_does_not_blur_the_others(codec: Codec) -> None:
    plain = drawn(1, 1, 32, 64)
    spiky = plain.clone()
    spiky[..., 5] += 1000.0
    others = torch.arange(64) != 5
    expected = (back(codec, plain) - plain)[:, 0][..., others]
    found = (back(codec, spiky) - spiky)[:, 0][..., others]
    assert torch.equal(found, expected)


@pytest.mark.parametrize("codec", PUBLISHED, ids=lambda codec: codec.name)
@pytest.mark.parametrize("dim", [64, 80, 128])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "one large channel"])
def test_a_rotated_vector_loses_what_the_paper_says_whatever_it_looks_like(codec: Codec, dim: int, kind: str) -> None:
    normal = torch.randn(512, dim, generator=torch.Generator().manual_seed(1))
    vectors = {
        "normal": normal,
        "heavy tails": normal**5,
        "one large channel": normal + 50 * torch.eye(dim)[3],
    }[kind]
    assert distortion(codec, vectors) < PUBLISHED[codec] * 1.25


@pytest.mark.parametrize("codec", PUBLISHED, ids=lambda codec: codec.name)
@pytest.mark.parametrize("dim", [64, 80, 128])
def test_a_vector_of_a_single_number_is_spread_before_it_is_rounded(codec: Codec, dim: int) -> None:
    """All its coordinates are alike afterwards, so their errors do not average out; unturned, half of it would go."""
    assert distortion(codec, torch.eye(dim)) < PUBLISHED[codec] * 4


def test_more_bytes_lose_less() -> None:
    block, losses, sizes = drawn(2, 3, 32, 64), [], []
    for codec in CODECS:
        losses.append(float((back(codec, block) - block).norm()))
        sizes.append(codec.size(shape_of(block), 32))
    assert sizes == sorted(sizes, reverse=True)
    assert losses[0] == 0
    assert losses[1:3] < losses[3:4] < losses[4:5]
    assert [round(size * 8 / block.numel(), 2) for size in sizes] == [32.0, 8.38, 8.38, 4.25, 3.25]


def test_a_codec_is_found_by_its_name_and_the_exact_one_comes_first() -> None:
    assert [named(codec.name) for codec in CODECS] == list(CODECS)
    assert [codec.name for codec in CODECS if codec.exact] == ["raw"]
    assert CODECS[0] is RAW
    with pytest.raises(ValueError, match="'zip' is unknown: give one of raw, fp8, int8, rotated4, rotated3"):
        named("zip")


@every_codec
@every_dtype
def test_bytes_of_a_page_go_through_the_codec_of_their_seal_and_raw_ones_stay_what_they_are(
    codec: Codec, dtype: torch.dtype
) -> None:
    block = drawn(2, 3, 5, 16, dtype=dtype)
    shape = shape_of(block)
    page = RAW.encode(block)
    sealed = seal(dtype=shape.dtype, layers=2, kv_heads=3, head_dim=16, page=32, codec=codec.name, exact=codec.exact)
    stored = encoded(page, sealed, 5)
    assert stored == codec.encode(block)
    assert decoded(stored, sealed, 5) == RAW.encode(back(codec, block))
    assert (stored is page) is codec.exact
    assert (decoded(stored, sealed, 5) == page) is codec.exact
    with pytest.raises(ValueError, match=r"found \d+ bytes, expected"):
        decoded(stored[:-1], replace(sealed, codec="int8"), 5)
