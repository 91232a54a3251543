"""A trial of a model over pages against its own attention, before it is trusted."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from ....kvstore import Shape
from ....kvstore.pages import Pages
from ...errors import ModelUnsupported
from . import attention
from .attention import Piece, Plan
from .survey import Findings

_PAGE = 4
_FIRST, _SECOND = 11, 6
TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-1, "float16": 1e-1}
"""Largest norm of the difference, as a part of the norm of the logits. Rounding is far below it; a layer that sees a
neighbour's tokens, or loses its prefix, is far above."""


def check(network: Any, name: str, found: Findings) -> None:
    """Two short turns in one packed batch, in parts and on scattered pages, must give what each gives alone.

    Raises ModelUnsupported where they do not: state beside the pages, a mask or a bias of its own, positions that
    are not handed through. It costs three passes of a few tokens. What sets in only later, as windows do, is the
    survey's to find.
    """
    if "logits_to_keep" not in inspect.signature(network.forward).parameters:
        raise ModelUnsupported(f"{name} computes logits for every token of a step: its forward has no logits_to_keep")
    shape = Shape(found.shape.layers, found.shape.kv_heads, found.shape.head_dim, found.shape.dtype, _PAGE)
    count = len(found.groups)
    pages = Pages(shape, 6 * count, str(network.device))
    first, second = ([(seed + 7919 * at) % found.vocab for at in range(size)] for seed, size in ((1, 11), (5, 6)))
    upper, lower = ([block * count + group for block in each for group in range(count)] for each in ((4, 0, 2), (3, 1)))
    with torch.inference_mode():
        network.set_attn_implementation(attention.NAME)
        _step(network, found, pages, [Piece(upper, 0, first[:7], False)])
        mixed = [Piece(upper, 7, first[7:10], False), Piece(lower, 0, second[:5], False)]
        _step(network, found, pages, mixed)
        ends = [Piece(lower, 5, second[5:], True), Piece(upper, 10, first[10:], True)]
        ours = _step(network, found, pages, ends)
        network.set_attn_implementation("eager")
        theirs = torch.stack([_alone(network, turn) for turn in (second, first)])
    off = float((ours - theirs).norm() / theirs.norm())
    if not off <= TOLERANCE[shape.dtype]:  # NaN is refused too
        raise ModelUnsupported(
            f"{name} gives other logits over pages than by itself (off by {off:.2g} of their norm): it keeps state or "
            "masks beside its attention layers. Give a model of plain attention layers"
        )


def _step(network: Any, found: Findings, pages: Pages, pieces: Sequence[Piece]) -> torch.Tensor:
    plan = Plan(pieces, pages, found.groups)
    ids = torch.tensor([[token for piece in pieces for token in piece.tokens]], device=network.device)
    logits: torch.Tensor = network(
        input_ids=ids, position_ids=plan.positions[None], use_cache=False, paged=plan
    ).logits[0]
    return logits.float()


def _alone(network: Any, tokens: Sequence[int]) -> torch.Tensor:
    logits: torch.Tensor = network(input_ids=torch.tensor([tokens], device=network.device), use_cache=False).logits
    return logits[0, -1].float()
