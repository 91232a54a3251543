"""A transformers model loaded and run over our pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ....kvstore import Shape
from ....kvstore.pages import Pages
from ...errors import ModelNotFound, ModelUnsupported
from . import attention
from .attention import Piece
from .weights import Source, quiet

__all__ = ["Model", "Piece"]

PAGE = 32
"""Tokens of a page; vLLM's CPU block is as large, so figures compare."""


class Model:
    """A causal language model whose keys and values lie in pages that others own.

    The modules are transformers' own, unmodified: only their attention function is ours.
    """

    def __init__(self, network: Any, tokenizer: Any, name: str, *, page: int = PAGE) -> None:
        attention.register()
        if not network.is_backend_compatible():
            raise ModelUnsupported(f"{name} computes attention itself: only models that let others do it keep pages")
        network.set_attn_implementation(attention.NAME)
        self._network = network.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.device = str(network.device)
        self.shape = _shape(network, page)
        config = network.config.get_text_config()
        self.vocab = int(config.vocab_size)
        self.max_positions = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        self.eos = _eos(network, tokenizer)
        self.fingerprint = _fingerprint(network)
        self.rows = 0
        """Tokens that have entered the forward pass so far."""
        self._try()

    @classmethod
    def load(
        cls, source: Source, *, dtype: str | None = None, device: str | None = None, page: int = PAGE
    ) -> Model:
        """Load weights and tokenizer; dtype and device are what the hardware does well unless given.

        Raises ModelNotFound where transformers finds nothing, ModelUnsupported for what cannot run over pages.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        chosen: torch.dtype = getattr(torch, dtype or _good_dtype(device))
        local = Path(source.path).is_dir()
        try:
            config = AutoConfig.from_pretrained(source.path, local_files_only=local)
            _check(config, source.name)
            with quiet():
                network: Any = AutoModelForCausalLM.from_pretrained(
                    source.path, dtype=chosen, local_files_only=local
                )
                tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=local)
        except OSError as error:
            raise ModelNotFound(
                f"transformers cannot load {source.path}: {str(error).splitlines()[0]} "
                "Give an existing model directory, a .gguf file, or a hub id that can be reached"
            ) from error
        return cls(network.to(device), tokenizer, source.name, page=page)

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece], pages: Pages) -> torch.Tensor:
        """One packed pass: writes the pieces' keys and values, returns float32 logits of the wanted rows.

        [number of pieces that want them, vocab], in the order of the pieces.
        """
        tokens = [token for piece in pieces for token in piece.tokens]
        self.rows += len(tokens)
        wanted, row = [], 0
        for piece in pieces:
            row += len(piece.tokens)
            if piece.wants:
                wanted.append(row - 1)
        plan = attention.plan(pieces, pages, torch.device(self.device))
        keep = torch.tensor(wanted, dtype=torch.long, device=self.device)
        result = self._network(
            input_ids=torch.tensor([tokens], device=self.device),
            position_ids=plan.positions[None],
            use_cache=False,
            logits_to_keep=keep,
            paged=plan,
        )
        logits: torch.Tensor = result.logits[0]
        return logits.float()

    def _try(self) -> None:
        """A few tokens through all layers: what asks for more than our attention, or passes it by, shows here."""
        pages = Pages(self.shape, 1, device=self.device)
        try:
            # Tokens from all over the vocabulary: single ones, such as padding, may well be zero.
            some = tuple(range(0, self.vocab, -(-self.vocab // self.shape.page)))
            self.forward([Piece((0,), 0, some, wants=True)], pages)
        except ModelUnsupported as error:
            raise ModelUnsupported(f"{self.name} {error}") from error
        self.rows = 0
        if not all(keys.any() for keys in pages.k):
            raise ModelUnsupported(f"{self.name} has layers that keep no keys of their own: we cannot run those")

    def __repr__(self) -> str:
        return f"<Model {self.name} {self.shape.dtype} on {self.device}>"


def _good_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it natively, else float32."""
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    flags = Path("/proc/cpuinfo")
    known = flags.read_text() if flags.is_file() else ""
    return "bfloat16" if "avx512_bf16" in known or "amx_bf16" in known else "float32"


def _check(config: Any, name: str) -> None:
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    odd = kinds - {"full_attention", "sliding_attention"}
    if odd:
        raise ModelUnsupported(f"{name} has layers of kind {', '.join(sorted(odd))}: only attention layers keep pages")
    if getattr(text, "attn_logit_softcapping", None):
        raise ModelUnsupported(f"{name} caps its attention logits, which our attention does not")
    if getattr(config, "is_encoder_decoder", False):
        raise ModelUnsupported(f"{name} is an encoder-decoder model: give a causal one")
    # Those compute other frequencies as soon as the longest turn of a step passes a bound, for all turns of the step.
    if moving := _rope_types(getattr(text, "rope_parameters", None) or {}) & {"dynamic", "longrope"}:
        raise ModelUnsupported(f"{name} has {', '.join(sorted(moving))} rope: keys would depend on the other turns")


def _rope_types(parameters: Mapping[str, Any]) -> set[str]:
    """Of the whole model, or of each kind of layer."""
    nested = [each for each in parameters.values() if isinstance(each, Mapping)]
    return {str(each.get("rope_type")) for each in (parameters, *nested)}


def _shape(network: Any, page: int) -> Shape:
    config = network.config.get_text_config()
    heads = int(config.num_attention_heads)
    dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    kv_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    dtype = str(network.dtype).removeprefix("torch.")
    return Shape(int(config.num_hidden_layers), kv_heads, dim, dtype, page)


def _eos(network: Any, tokenizer: Any) -> tuple[int, ...]:
    found: set[int] = set()
    for value in (network.generation_config.eos_token_id, network.config.eos_token_id, tokenizer.eos_token_id):
        found.update(value if isinstance(value, list) else [value] if value is not None else [])
    return tuple(sorted(found))


def _fingerprint(network: Any) -> str:
    """A hash of the configuration, the dtype and a sample of every weight: other weights, other keys and values."""
    config = network.config.to_dict()
    for unstable in ("_name_or_path", "transformers_version", "_attn_implementation"):
        config.pop(unstable, None)
    hasher = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=12)
    hasher.update(str(network.dtype).encode())
    for name, weight in sorted(network.state_dict().items()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 64)][:64].float().cpu()
        hasher.update(name.encode())
        hasher.update(sample.numpy().tobytes())
    return hasher.hexdigest()
