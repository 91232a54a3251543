"""The tensors behind device blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .shape import Shape


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
        size = (shape.kv_heads, room * shape.page, shape.head_dim)
        dtype: torch.dtype = getattr(torch, shape.dtype)
        self.k = [torch.zeros(size, dtype=dtype, device=self.device) for _ in range(shape.layers)]
        """Keys, one tensor a layer: [kv_heads, room * page, head_dim]."""
        self.v = [torch.zeros(size, dtype=dtype, device=self.device) for _ in range(shape.layers)]
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
        for tensor in (*self.k, *self.v):
            tensor[:, b : b + tokens] = tensor[:, a : a + tokens]

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

    def _check(self, pages: Sequence[int]) -> None:
        if min(pages) < 0 or max(pages) >= self.room:
            wrong = next(page for page in pages if not 0 <= page < self.room)
            raise IndexError(f"page {wrong} was named; pages 0 to {self.room - 1} are here")
