"""A transformers model loaded and run over our pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from ....kvstore.pages import Pages
from ...errors import ModelNotFound, ModelUnsupported
from ..ends import ends
from . import probe
from .mass import Weighing
from .pieces import Piece
from .quiet import quiet
from .survey import survey
from .ways import Way, choose
from .weights import Source

__all__ = ["Model", "Piece"]

PAGE = 32
"""Tokens of a page; vLLM's CPU block is as large, so figures compare."""
DTYPES = ("float32", "bfloat16", "float16")


class Model:
    """A causal language model whose keys and values lie in pages that others own.

    Decoders like Llama take the lean path, all others transformers' own modules, whose attention function alone is
    ours. At loading the model is surveyed and tried against its own attention, so a family that we would run wrongly
    is refused, not run.
    """

    def __init__(self, network: Any, tokenizer: Any, name: str, *, page: int = PAGE, way: Way | None = None) -> None:
        """Take over a loaded network. Raises ModelUnsupported for one that cannot run over pages."""
        self._network = network.eval()
        self.tokenizer = tokenizer
        self.name = name
        self.device = str(network.device)
        found = survey(network, name, page)
        self.shape = found.shape
        """Of a page: of the layers of one group."""
        self.groups = found.groups
        self.vocab = found.vocab
        config = network.config.get_text_config()
        self.max_positions = int(getattr(config, "max_position_embeddings", None) or 2**31)
        """The longest context, in tokens."""
        self.eos = ends(tokenizer, (network.generation_config, network.config))
        self.fingerprint = _fingerprint(network)
        self.rope = _digest(getattr(config, "rope_parameters", None), getattr(config, "rope_theta", None))
        """How positions are turned into keys, in one word."""
        self.spelling = _digest(type(tokenizer).__name__, sorted(tokenizer.get_vocab().items(), key=lambda one: one[1]))
        """Which tokens mean what, in one word."""
        self.rows = 0
        """Tokens that have entered the forward pass so far."""
        self._shapes = {name: weight.shape for name, weight in network.state_dict().items()}
        probe.check(network, name, found)
        self.chosen = choose(network, name, found, way or Way())
        if self.chosen.mode != "exact":  # its keys and values are for nobody who wants them exact
            self.fingerprint += f"-{self.chosen.mode}"

    @classmethod
    def load(
        cls,
        source: Source,
        *,
        dtype: str | None = None,
        device: str | None = None,
        page: int = PAGE,
        way: Way | None = None,
    ) -> Model:
        """Load weights and tokenizer; dtype and device are what the hardware does well unless given.

        Raises ModelNotFound where transformers finds nothing, ModelUnsupported for what cannot run over pages.
        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or _good_dtype(device)
        if dtype not in DTYPES:
            raise ValueError(f"dtype: found {dtype!r}; expected one of {', '.join(DTYPES)}")
        local = Path(source.path).is_dir()
        if local and not (Path(source.path) / "config.json").is_file():
            raise ModelNotFound(f"{source.path} holds no config.json. Give an existing model directory or a .gguf file")
        try:
            with quiet():
                config = AutoConfig.from_pretrained(source.path, local_files_only=local)
                _check(config, source.name)
                network: Any = AutoModelForCausalLM.from_pretrained(
                    source.path, dtype=getattr(torch, dtype), local_files_only=local
                )
                tokenizer = AutoTokenizer.from_pretrained(source.path, local_files_only=local)
        except OSError as error:
            raise ModelNotFound(
                f"transformers cannot load {source.path}: {str(error).splitlines()[0]} "
                "Give an existing model directory, a .gguf file, or a hub id that can be reached"
            ) from error
        except ValueError as error:
            raise ModelUnsupported(f"transformers cannot load {source.path}: {str(error).splitlines()[0]}") from error
        way = replace(way or Way(), file=source.file)
        return cls(network.to(device), tokenizer, source.name, page=page, way=way)

    def forward(self, pieces: Sequence[Piece], pages: Pages) -> torch.Tensor:
        """One packed pass: writes the pieces' keys and values, returns float32 logits of the wanted rows.

        [wanted rows, vocab], in the order of the pieces and of the tokens within them. Raises ValueError for pieces
        without tokens or beyond the model's positions and for pages of another shape, IndexError for tables that
        are too short; then nothing was written or counted.
        """
        self._check_pieces(pieces, pages)
        logits = self.chosen.path.forward(pieces, pages)
        self.rows += sum(len(piece.tokens) for piece in pieces)
        return logits

    @property
    def whole(self) -> bool:
        """Whether every layer sees all that comes before."""
        return self.groups.plain

    def weigh(self, piece: Piece, pages: Pages, mass: torch.Tensor) -> None:
        """Add the attention that the tokens of a piece give to all before and to each other.

        `mass` is float32 [layers, kv_heads, tokens]. They must lie in the pages already: nothing is written, and the
        rows are counted, for they are computed once more.
        """
        self._check_pieces((piece,), pages)
        self.rows += len(piece.tokens)
        self.chosen.path.watch(piece.tokens, Weighing(piece, pages, mass))

    def reweigh(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrite weights, by their names in the network's state; what is not named stays as it is.

        Raises ValueError, and changes nothing, for a name or shape that the network does not have.
        """
        own = self._shapes
        unknown = sorted(tensors.keys() - own.keys())
        if unknown:
            raise ValueError(
                f"{self.name} has no weights {', '.join(unknown[:3])}{' ...' if len(unknown) > 3 else ''}: "
                f"give names such as {next(iter(own))}"
            )
        for name, tensor in tensors.items():
            if tensor.shape != own[name]:
                raise ValueError(f"{name}: found shape {tuple(tensor.shape)}, expected {tuple(own[name])}")
            if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
                raise ValueError(f"{name}: found {tensor.dtype} or values that are not finite; expected numbers")
        self.chosen.path.reweigh(tensors)

    def __repr__(self) -> str:
        way = f"{self.chosen.path.name} path, {self.chosen.mode}"
        return f"<Model {self.name} {self.shape.dtype} on {self.device}, {way}>"

    def _check_pieces(self, pieces: Sequence[Piece], pages: Pages) -> None:
        if pages.shape != self.shape:
            raise ValueError(f"pages: found {pages.shape}; expected this model's {self.shape}")
        if not pieces:
            raise ValueError("a step without pieces was to be run: leave it out")
        for piece in pieces:
            if not piece.tokens:
                raise ValueError(f"a piece at position {piece.start} has no tokens: leave it out")
            if piece.positions.stop > self.max_positions:
                at = piece.positions.stop
                raise ValueError(
                    f"a piece ends at position {at}; {self.name} takes {self.max_positions}: end the answer"
                )


