"""The blocks of a GGUF file, under the names that transformers gives its weights.

A tensor is taken only if, number for number, it is what the loaded model has: the order of rows in which some
converters store queries and keys is tried too. So blocks are exactly the model's weights, or are not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .lean.blocks import BYTES, SIZE, Blocks, Kind

_PARTS = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OTHERS = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}


def quants(file: Path, weights: Mapping[str, torch.Tensor], head_dim: int) -> dict[str, Blocks]:
    """Of the weights that the file has in four or eight bits, and that are the model's. ValueError for no such file."""
    from gguf import GGUFReader  # two tenths of a second that only who wants blocks should pay

    found: dict[str, Blocks] = {}
    for tensor in GGUFReader(str(file)).tensors:
        name, kind = _name(tensor.name), int(tensor.tensor_type)
        if name in weights and kind in list(Kind):
            blocks = _same(_read(tensor, Kind(kind)), weights[name].detach(), head_dim)
            if blocks is not None:
                found[name] = blocks
    return found


def _name(name: str) -> str:
    if (matched := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)) and matched[2] in _PARTS:
        return f"model.layers.{matched[1]}.{_PARTS[matched[2]]}.weight"
    return _OTHERS.get(name, "")


def _read(tensor: Any, kind: Kind) -> Blocks:
    inputs, outputs = (int(size) for size in tensor.shape)
    data = np.array(tensor.data).reshape(outputs, inputs // SIZE * BYTES[kind])
    return Blocks(kind, torch.from_numpy(data))


def _same(blocks: Blocks, weight: torch.Tensor, head_dim: int) -> Blocks | None:
    """The blocks, or the same with their rows in transformers' order; None where neither is the weight."""
    outputs = len(blocks.data)
    if torch.equal(blocks.dequantised().to(weight.dtype), weight):
        return blocks
    if outputs % head_dim:
        return None
    # llama.cpp keeps the two halves of a head interleaved, transformers one behind the other.
    rows = torch.arange(outputs).view(-1, head_dim // 2, 2).transpose(1, 2).reshape(-1)
    turned = Blocks(blocks.kind, blocks.data[rows].contiguous())
    return turned if torch.equal(turned.dequantised().to(weight.dtype), weight) else None
