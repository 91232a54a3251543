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


def build(folder: Path) -> Path:
    """Save it there, as transformers saves."""
    tokenizer = AutoTokenizer.from_pretrained(locate().path)
    torch.manual_seed(7)
    untyped: Any = AutoModelForCausalLM
    config = AutoConfig.for_model("llama", vocab_size=len(tokenizer), **SIZES)
    network = untyped.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.1 if "norm" in name else 0.5)
        network.lm_head.weight[SIZES["eos_token_id"]] = 0  # so that answers end by their limits
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
