"""Weights in the order in which the library of `native.py` reads them: panels of sixteen outputs."""

from __future__ import annotations

import ctypes
import mmap
from typing import Protocol

import torch
import torch.nn.functional as F

from .blocks import BYTES, SIZE, Blocks, Kind

LANES = 16
TILE = 32
"""Outputs and inputs are filled up to so many, with zeros."""


class Told(ctypes.Structure):
    """What the library knows of a weight."""

    _fields_ = [
        ("panels", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("blocks", ctypes.c_void_p),
        ("kind", ctypes.c_int32),
        ("inputs", ctypes.c_int32),
        ("outputs", ctypes.c_int32),
        ("unused", ctypes.c_int32),
    ]


class Multiplies(Protocol):
    """What can multiply rows by panels."""

    def multiply(self, rows: torch.Tensor, count: int, told: Told, few: int) -> torch.Tensor:
        """[rows, outputs filled up], of rows [rows, inputs filled up]; up to `few` of them by blocks.

        The first `count` are computed; there are a multiple of 32.
        """
        ...


class Panels:
    """A weight [outputs, inputs], perhaps with a bias, that the library multiplies by.

    With `gated` the outputs are gates and as many others: sixteen of these lie behind sixteen of those.
    """

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        library: Multiplies,
        *,
        gated: bool = False,
        blocks: tuple[Blocks, int] | None = None,
    ) -> None:
        """`blocks`: the same weight in blocks, and the number of rows up to which they are taken."""
        outputs, self._inputs = weight.shape
        self._library = library
        self._places = _places(outputs, gated)
        width = _up(self._inputs, TILE)
        size = _up(int(self._places.max()) + 1, TILE)
        self._panels = _large(size * width, weight.dtype)
        self._size = size, width
        self._bias = None if bias is None else torch.zeros(size, dtype=weight.dtype)
        self._blocks = None if blocks is None else _grouped(blocks[0], self._places, size)
        self.few = 0 if blocks is None else blocks[1]
        kind = 0 if blocks is None else 8 if blocks[0].kind is Kind.Q8_0 else 4
        pointers = [each if each is None else each.data_ptr() for each in (self._panels, self._bias, self._blocks)]
        self.told = Told(*pointers, kind, width, outputs if not gated else size, 0)
        whole = slice(0, outputs)
        self._write(whole, weight)
        if bias is not None:
            self._write(whole, bias)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        filled = rows.new_zeros(_up(len(rows), TILE), self._size[1])
        filled[: len(rows), : self._inputs] = rows
        return self._library.multiply(filled, len(rows), self.told, self.few)[: len(rows), self._places]

    def write(self, part: slice, weight: torch.Tensor) -> None:
        """Other numbers for some outputs. They are in no blocks, so from now on the weight is whole for all."""
        self.told.blocks, self.few = None, 0
        self._write(part, weight)

    def share(self, part: slice, dimensions: int) -> torch.Tensor:
        """Nothing of it lies as such."""
        return torch.empty(0, dtype=self._panels.dtype)

    def _write(self, part: slice, given: torch.Tensor) -> None:
        places = self._places[part]
        if given.dim() == 1:
            assert self._bias is not None, "nobody writes a bias that there is not"
            self._bias[places] = given.to(self._bias.dtype)
            return
        size, width = self._size
        # A panel's column is four bytes wide: one float, or two neighbours in half the bits.
        words = self._panels.view(torch.int32).view(size // LANES, -1, LANES)
        rows = given.to(self._panels.dtype)
        if width > self._inputs:
            rows = F.pad(rows, (0, width - self._inputs))
        words.transpose(1, 2)[places // LANES, places % LANES] = rows.contiguous().view(torch.int32)


def _places(outputs: int, gated: bool) -> torch.Tensor:
    """Where each output lies among those of the panels."""
    at = torch.arange(outputs)
    if not gated:
        return at
    half = at % (outputs // 2)
    return half // LANES * TILE + half % LANES + at // (outputs // 2) * LANES


def _grouped(blocks: Blocks, places: torch.Tensor, size: int) -> torch.Tensor:
    """Blocks as `blocks.h` has them, for sixteen outputs at a time."""
    count = blocks.data.shape[1] // BYTES[blocks.kind]
    raw = torch.zeros(size, count, BYTES[blocks.kind], dtype=torch.uint8)
    raw[places] = blocks.data.view(-1, count, BYTES[blocks.kind])
    raw = raw.view(size // LANES, LANES, count, -1).transpose(1, 2)
    scale = raw[..., :2]
    if blocks.kind is Kind.Q8_0:
        pairs = raw[..., 2:].view(*raw.shape[:3], SIZE // 2, 2).permute(0, 1, 3, 4, 2)
        return torch.cat([scale.flatten(2), pairs.flatten(2)], -1)
    least = raw[..., 2:4]
    if blocks.kind is Kind.Q4_0:
        least = (scale.contiguous().view(torch.float16) * -8).view(torch.uint8)
    packed = raw[..., -SIZE // 2 :]
    numbers = torch.cat([packed & 15, packed >> 4], -1).view(*raw.shape[:3], SIZE // 4, 2, 2)
    both = numbers[..., 0, :] | numbers[..., 1, :] << 4
    return torch.cat([scale.flatten(2), least.flatten(2), both.permute(0, 1, 3, 2, 4).flatten(2)], -1)


def _large(count: int, dtype: torch.dtype) -> torch.Tensor:
    """Zeros in large pages where the system has them: a step reads all weights, and every page is looked up."""
    room = mmap.mmap(-1, count * dtype.itemsize)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        room.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(room, dtype=dtype)


def _up(size: int, to: int) -> int:
    return -(-size // to) * to
