"""The general path: a transformers model's own modules, whose attention reads and writes pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ....kvstore import Groups
from ....kvstore.pages import Pages
from . import attention
from .attention import Plan
from .pieces import Piece, Step, rows_wanted


class General:
    """A network, unmodified but for its attention function."""

    name = "general"
    even = False
    """Rows of small steps get the same bits in any company, prompts do not: see `attention`."""

    def __init__(self, network: Any, groups: Groups) -> None:
        attention.register()
        network.set_attn_implementation(attention.NAME)
        self._network, self._groups = network, groups

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece], pages: Pages) -> torch.Tensor:
        """One packed pass: float32 logits [wanted rows, vocab]."""
        tokens = [token for piece in pieces for token in piece.tokens]
        return self._run(tokens, Plan(pieces, pages, self._groups), rows_wanted(pieces))

    @torch.inference_mode()
    def watch(self, tokens: Sequence[int], step: Step) -> None:
        """Let another step see the queries, keys and values of every layer, and attend in our place."""
        self._run(tokens, step, ())

    @torch.no_grad()
    def reweigh(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrite weights, by their names in the network; they fit, and what is not named stays as it is."""
        own = self._network.state_dict()
        for name, tensor in tensors.items():
            own[name].copy_(tensor)

    def _run(self, tokens: Sequence[int], step: Step, wanted: Sequence[int]) -> torch.Tensor:
        """Logits of the wanted rows. Where one row stands alone it is doubled: see the promise in `attention`."""
        device = self._network.device
        ids = torch.tensor([tokens], device=device)
        positions = step.positions[None]
        if len(tokens) == 1:
            ids, positions = ids.expand(-1, 2), positions.expand(-1, 2)
        keep = torch.tensor([*wanted, *wanted] if len(wanted) == 1 else list(wanted), dtype=torch.long, device=device)
        result = self._network(input_ids=ids, position_ids=positions, use_cache=False, logits_to_keep=keep, paged=step)
        logits: torch.Tensor = result.logits[0, : len(wanted)]
        return logits.float()
