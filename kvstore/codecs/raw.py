"""The tensor's own bytes: nothing saved, nothing lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from ..shape import Shape
from .base import Bytes, checked, joined, measured, split


@dataclass(frozen=True, slots=True)
class Raw:
    """Bit-exact, of infinities and of every NaN too; the bytes are those of `Pages.read`."""

    name: ClassVar[str] = "raw"
    exact: ClassVar[bool] = True

    def size(self, shape: Shape, tokens: int) -> int:
        return shape.bytes_per_token * tokens

    def encode(self, block: torch.Tensor) -> bytes:
        return joined(checked(block))

    def decode(self, data: Bytes, shape: Shape, tokens: int) -> torch.Tensor:
        measured(self, data, shape, tokens)
        (whole,) = split(data, self.size(shape, tokens))
        dtype: torch.dtype = getattr(torch, shape.dtype)
        return whole.view(dtype).view(shape.layers, 2, shape.kv_heads, tokens, shape.head_dim)


RAW = Raw()
