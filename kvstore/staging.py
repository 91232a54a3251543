"""One page on its way to another device or back, in page-locked memory where that is a CUDA device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from .record import Buffer
from .shape import Shape


class Staging:
    """Room for one page, for one thread at a time.

    CUDA copies by itself, and while kernels run, only from and to page-locked memory ("How to Optimize Data Transfers
    in CUDA C/C++", NVIDIA): from other memory it copies into such memory of its own first. Copies go through a stream
    of their own, so that they do not queue behind the forward pass, and are over when a method returns. Whoever calls
    sees to it that nobody writes on the page meanwhile.
    """

    def __init__(self, shape: Shape, device: torch.device) -> None:
        cuda = device.type == "cuda"
        dtype: torch.dtype = getattr(torch, shape.dtype)
        self._shape = shape
        self._room = torch.empty(shape.bytes_per_page // dtype.itemsize, dtype=dtype, pin_memory=cuda)
        self._stream: Any = torch.cuda.Stream(device) if cuda else None  # type: ignore[no-untyped-call]

    def out(self, page: torch.Tensor) -> memoryview:
        """The bytes of slots on the device, [layers, 2, kv_heads, tokens, head_dim]: a copy of its own."""
        with self._copying():
            held = self._held(page.shape[-2])
            held.copy_(page, non_blocking=True)
        flat: Any = held.view(-1).view(torch.uint8).numpy()
        return memoryview(flat.copy())

    def fill(self, page: torch.Tensor, data: Buffer) -> None:
        """Fill slots on the device with bytes of at least as many tokens."""
        given = np.frombuffer(data, dtype=np.uint8)
        held = self._held(given.size // self._shape.bytes_per_token)
        held.view(-1).view(torch.uint8).numpy()[:] = given
        with self._copying():
            page.copy_(held[..., : page.shape[-2], :], non_blocking=True)

    def _held(self, tokens: int) -> torch.Tensor:
        shape = self._shape
        size = (shape.layers, 2, shape.kv_heads, tokens, shape.head_dim)
        return self._room[: self._room.numel() // shape.page * tokens].view(size)

    @contextmanager
    def _copying(self) -> Iterator[None]:
        if self._stream is None:
            yield
            return
        with torch.cuda.stream(self._stream):
            yield
        self._stream.synchronize()
