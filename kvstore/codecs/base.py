"""What a codec must do, and the few moves that all of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import torch

from ..shape import Shape

Bytes: TypeAlias = bytes | bytearray | memoryview


class Codec(Protocol):
    """A block of keys and values as bytes that carry all that is needed to read them again, but for their geometry.

    A block is `[layers, 2 (keys, values), kv_heads, tokens, head_dim]` in float32, bfloat16 or float16, of any number
    of tokens from one on. Equal blocks give equal bytes, and each block is coded alone: no byte depends on what was
    coded before. Codecs hold no state, so threads may share one.
    """

    @property
    def name(self) -> str:
        """What a seal says of the bytes; another name whenever they would be read otherwise."""

    @property
    def exact(self) -> bool:
        """Whether what is decoded is what was encoded, bit for bit."""

    def size(self, shape: Shape, tokens: int) -> int:
        """How many bytes a block of so many tokens takes: always exactly these. `shape.page` plays no part."""

    def encode(self, block: torch.Tensor) -> bytes:
        """The block as `size` bytes. Raises ValueError for what is no block or holds what the codec cannot say."""

    def decode(self, data: Bytes, shape: Shape, tokens: int) -> torch.Tensor:
        """The block again, in `shape.dtype`, on the CPU, in memory of its own.

        Raises ValueError for bytes that are not as many as `size` says, and reads nothing of them.
        """


def checked(block: torch.Tensor) -> torch.Tensor:
    """The block itself. Raises ValueError for what is none."""
    good = block.ndim == 5 and block.shape[1] == 2 and block.numel() > 0 and block.dtype in _FLOATS
    if not good:
        raise ValueError(
            f"found {block.dtype} {list(block.shape)}; expected [layers, 2, kv_heads, tokens, head_dim] of float32, "
            "bfloat16 or float16 with at least one token: stack keys and values first"
        )
    return block


def measured(codec: Codec, data: Bytes, shape: Shape, tokens: int) -> Bytes:
    """The bytes themselves. Raises ValueError unless they are as many as the codec writes for so many tokens."""
    if tokens < 1:
        raise ValueError(f"a block of {tokens} tokens was to be decoded: it has at least one")
    found, expected = memoryview(data).nbytes, codec.size(shape, tokens)
    if found != expected:
        raise ValueError(
            f"{codec.name}: found {found} bytes, expected {expected} for {tokens} tokens of {shape}: "
            "they are cut short or another model's; drop them and compute the block again"
        )
    return data


def joined(*parts: torch.Tensor) -> bytes:
    """The tensors' own bytes, one after the other, in the machine's order: little-endian wherever torch runs."""
    raws = [part.contiguous().view(-1).view(torch.uint8) for part in parts]
    whole = bytearray(sum(map(len, raws)))
    flat = torch.frombuffer(whole, dtype=torch.uint8)
    for target, raw in zip(torch.split_with_sizes(flat, [*map(len, raws)]), raws, strict=True):
        target.copy_(raw)
    return bytes(whole)


def split(data: Bytes, *sizes: int) -> Sequence[torch.Tensor]:
    """The bytes as uint8 tensors of these sizes, which lie one after the other in one copy of them."""
    # A copy, for torch reads no memory that it may not write.
    return torch.split_with_sizes(torch.frombuffer(bytearray(data), dtype=torch.uint8), sizes)


def narrowed(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """In another dtype; what rounding has carried beyond its range is its largest number, not infinity."""
    top = torch.finfo(dtype).max
    return values.clamp_(-top, top).to(dtype)


_FLOATS = (torch.float32, torch.bfloat16, torch.float16)
