"""Which path computes a model, and with what: asked for when it is loaded, and decided there once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from ....kvstore.pages import Pages
from ...errors import ModelUnsupported
from . import probe
from .general import General
from .lean.forward import Lean, unfit
from .lean.operations import Torch
from .pieces import Piece, Step
from .survey import Findings


@dataclass(frozen=True, slots=True)
class Way:
    """What somebody wants; None: whatever is fastest here."""

    path: Literal["lean", "general"] | None = None


class Path(Protocol):
    """A forward pass over pages."""

    @property
    def name(self) -> str: ...

    def forward(self, pieces: Sequence[Piece], pages: Pages) -> torch.Tensor:
        """One packed pass: float32 logits [wanted rows, vocab]. Raises before anything is written."""
        ...

    def watch(self, tokens: Sequence[int], step: Step) -> None:
        """Let another step see the queries, keys and values of every layer, and attend in our place."""
        ...

    def reweigh(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrite weights, by their names in the network; they fit, and what is not named stays as it is."""
        ...


def choose(network: Any, name: str, found: Findings, way: Way) -> tuple[Path, str]:
    """The path, and in a sentence why it is not the lean one, or nothing.

    Raises ModelUnsupported for the lean path where a model does not fit it and it was asked for by name.
    """
    why = unfit(network) if way.path != "general" else "it was asked for"
    if why is None:
        lean = Lean(network, found.groups, Torch())
        off = probe.off(lean.forward, network, found)
        if off <= probe.TOLERANCE[found.shape.dtype]:
            lean.adopt()
            return lean, ""
        why = f"the lean path gives other logits than the model by itself (off by {off:.2g} of their norm)"
    if way.path == "lean":
        raise ModelUnsupported(f"{name} cannot take the lean path: {why}. Leave the choice of the path to us")
    return General(network, found.groups), why
