"""Matrix products of the lean path: weights as they are, or packed once into the order in which the CPU reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Protocol

import torch
import torch.nn.functional as F

_WIDEST = 512
"""Rows of a product at most, where it is wanted that a row's bits do not depend on them."""
_FEW = 32
_TRIED = 1 << 22
"""Numbers that a product gives at most while it is tried out."""


class Linear(Protocol):
    """A weight [out, in], perhaps with a bias, by which rows are multiplied."""

    def __call__(self, rows: torch.Tensor) -> torch.Tensor: ...


class Weight(Linear, Protocol):
    """One that can be told other numbers."""

    def write(self, part: slice, weight: torch.Tensor) -> None:
        """Other numbers for some of its outputs: rows of the weight, or of the bias where they have one dimension."""
        ...

    def share(self, part: slice, dimensions: int) -> torch.Tensor:
        """The weight, or the bias, of some outputs as it lies here; an empty one where it does not lie as such."""
        ...


class Plain:
    """The weight as it is."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.weight, self.bias = weight, bias

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return F.linear(rows, self.weight, self.bias)

    def write(self, part: slice, weight: torch.Tensor) -> None:
        _written(self.weight, self.bias, part, weight)

    def share(self, part: slice, dimensions: int) -> torch.Tensor:
        whole = self.weight if dimensions > 1 else self.bias
        assert whole is not None, "nobody asks for a bias that there is not"
        return whole[part]


class Packed:
    """The weight in the order of oneDNN's own kernels: nothing is reordered when a step comes."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._bias = bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), 1)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        done: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, self._bias, "none", [], "")
        return done

    def write(self, part: slice, weight: torch.Tensor) -> None:
        plain = self._packed.to_dense()
        _written(plain, self._bias, part, weight)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(plain, 1)

    def share(self, part: slice, dimensions: int) -> torch.Tensor:
        if dimensions > 1 or self._bias is None:
            return torch.empty(0, dtype=torch.bfloat16)
        return self._bias[part]


class Narrow:
    """Products of a bounded number of rows, and never of one: every row gets the bits that it gets among few."""

    def __init__(self, inner: Linear, most: int) -> None:
        self._inner, self._most = inner, most

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        if len(rows) <= self._most:
            return self._inner(rows)
        whole, rest = divmod(len(rows), self._most)
        sizes = [self._most] * whole + [rest] * bool(rest)
        if rest == 1:
            sizes[-2:] = [self._most - 1, 2]
        return torch.cat([self._inner(part) for part in torch.split(rows, sizes)])


def fastest(weight: torch.Tensor, bias: torch.Tensor | None = None) -> Weight:
    """The fastest that this torch has for the weight."""
    here = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
    return Packed(weight, bias) if here and packs() else Plain(weight, bias)


@cache
def packs() -> bool:
    """Whether this torch has the private operators that `Packed` is made of, and they do what they did."""
    draw = torch.Generator().manual_seed(1)
    weight, rows, bias = (torch.randn(size, generator=draw).bfloat16() for size in ((64, 64), (3, 64), (64,)))
    try:
        packed = Packed(weight, bias)
        close = torch.allclose(packed(rows), F.linear(rows, weight, bias), atol=0.1, rtol=0.02)
        return close and torch.equal(packed._packed.to_dense(), weight)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return False


@cache
def even(outputs: int, inputs: int, dtype: torch.dtype, threads: int) -> int:
    """How many rows a product may have at most, so that a row gets the same bits among any number of them from 2 on.

    Tried here and now, on random numbers: libraries choose their kernels by the processor, by the size of what they
    multiply and by the threads. 0 where two rows and three do not agree.
    """
    draw = torch.Generator().manual_seed(1)
    each = fastest(torch.randn(outputs, inputs, generator=draw).to(dtype))
    rows = torch.randn(max(_FEW, min(_WIDEST, _TRIED // outputs)), inputs, generator=draw).to(dtype)
    truth = torch.cat([each(part) for part in torch.split(rows[:_FEW], 2)])
    for few in range(2, _FEW + 1):
        if not torch.equal(each(rows[:few]), truth[:few]):
            return few - 1 if few > 3 else 0
    truth = torch.cat([each(part) for part in torch.split(rows, _FEW)])
    best = _FEW
    while 2 * best <= len(rows):
        wide = 2 * best
        if not all(
            torch.equal(each(rows[:size]), truth[:size]) for size in (wide, wide - 1, wide - _FEW // 2, best + 1)
        ):
            break
        best = wide
    return best


def fused(
    weights: Sequence[torch.Tensor], biases: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Several weights of the same rows as one. Of biases there are all or none."""
    known = [bias.detach() for bias in biases if bias is not None]
    return _joined([weight.detach() for weight in weights]), _joined(known) if known else None


def _joined(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


def _written(whole: torch.Tensor, bias: torch.Tensor | None, part: slice, given: torch.Tensor) -> None:
    if given.dim() > 1:
        whole[part].copy_(given)
    elif bias is not None:
        bias[part].copy_(given)
