"""The attention that the tokens of a context draw: one more pass over keys and values that lie there.

H2O (arXiv 2306.14048) sums it up while it decodes, and so needs it of every step. Most contexts are never thinned, and
kernels of attention do not tell it; so it is computed when it is wanted, from the same keys and values, which are read
and not written: whoever shares them must not notice. It is the mass over all queries of the context, each of which has
seen everything before it, as that of a cache which was never full.
"""

from __future__ import annotations

from typing import Any

import torch

from ....kvstore import Group, Groups
from ....kvstore.pages import Pages
from ....kvstore.sparse import h2o
from .attention import Plan
from .pieces import Piece


class Weighing:
    """A step that attends like any other, writes nothing, and adds up what each token draws.

    Takes room for 128 rows of attention at a time, and time like attention itself.
    """

    def __init__(self, piece: Piece, pages: Pages, mass: torch.Tensor) -> None:
        """`mass` [layers, kv_heads, tokens] is added to."""
        self._plan = Plan((piece,), pages, Groups((Group(tuple(range(pages.shape.layers))),)))
        self._pages = pages
        self._seen = pages.slots(piece.table, 0, piece.stop).to(pages.device)
        self._mass = mass
        self.positions = self._plan.positions

    def attend(
        self, layer: int, heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor], scale: float, given: dict[str, Any]
    ) -> torch.Tensor:
        """As of pages in which the heads' own keys and values lie already."""
        rows = heads[0][:, : len(self.positions)]
        keys = self._pages.k[layer].index_select(1, self._seen)
        self._mass[layer, :, : len(self._seen)] += h2o.mass(rows, keys, scale=scale)
        return self._plan.look(layer, heads[0], scale)
