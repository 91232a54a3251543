"""Cuts a context in its pages to a budget of tokens, layer by layer, so that other turns step in between."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import torch

from ....kvstore.pages import Pages
from ....kvstore.sparse import check, thin
from .model import Model
from .pieces import Piece

_WEIGHS = "h2o"
"""The policy that looks at attention."""


class Cut:
    """One context on its way to its budget: `read`, `step` until that says True, then `write`.

    Never holds more than what stays of the context and one layer of what it was. Reads what lies in the pages and
    changes nothing there.
    """

    def __init__(self, model: Model, pages: Pages, policy: str, budget: int, *, made: list[int], chunk: int) -> None:
        """`made` has the version of the weights that wrote each page. ValueError for what the policy cannot do."""
        check(policy, budget)
        self._model, self._pages, self._made = model, pages, made
        self._policy, self._budget, self._chunk = policy, budget, chunk
        self.kept: tuple[int, ...] = ()
        """Of which positions the slots of the first head are; known after the last step."""
        self.digest = b""
        """Of the positions that all heads keep; known after the last step."""
        self._weighed = 0
        self._positions: list[torch.Tensor] = []
        self._layers: list[torch.Tensor] = []

    def read(self, pages: Sequence[int], tokens: Sequence[int]) -> None:
        """What is to be thinned."""
        shape = self._pages.shape
        self._table, self._tokens = tuple(pages), tuple(tokens)
        self._oldest = min(self._made[page] for page in pages)
        size = (shape.layers, shape.kv_heads, len(tokens)) if self._policy == _WEIGHS else (0,)
        self._mass = torch.zeros(size, device=self._pages.device)

    @torch.inference_mode()
    def step(self) -> bool:
        """A chunk of tokens is weighed, where the policy wants that, or a layer thinned; True after the last one."""
        if self._policy == _WEIGHS and self._weighed < len(self._tokens):
            self._weigh()
            return False
        self._thin(len(self._layers))
        if len(self._layers) < self._pages.shape.layers:
            return False
        every = torch.stack(self._positions).cpu()
        self.kept = tuple(every[0, 0].tolist())
        self.digest = blake2b(every.numpy().tobytes(), digest_size=16).digest()
        return True

    @torch.inference_mode()
    def write(self, pages: Sequence[int]) -> None:
        """Fill pages that nobody uses yet. They are as old as what was read."""
        slots = self._pages.slots(pages, 0, len(self.kept)).to(self._pages.device)
        for layer, (keys, values) in enumerate(self._layers):
            self._pages.k[layer].index_copy_(1, slots, keys)
            self._pages.v[layer].index_copy_(1, slots, values)
        for page in pages:
            self._made[page] = self._oldest

    def _weigh(self) -> None:
        stop = min(self._weighed + self._chunk, len(self._tokens))
        piece = Piece(self._table, self._weighed, self._tokens[self._weighed : stop], wants=False)
        self._model.weigh(piece, self._pages, self._mass)
        self._weighed = stop

    def _thin(self, layer: int) -> None:
        slots = self._pages.slots(self._table, 0, len(self._tokens)).to(self._pages.device)
        both = (side[layer].index_select(1, slots) for side in (self._pages.k, self._pages.v))
        block = torch.stack(tuple(both))[None]
        mass = self._mass[layer : layer + 1] if self._policy == _WEIGHS else None
        thinned = thin(self._policy, block[:, 0], self._budget, mass=mass)
        self._layers.append(thinned.take(block)[0])
        self._positions.append(thinned.kept[0])
