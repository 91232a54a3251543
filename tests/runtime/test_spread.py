"""A row of logits is looked at once, in numpy or in C++, and both see the same."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from sostenuto.runtime.engines.torch.cache import folder
from sostenuto.runtime.engines.torch.lean.native import NotBuilt, native
from sostenuto.runtime.engines.torch.spread import PART, Row, Spread, Sum, all_allowed, summed


def built() -> Sum:
    try:
        return native(folder()).summed
    except NotBuilt as reason:
        pytest.skip(f"nothing in C++: {reason}")


@pytest.fixture(params=["numpy", "C++"])
def sum_up(request: pytest.FixtureRequest) -> Sum:
    return summed if request.param == "numpy" else built()


def drawn(size: int, seed: int = 0) -> Row:
    return (np.random.default_rng(seed).standard_normal(size) * 4).astype(np.float32)


def packed(bits: NDArray[np.bool_]) -> bytes:
    return np.packbits(bits, bitorder="little").tobytes()


@given(
    size=st.one_of(st.integers(1, 70), st.integers(250, 520), st.just(5000)),
    seed=st.integers(0, 99),
    warm=st.sampled_from([1.0, 0.7, 2.0]),
    left=st.sampled_from([None, 0.0, 0.01, 0.5, 1.0]),
    short=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_both_see_the_same(size: int, seed: int, warm: float, left: float | None, short: int) -> None:
    row, mask = drawn(size, seed), None
    if left is not None:
        bits = np.random.default_rng(seed).random(size + 9) < left  # a mask may be longer than the row, or shorter
        bits[0] = True
        mask = packed(bits)[: max(1, -(-(size + 9) // 8) - short)]
    ours, theirs = built()(row, warm, mask), summed(row, warm, mask)
    assert (ours.highest, ours.best, ours.allowed) == (theirs.highest, theirs.best, theirs.allowed)
    assert (ours.tops == theirs.tops).all()
    assert len(ours.sums) == len(theirs.sums) == size // PART + 1
    np.testing.assert_allclose(ours.sums, theirs.sums, rtol=2e-5, atol=1e-30)


def test_the_sum_is_that_of_all_that_is_allowed(sum_up: Sum) -> None:
    row, bits = drawn(1000), np.arange(1000) % 3 == 0
    found = Spread(row, sum_up, warm=0.5, mask=packed(bits))
    values = row[bits].astype(np.float64) / 0.5
    assert found.total == pytest.approx(math.log(np.exp(values - values.max()).sum()) + values.max(), abs=1e-5)
    assert found.best == 3 * int(row[bits].argmax())
    assert found.allowed == 334
    assert found.log(3) == pytest.approx(row[3] / 0.5 - found.total, abs=1e-4)
    assert found.log(4) == -math.inf
    assert found.whole == pytest.approx(math.exp(found.total - values.max()), rel=1e-5)
    assert found.parts(np.array([found.best, 4])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_what_is_no_number_is_seen(sum_up: Sum, odd: float) -> None:
    row = drawn(600)
    row[599] = odd
    assert not math.isfinite(Spread(row, sum_up).total)


def test_nothing_allowed_is_told(sum_up: Sum) -> None:
    with np.errstate(invalid="ignore"):
        assert Spread(drawn(300), sum_up, mask=bytes(40)).allowed == 0


@pytest.mark.parametrize("size", [24, 300, 40_000])
@pytest.mark.parametrize("left", [None, 0.001, 0.3])
@pytest.mark.parametrize("count", [1, 5, 64, 300])
def test_the_likeliest_come_first_and_equals_by_their_ids(
    sum_up: Sum, size: int, left: float | None, count: int
) -> None:
    row = drawn(size).round(1)  # so that many are equal
    bits = np.ones(size, dtype=bool) if left is None else np.random.default_rng(1).random(size) < left
    bits[7] = True
    found = Spread(row, sum_up, mask=None if left is None else packed(bits))
    expected = [n for n in np.argsort(-row, kind="stable").tolist() if bits[n]]
    wanted = min(count, len(expected))
    assert found.likeliest(count)[:wanted].tolist() == expected[:wanted]


def test_a_share_is_found_in_its_part(sum_up: Sum) -> None:
    row = drawn(2000)
    found = Spread(row, sum_up)
    mass = np.exp(row.astype(np.float64) - row.max()).cumsum()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999999):
        assert abs(found.at(share) - int(mass.searchsorted(share * mass[-1], side="right"))) <= 1
    assert found.size == 2000


@pytest.mark.parametrize(
    ("mask", "size", "told"),
    [
        (b"\xff\x0f", 12, True),
        (b"\xff\xff", 12, True),
        (b"\xff\x07", 12, False),
        (b"\xff", 12, False),
        (b"\xff", 8, True),
        (b"", 8, False),
        (b"\xfe\x0f", 12, False),
    ],
)
def test_a_mask_that_forbids_nothing_is_known(mask: bytes, size: int, told: bool) -> None:
    assert all_allowed(mask, size) is told
