"""What there is to compute with, and what would compute a model: machine, torch, operations, path."""

from __future__ import annotations

import platform
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from ...errors import SostenutoError
from .. import Mode
from .cache import folder
from .lean.linear import packs
from .lean.native import NotBuilt, native
from .model import Model
from .ways import Way
from .weights import locate

_EXTENSIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def examine(model: str | None = None, mode: Mode = "exact") -> Iterator[tuple[str, str]]:
    """What is found, as headings and sentences, as soon as it is. Loads the model (None: the packaged one)."""
    yield "machine", _machine()
    yield "torch", f"{torch.__version__}, {torch.get_num_threads()} threads, {_accelerator()}"
    yield "products", "packed for the processor" if packs() else "torch's own: this one has no packed bfloat16 products"
    yield "operations", _operations()
    yield "cache", str(folder())
    try:
        found = Model.load(locate(model), way=Way(mode=mode))
    except SostenutoError as error:
        yield "model", f"none: {error}"
        return
    dtype, chosen = found.shape.dtype, found.chosen
    yield "model", f"{found.name}, {dtype}, contexts of up to {found.max_positions} tokens"
    yield "path", chosen.path.name + (f", because {chosen.why}" if chosen.why else f", operations in {chosen.kernels}")
    yield "mode", chosen.mode
    yield "bits", _bits(chosen.path.even)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    yield "memory", f"{most:.0f} MiB at most so far, loading the model included; a host adds its pool"


def _machine() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = known.get("model name", platform.processor() or platform.machine())
    has = [each for each in _EXTENSIONS if each in known.get("flags", "").split()]
    memory = psutil.virtual_memory().total / 2**30
    return f"{name}, {psutil.cpu_count()} processors, {memory:.0f} GiB, {' '.join(has) or 'no extensions that we use'}"


def _accelerator() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"


def _operations() -> str:
    try:
        native(folder())
    except NotBuilt as reason:
        return f"in torch, because {reason}"
    return "in C++"


def _bits(even: bool) -> str:
    if even:
        return "a row is the same whatever else is in the step"
    return "a row may depend, within rounding, on what else is in the step"
