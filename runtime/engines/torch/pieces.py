"""What a step is made of: pieces of turns, and what a forward pass carries to its attention layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class Piece:
    """`tokens` of one turn in slots `start`...; its page i covers slots i*page..(i+1)*page-1.

    With several groups of layers each has a page for those slots: they stand one after the other.
    """

    table: Sequence[int]
    start: int
    """Keys and values that come before them: all that they see besides each other."""
    tokens: Sequence[int]
    wants: bool
    """The logits of its last token are needed."""
    wants_all: bool = False
    """The logits of all its tokens are needed, as for the log probabilities of a prompt."""
    skip: int = 0
    """How far positions are ahead of slots, because earlier tokens were dropped. Windows count slots: with one, 0."""

    @property
    def stop(self) -> int:
        return self.start + len(self.tokens)

    @property
    def positions(self) -> range:
        """Where its tokens stand in their sequence."""
        return range(self.start + self.skip, self.stop + self.skip)


class Step(Protocol):
    """What a forward pass carries to every attention layer."""

    positions: torch.Tensor
    """The place of each packed token in its own sequence: int64 [tokens]."""

    def attend(
        self, layer: int, heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor], scale: float, given: dict[str, Any]
    ) -> torch.Tensor:
        """Queries, keys and values as [heads, rows, dim]; gives [rows, heads, dim]."""
        ...


def earliest(position: int, window: int | None) -> int:
    """The first position that the one at `position` sees."""
    return 0 if window is None else max(0, position - window + 1)


def padded(positions: int, page: int) -> int:
    """Round up to 1, 2, 3, 4, 6, 8, 12, 16, ... pages: few different lengths, a third wasted at most beyond that."""
    pages = -(-positions // page)
    octave = 1 << (pages - 1).bit_length() if pages > 1 else 1
    return (octave * 3 // 4 if octave >= 4 and pages <= octave * 3 // 4 else octave) * page


def rows_wanted(pieces: Sequence[Piece]) -> list[int]:
    """The rows of a step whose logits are needed."""
    rows: list[int] = []
    row = 0
    for piece in pieces:
        stop = row + len(piece.tokens)
        rows += range(row, stop) if piece.wants_all else [stop - 1] if piece.wants else []
        row = stop
    return rows
