"""Which path computes a model, and with what: asked for when it is loaded, and decided there once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from ....kvstore.pages import Pages
from ...errors import ModelUnsupported
from . import probe
from .cache import folder
from .general import General
from .lean.forward import Lean, unfit
from .lean.native import NotBuilt, native
from .lean.operations import Operations, Torch
from .pieces import Piece, Step
from .survey import Findings


@dataclass(frozen=True, slots=True)
class Way:
    """What somebody wants; None: whatever is fastest here."""

    path: Literal["lean", "general"] | None = None
    native: bool | None = None
    """The lean path's operations in C++, or in torch."""


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """What computes a model."""

    path: Path
    why: str = ""
    """Why it is not the lean path."""
    kernels: str = "torch"
    """What its operations are made of: `C++`, or `torch` and perhaps the reason."""


def choose(network: Any, name: str, found: Findings, way: Way) -> Chosen:
    """Decided once. Raises ModelUnsupported for what was asked for by name and does not fit or cannot be built."""
    why = unfit(network) if way.path != "general" else "it was asked for"
    if why is None:
        operations, kernels = _operations(way)
        lean = Lean(network, found.groups, operations)
        off = probe.off(lean.forward, network, found)
        if off <= probe.TOLERANCE[found.shape.dtype]:
            lean.adopt()
            return Chosen(lean, kernels=kernels)
        why = f"the lean path gives other logits than the model by itself (off by {off:.2g} of their norm)"
    if way.path == "lean":
        raise ModelUnsupported(f"{name} cannot take the lean path: {why}. Leave the choice of the path to us")
    return Chosen(General(network, found.groups), why)


def _operations(way: Way) -> tuple[Operations, str]:
    if way.native is False:
        return Torch(), "torch, as was asked for"
    try:
        return native(folder()), "C++"
    except NotBuilt as reason:
        if way.native:
            raise ModelUnsupported(f"there are no operations in C++: {reason}. Leave the choice to us") from reason
        return Torch(), f"torch, because {reason}"
