"""What a model really does with attention: asked of the model itself, before it is trusted with pages.

Configurations name windows, heads and caps in many ways. So the model is run once with an attention function that
only takes notes, and once more over pages against its own attention; what does not fit is refused, with the reason.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from ....kvstore import Group, Groups, Shape
from ...errors import ModelUnsupported
from . import attention

NAME = "sostenuto_survey"
_ROWS = 7
_EXTRAS = ("softcap", "s_aux", "position_bias")
"""Arguments that change what attention computes, and that ours does not know."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What the survey found."""

    shape: Shape
    """Of a page, which holds the layers of one group."""
    groups: Groups
    vocab: int
    """Logits in a row; may be more than the tokenizer has tokens."""


@dataclass(frozen=True, slots=True)
class _Layer:
    kv_heads: int
    head_dim: int
    window: int | None


def survey(network: Any, name: str, page: int) -> Findings:
    """Run the model once on a few tokens and note what its layers ask for. Raises ModelUnsupported."""
    register()
    notes = _Notes(name)
    network.set_attn_implementation(NAME)
    with torch.inference_mode():
        logits = network(
            input_ids=torch.arange(_ROWS, device=network.device)[None],
            position_ids=torch.arange(_ROWS, device=network.device)[None],
            use_cache=False,
            paged=notes,
        ).logits
    config = network.config.get_text_config()
    expected = int(config.num_hidden_layers)
    if sorted(notes.layers) != list(range(expected)):
        raise ModelUnsupported(
            f"{name} has {expected} layers, and {len(notes.layers)} of them attend through transformers' attention "
            "interface: the others keep state that pages do not hold. Give a model of plain attention layers"
        )
    kinds = {(layer.kv_heads, layer.head_dim) for layer in notes.layers.values()}
    if len(kinds) > 1:
        found = ", ".join(f"{heads} x {dim}" for heads, dim in sorted(kinds))
        raise ModelUnsupported(f"{name} has layers of different key sizes ({found}): pages need them to be alike")
    kv_heads, head_dim = kinds.pop()
    dtype = str(network.dtype).removeprefix("torch.")
    windows = [notes.layers[index].window for index in range(expected)]
    if 1 in windows:
        raise ModelUnsupported(f"{name} has layers that see their own position alone: they need no pages")
    # A window that no context is longer than is none.
    longest = int(getattr(config, "max_position_embeddings", None) or 2**31)
    groups = divide([window if window is not None and window < longest else None for window in windows])
    shape = Shape(len(groups.each[0].layers), kv_heads, head_dim, dtype, page)
    return Findings(shape, groups, int(logits.shape[-1]))


def divide(windows: Sequence[int | None]) -> Groups:
    """Layers in groups of one size, those that see all first. The last group of a window may have fewer.

    The size is the number of layers of the rarest kind, so that no page is larger than what any kind needs.
    """
    kinds: dict[int | None, list[int]] = {}
    for layer, window in enumerate(windows):
        kinds.setdefault(window, []).append(layer)
    size = min(map(len, kinds.values()))
    order = sorted(kinds, key=lambda window: -math.inf if window is None else -window)
    return Groups(
        tuple(
            Group(tuple(kinds[window][at : at + size]), window)
            for window in order
            for at in range(0, len(kinds[window]), size)
        )
    )


def register() -> None:
    """Make the survey's functions known to transformers."""
    AttentionInterface.register(NAME, attention.attend)
    AttentionMaskInterface.register(NAME, _mask)


class _Notes:
    """A step that takes notes instead of attending."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.layers: dict[int, _Layer] = {}

    def attend(
        self, layer: int, heads: tuple[torch.Tensor, torch.Tensor, torch.Tensor], scale: float, given: dict[str, Any]
    ) -> torch.Tensor:
        query, key, value = heads
        if layer in self.layers:
            raise ModelUnsupported(f"{self.name} attends twice in layer {layer}: pages hold one set of keys a layer")
        if key.shape != value.shape or query.shape[-1] != key.shape[-1]:
            raise ModelUnsupported(
                f"{self.name} has keys of {key.shape[-1]} and values of {value.shape[-1]} numbers in layer {layer}: "
                "pages need them to be alike"
            )
        for extra in _EXTRAS:
            if given.get(extra) is not None:
                raise ModelUnsupported(f"{self.name} passes {extra} to its attention, which ours does not know")
        mask = given["mask"]
        window = int(mask.reshape(-1)[0]) or None if mask is not None else None
        told = given.get("sliding_window")
        if told is not None and window is not None and told != window:
            raise ModelUnsupported(f"{self.name} says {told} and masks {window} positions in layer {layer}")
        self.layers[layer] = _Layer(key.shape[0], key.shape[-1], window)
        return query.transpose(0, 1)


def _mask(*args: Any, mask_function: Callable[..., Any], local_size: int | None = None, **rest: Any) -> torch.Tensor:
    """Instead of a mask, the window that the mask would have: [1, 1, 1, 1], 0 for none.

    The window is what the model's own mask function does at a few distances, not what its configuration says.
    """

    def sees(query: int, key: int) -> bool:
        zero = torch.tensor(0)
        return bool(mask_function(zero, zero, torch.tensor(query), torch.tensor(key)))

    size = local_size or 1 << 20
    far = [3 * size + 1, 5 * size + 2]  # at different places of a chunk, should there be chunks
    inside = all(sees(at, at) and sees(at, at - size + 1) and not sees(at, at + 1) for at in far)
    ends = all(not sees(at, at - size) for at in far)
    if not inside or (local_size is not None and not ends):
        raise ModelUnsupported(
            f"the model's mask is neither causal nor a sliding window (its size is given as {local_size}): "
            "chunked, bidirectional and prefix masks cannot run over pages"
        )
    return torch.full((1, 1, 1, 1), local_size or 0)
