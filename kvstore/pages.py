"""The tensors behind device blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .record import Buffer
from .shape import Shape
from .staging import Staging


class Pages:
    """Room for the keys and values of `room` pages, layer by layer.

    It knows nothing of sequences, owners or names: those are the ledger's. A page is `shape.page` consecutive slots;
    slot `page_id * shape.page + i` holds the i-th token of a page. What nobody wrote reads as zero or as what an
    earlier owner left there: readers must not look past what they wrote.

    Memory is touched as pages are first written, on the CPU at least, so a generous `room` costs little until used.
    """

    def __init__(self, shape: Shape, room: int, device: str = "cpu") -> None:
        """Raises ValueError for a room without pages, and what torch raises where memory runs out."""
        if room < 1:
            raise ValueError(f"room for {room} pages was asked for; at least one is needed")
        self.shape = shape
        self.room = room
        self.device = torch.device(device)
        size = (shape.layers, 2, shape.kv_heads, room * shape.page, shape.head_dim)
        dtype: torch.dtype = getattr(torch, shape.dtype)
        # One tensor, so that a page goes in or out in a single copy.
        self._all = torch.zeros(size, dtype=dtype, device=self.device)
        # The same as bytes, [layers * 2 * kv_heads, all slots]. Torch parts even the copy of one page among its
        # threads; where a forward pass has those, they wait for each other ten times as long as one alone copies.
        self._bytes: Any = None
        if self.device.type == "cpu":
            self._bytes = self._all.view(torch.uint8).view(shape.layers * 2 * shape.kv_heads, -1).numpy()
        self._staging = Staging(shape, self.device)
        self.k: list[torch.Tensor] = [layer[0] for layer in self._all]
        """Keys, one tensor a layer: [kv_heads, room * page, head_dim]."""
        self.v: list[torch.Tensor] = [layer[1] for layer in self._all]
        """Values, one tensor a layer: [kv_heads, room * page, head_dim]."""

    def __repr__(self) -> str:
        size = self.room * self.shape.bytes_per_page / 2**20
        return f"Pages(room={self.room}, page={self.shape.page}, {size:.1f} MiB of {self.shape.dtype} on {self.device})"

    def copy(self, src: int, dst: int, tokens: int) -> None:
        """Copy the first `tokens` slots of page `src` to page `dst` in all layers; the rest of `dst` stays as it is.

        Raises IndexError for a page that is not here, ValueError for more tokens than a page holds.
        """
        self._check((src, dst))
        if not 0 <= tokens <= self.shape.page:
            raise ValueError(f"{tokens} tokens were to be copied; a page holds {self.shape.page}")
        if src == dst or tokens == 0:
            return
        a, b = src * self.shape.page, dst * self.shape.page
        self._all[..., b : b + tokens, :] = self._all[..., a : a + tokens, :]

    def read(self, page: int, tokens: int) -> memoryview:
        """The bytes of a page's first `tokens` slots: [layers, 2 (keys, values), kv_heads, tokens, head_dim].

        A copy of its own, in the machine's byte order. Raises as `copy` does.
        """
        at = self._place(page, tokens)
        if self._bytes is not None:
            return memoryview(self._bytes[:, self._columns(at)].copy().reshape(-1))
        return self._staging.out(self._all[..., at, :])

    def write(self, page: int, tokens: int, data: Buffer) -> None:
        """Fill a page's first `tokens` slots with what begins `data`, which is bytes of at least as many tokens.

        Raises as `copy` does, and ValueError for bytes of another size than a whole number of tokens.
        """
        given = np.frombuffer(data, dtype=np.uint8)
        held, odd = divmod(given.size, self.shape.bytes_per_token)
        if odd or held < tokens:
            raise ValueError(
                f"{tokens} tokens were to be written; found {given.size} bytes, and a token "
                f"has {self.shape.bytes_per_token}"
            )
        at = self._place(page, tokens)
        if self._bytes is not None:
            columns = self._columns(at)
            self._bytes[:, columns] = given.reshape(len(self._bytes), -1)[:, : columns.stop - columns.start]
            return
        self._staging.fill(self._all[..., at, :], data)

    def slots(self, table: Sequence[int], start: int, stop: int) -> torch.Tensor:
        """Where positions `start..stop-1` of a sequence lie whose i-th page is `table[i]`.

        int64 [stop - start], on the CPU.

        Raises IndexError where the table is too short for `stop`, or names a page that is not here.
        """
        page = self.shape.page
        if not 0 <= start <= stop:
            raise ValueError(f"positions {start} to {stop} are not a stretch of a sequence")
        if stop > len(table) * page:
            raise IndexError(
                f"position {stop - 1} was asked for; {len(table)} pages of {page} end at {len(table) * page}: "
                "take more pages before the step"
            )
        if start == stop:
            return torch.empty(0, dtype=torch.int64)
        first, last = start // page, (stop - 1) // page
        held = tuple(table[first : last + 1])
        self._check(held)
        every = (torch.tensor(held)[:, None] * page + torch.arange(page)).view(-1)
        return every[start - first * page : stop - first * page]

    def _place(self, page: int, tokens: int) -> slice:
        """The first slots of a page."""
        self._check((page,))
        if not 0 < tokens <= self.shape.page:
            raise ValueError(f"{tokens} tokens were asked for; a page holds 1 to {self.shape.page}")
        return slice(page * self.shape.page, page * self.shape.page + tokens)

    def _columns(self, slots: slice) -> slice:
        """Where slots lie in each row of `_bytes`."""
        width = self._bytes.shape[1] // (self.room * self.shape.page)
        return slice(slots.start * width, slots.stop * width)

    def _check(self, pages: Sequence[int]) -> None:
        if min(pages) < 0 or max(pages) >= self.room:
            wrong = next(page for page in pages if not 0 <= page < self.room)
            raise IndexError(f"page {wrong} was named; pages 0 to {self.room - 1} are here")
