"""Eight bits a number and a scale for each channel or token: what int8 and fp8 have in common.

Keys have channels that are large in every token, so a key channel has a scale of its own, over the tokens of the
block; values have none, so there each token has one, over its channels (KIVI, arXiv 2402.02750, sections 3.1 and 3.2).
On the packaged model that takes a fifth off int8's divergence and changes nothing for fp8, whose error is in
proportion to each number anyway (bench/kvstore_lossy.py has both ways). Unlike there: the scale is symmetric, without
a zero point, which at eight bits is not worth its bytes; groups are whole blocks, not 32 tokens; and no latest tokens
are left as they were, for a parked context is coded when it rests.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch

from ..shape import Shape
from .base import Bytes, checked, joined, measured, narrowed, split

FEW = 8
"""Blocks of fewer tokens have keys scaled by token too: a scale for each channel would outweigh what it saves."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """Codes of one byte, and scales in bfloat16, whose range is float32's. The scales come first: keys', values'."""

    name: str
    code: torch.dtype
    """int8, or a float of eight bits."""
    top: float
    """The largest code in use; the largest number under a scale becomes this."""
    by_channel: bool = True
    """Whether keys are scaled by channel; False is for measuring what that is worth."""
    exact: ClassVar[bool] = False

    def size(self, shape: Shape, tokens: int) -> int:
        scales = (shape.head_dim if self._by_channel(tokens) else tokens) + tokens
        return shape.layers * shape.kv_heads * (2 * scales + 2 * tokens * shape.head_dim)

    def encode(self, block: torch.Tensor) -> bytes:
        """Raises ValueError for numbers that are not finite, too: no scale says how large they are."""
        keys, values = checked(block).float().unbind(1)
        key_scales, key_codes = self._quantise(keys, -2 if self._by_channel(keys.shape[-2]) else -1)
        value_scales, value_codes = self._quantise(values, -1)
        return joined(key_scales, value_scales, key_codes, value_codes)

    def decode(self, data: Bytes, shape: Shape, tokens: int) -> torch.Tensor:
        measured(self, data, shape, tokens)
        heads = shape.layers * shape.kv_heads
        wide = self._by_channel(tokens)
        count = shape.head_dim if wide else tokens
        parts = split(data, 2 * heads * count, 2 * heads * tokens, 2 * heads * tokens * shape.head_dim)
        near = (shape.layers, shape.kv_heads)
        key_scales = parts[0].view(torch.bfloat16).view(*near, *((1, count) if wide else (count, 1)))
        value_scales = parts[1].view(torch.bfloat16).view(*near, tokens, 1)
        codes = _numbers(self.code).index_select(0, parts[2].int())
        keys, values = codes.view(2, *near, tokens, shape.head_dim)
        block = torch.stack((keys.mul_(key_scales), values.mul_(value_scales)), dim=1)
        return narrowed(block, getattr(torch, shape.dtype))

    def _by_channel(self, tokens: int) -> bool:
        return self.by_channel and tokens >= FEW

    def _quantise(self, half: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Scales in bfloat16, and codes of keys or values, [layers, kv_heads, tokens, head_dim]."""
        peak = half.abs().amax(axis, keepdim=True)
        scale = (peak / self.top).bfloat16()
        if not torch.isfinite(scale).all():
            raise ValueError(f"{self.name}: found numbers that are not finite: keep such a block raw, or not at all")
        # By the scale as it is stored, so that its own rounding costs nothing but at the very top.
        codes = half / scale.float().masked_fill_(scale == 0, 1.0)
        if not self.code.is_floating_point:
            codes.round_()
        return scale, codes.clamp_(-self.top, self.top).to(self.code)


@lru_cache
def _numbers(code: torch.dtype) -> torch.Tensor:
    """What each of the 256 bytes stands for: looking eight-bit floats up is much faster than converting them."""
    return torch.arange(256, dtype=torch.uint8).view(code).float()
