"""A trial of a model over pages against its own attention, before it is trusted."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch

from ....kvstore import Shape
from ....kvstore.pages import Pages
from ...errors import ModelUnsupported
from .general import General
from .pieces import Piece
from .survey import Findings

_PAGE = 4
TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-1, "float16": 1e-1}
"""Largest norm of the difference, as a part of the norm of the logits. Rounding is far below it; a layer that sees a
neighbour's tokens, or loses its prefix, is far above."""
Forward = Callable[[Sequence[Piece], Pages], torch.Tensor]


def check(network: Any, name: str, found: Findings) -> None:
    """Run over pages it must give what it gives alone.

    Raises ModelUnsupported where it does not: state beside the pages, a mask or a bias of its own, positions that
    are not handed through. It costs three passes of a few tokens. What sets in only later, as windows do, is the
    survey's to find.
    """
    if "logits_to_keep" not in inspect.signature(network.forward).parameters:
        raise ModelUnsupported(f"{name} computes logits for every token of a step: its forward has no logits_to_keep")
    measured = off(General(network, found.groups).forward, network, found)
    if not measured <= TOLERANCE[found.shape.dtype]:  # NaN is refused too
        raise ModelUnsupported(
            f"{name} gives other logits over pages than by itself (off by {measured:.2g} of their norm): it keeps "
            "state or masks beside its attention layers. Give a model of plain attention layers"
        )


def off(forward: Forward, network: Any, found: Findings) -> float:
    """How far a forward pass over pages is from the network by itself: a part of the norm of the logits.

    Two short turns in one packed batch, in parts and on scattered pages, against each alone.
    """
    shape = Shape(found.shape.layers, found.shape.kv_heads, found.shape.head_dim, found.shape.dtype, _PAGE)
    count = len(found.groups)
    pages = Pages(shape, 6 * count, str(network.device))
    first, second = ([(seed + 7919 * at) % found.vocab for at in range(size)] for seed, size in ((1, 11), (5, 6)))
    upper, lower = ([block * count + group for block in each for group in range(count)] for each in ((4, 0, 2), (3, 1)))
    forward([Piece(upper, 0, first[:7], False)], pages)
    forward([Piece(upper, 7, first[7:10], False), Piece(lower, 0, second[:5], False)], pages)
    ours = forward([Piece(lower, 5, second[5:], True), Piece(upper, 10, first[10:], True)], pages)
    with torch.inference_mode():
        before = network.config._attn_implementation
        network.set_attn_implementation("eager")
        theirs = torch.stack([_alone(network, turn) for turn in (second, first)])
        network.set_attn_implementation(before)
    return float((ours - theirs).norm() / theirs.norm())


def _alone(network: Any, tokens: Sequence[int]) -> torch.Tensor:
    logits: torch.Tensor = network(input_ids=torch.tensor([tokens], device=network.device), use_cache=False).logits
    return logits[0, -1].float()
