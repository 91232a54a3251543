"""Which path computes a model, and with what: asked for when it is loaded, and decided there once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as Files
from typing import Any, Literal, Protocol

import torch

from ....kvstore.pages import Pages
from ...errors import ModelUnsupported
from .. import Mode
from . import probe
from .cache import folder
from .general import General
from .lean.blocks import Blocks, Kind
from .lean.forward import Lean, unfit
from .lean.native import Native, NotBuilt, native
from .pieces import Piece, Step
from .quants import quants
from .spread import Sum, summed
from .survey import Findings


@dataclass(frozen=True, slots=True)
class Way:
    """What somebody wants; None: whatever is fastest here."""

    path: Literal["lean", "general"] | None = None
    native: bool | None = None
    """The lean path's operations in C++, or in torch."""
    mode: Mode = "exact"
    file: str | None = None
    """The GGUF file in which its weights lie in blocks of few bits, for `fast`."""


class Path(Protocol):
    """A forward pass over pages."""

    @property
    def name(self) -> str: ...

    @property
    def even(self) -> bool:
        """A row gets the same bits whatever else is in the step."""
        ...

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
    mode: Mode = "exact"
    sum_up: Sum = summed
    """Looks at a row of logits."""


def choose(network: Any, name: str, found: Findings, way: Way) -> Chosen:
    """Decided once. Raises ModelUnsupported for what was asked for by name and does not fit or cannot be built."""
    why = unfit(network) if way.path != "general" else "it was asked for"
    if why is None:
        library, kernels = _library(network.device.type, way)
        blocks = _blocks(network, name, library, way) if way.mode == "fast" else None
        lean = Lean(network, found.groups, library, blocks)
        off = probe.off(lean.forward, network, found)
        if off <= probe.TOLERANCE[found.shape.dtype]:
            lean.adopt()
            return Chosen(lean, "", kernels, way.mode, summed if library is None else library.summed)
        why = f"the lean path gives other logits than the model by itself (off by {off:.2g} of their norm)"
    if way.path == "lean" or way.mode == "fast":
        raise ModelUnsupported(
            f"{name} cannot take the lean path, which was asked for, or which the mode `fast` needs: {why}. Leave the "
            "choice to us"
        )
    return Chosen(General(network, found.groups), why)


def _library(device: str, way: Way) -> tuple[Native | None, str]:
    if way.native is False:
        return None, "torch, as was asked for"
    try:
        if device != "cpu":
            raise NotBuilt(f"those in C++ are for the CPU, and the model is on {device}")
        return native(folder()), "C++"
    except NotBuilt as reason:
        if way.native:
            raise ModelUnsupported(f"there are no operations in C++: {reason}. Leave the choice to us") from reason
        return None, f"torch, because {reason}"


def _blocks(network: Any, name: str, library: Native | None, way: Way) -> Mapping[str, Blocks]:
    if library is None:
        raise ModelUnsupported(f"{name} cannot be computed in the mode `fast` without operations in C++: take `exact`")
    if way.file is None:
        raise ModelUnsupported(f"{name} is no GGUF file: only those hold blocks for the mode `fast`. Take `exact`")
    head_dim = int(network.model.layers[0].self_attn.head_dim)
    weights = dict(network.named_parameters(remove_duplicate=False))
    blocks = quants(Files(way.file), weights, head_dim)
    if not blocks:
        held = ", ".join(kind.name for kind in Kind)
        raise ModelUnsupported(f"{name} has no weight in {held} that is its own, for the mode `fast`: take `exact`")
    return blocks