def _good_dtype(device: str) -> str:
    """bfloat16 where the hardware multiplies it natively; else float16 on CUDA and float32 elsewhere."""
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"
    flags = Path("/proc/cpuinfo")
    known = flags.read_text() if device == "cpu" and flags.is_file() else ""
    return "bfloat16" if "avx512_bf16" in known or "amx_bf16" in known else "float32"


def _check(config: Any, name: str) -> None:
    """Refuse what can be told from the configuration alone, before gigabytes are read."""
    if getattr(config, "is_encoder_decoder", False):
        raise ModelUnsupported(f"{name} is an encoder-decoder model: give a causal one")
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ())
    odd = kinds - {"full_attention", "sliding_attention"}
    if odd:
        raise ModelUnsupported(f"{name} has layers of kind {', '.join(sorted(odd))}: only attention layers keep pages")
    scalings = getattr(text, "rope_parameters", None) or {}
    each = [scalings, *(one for one in scalings.values() if isinstance(one, dict))]
    moving = {one.get("rope_type") for one in each} & {"dynamic", "longrope"}
    if moving:
        raise ModelUnsupported(
            f"{name} scales its rotary frequencies by {moving.pop()}: they follow the longest turn of a step, so "
            "a turn's keys would depend on its neighbours"
        )


def _digest(*parts: Any) -> str:
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _fingerprint(network: Any) -> str:
    """A hash of the configuration, the dtype and a sample of every weight: other weights, other keys and values."""
    config = network.config.to_dict()
    for unstable in ("_name_or_path", "transformers_version", "_attn_implementation", "dtype"):
        config.pop(unstable, None)
    hasher = hashlib.blake2b(json.dumps(config, sort_keys=True, default=str).encode(), digest_size=12)
    hasher.update(str(network.dtype).encode())
    for name, weight in sorted(network.state_dict().items()):
        flat = weight.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 256)][:256].float().cpu()
        hasher.update(f"{name} {tuple(weight.shape)}".encode())
        hasher.update(sample.numpy().tobytes())
    return hasher.hexdigest()
