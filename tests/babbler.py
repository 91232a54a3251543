"""A tiny model with random weights and the packaged one's tokens: it says nothing sensible, at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sostenuto.runtime.engines.torch.weights import locate

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}


def build(folder: Path, *, terse: bool = False) -> Path:
    """Save it there, as transformers saves. A terse one ends its strings, objects and answers as soon as it may."""
    tokenizer = AutoTokenizer.from_pretrained(locate().path)
    torch.manual_seed(7)
    untyped: Any = AutoModelForCausalLM
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **SIZES)
    network = untyped.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.1 if "norm" in name else 0.5)
        network.lm_head.weight[SIZES["eos_token_id"]] = 0  # so that answers end by their limits
        if terse:
            ends: Any = tokenizer.convert_tokens_to_ids(["}", '"'])
            _prefer(network, [SIZES["eos_token_id"], *ends])
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _prefer(network: Any, tokens: list[int]) -> None:
    """These are the likeliest after whatever was read, the last one most: a constant in every state speaks for them."""
    network.model.embed_tokens.weight[:, 0] = 30
    for layer in network.model.layers:
        layer.self_attn.o_proj.weight[0] = 0
        layer.mlp.down_proj.weight[0] = 0
    network.lm_head.weight[:, 0] = 0
    for place, token in enumerate(tokens):
        network.lm_head.weight[token, 0] = 40 + place
