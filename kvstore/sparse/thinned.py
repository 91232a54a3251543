"""Which tokens of a context were kept, and taking them out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True, eq=False)
class Thinned:
    """A context of `length` tokens of which each head keeps the same number, though not the same ones.

    The same number in every layer and head, for that is what pages hold: slot j of a head is the j-th token that this
    head kept, so the slots of one page may hold different tokens from head to head. Attention does not mind: it takes
    its keys in any order, and each key carries its own position. The positions stay as they were: the next token of
    the context stands at `length`, though `len(self)` slots come before it (see `streaming.rotate` for the other way).
    Layers with a window, whose mask counts slots, cannot be thinned so; nor can a thinned context be rolled back to
    anywhere before its end.
    """

    kept: torch.Tensor
    """int64 [layers, kv_heads, kept]: positions in the context, ascending."""
    length: int
    """Tokens of the context before it was thinned."""
    policy: str
    """Who chose."""

    def __post_init__(self) -> None:
        """Raises ValueError for positions that are not of the context, not ascending, or twice there."""
        if self.kept.dtype != torch.int64 or self.kept.ndim != 3 or self.kept.numel() == 0:
            raise ValueError(
                f"found {self.kept.dtype} {list(self.kept.shape)}; expected int64 [layers, kv_heads, kept], none empty"
            )
        first, last = int(self.kept.min()), int(self.kept.max())
        if first < 0 or last >= self.length:
            raise ValueError(f"positions {first} to {last} are kept of a context of {self.length} tokens")
        if (self.kept.diff() <= 0).any():
            raise ValueError("positions are kept that do not ascend: sort them, and keep none of them twice")

    def __len__(self) -> int:
        """Tokens that each head kept."""
        return self.kept.shape[-1]

    @property
    def exact(self) -> bool:
        """Whether nothing was dropped. If not, all that is computed after it is lossy too, as its names must say."""
        return len(self) == self.length

    def __repr__(self) -> str:
        return f"<Thinned {len(self)}/{self.length} by {self.policy}{'' if self.exact else ', lossy'}>"

    def take(self, block: torch.Tensor) -> torch.Tensor:
        """The kept keys and values: [layers, 2, kv_heads, length, head_dim] to [layers, 2, kv_heads, kept, head_dim].

        Raises ValueError for another context's.
        """
        layers, heads, kept = self.kept.shape
        if block.ndim != 5 or block.shape[:4] != (layers, 2, heads, self.length):
            raise ValueError(
                f"found keys and values {list(block.shape)}; expected [{layers}, 2, {heads}, {self.length}, head_dim]: "
                "give those of the context that was thinned, all of it"
            )
        index = self.kept.to(block.device)[:, None, :, :, None].expand(layers, 2, heads, kept, block.shape[-1])
        return block.gather(3, index)


def everything(sizes: Sequence[int]) -> torch.Tensor:
    """All positions, where there is room for all: int64 [*sizes], the last of them the length."""
    return torch.arange(sizes[-1]).expand(*sizes)


def best(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Where the `count` highest scores of the last dimension are, ascending. Of equal scores the earlier wins."""
    order = scores.argsort(dim=-1, descending=True, stable=True)
    return order[..., :count].sort(dim=-1).values


def checked(budget: int, least: int = 1) -> int:
    """The budget itself. Raises ValueError for one that cannot hold what the policy always keeps."""
    if budget < least:
        raise ValueError(f"a budget of {budget} tokens was given; this policy needs {least}: give more, or keep fewer")
    return budget
