"""Whole steps in C++: built once with the compiler that is at hand, and called over pointers.

The library is one file without anybody's headers, so no build system is needed and it fits any torch. Its threads are
torch's own: it is linked to no OpenMP, and finds the one that torch has loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import torch

from ..spread import PART, Row, Summed
from .panels import TILE, Panels, Told

SOURCE = Path(__file__).parent / "kernels" / "step.cpp"
"""It includes what else is in its folder."""
_FLAGS = ("-O3", "-march=native", "-std=c++20", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
_NAMES = {torch.float32: "float", torch.bfloat16: "half"}
_SECONDS = 300


class NotBuilt(Exception):
    """Why there is no library; torch serves."""


class Native:
    """Steps and products on the CPU, in float32 or bfloat16."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def multiply(self, rows: torch.Tensor, count: int, told: Told, few: int) -> torch.Tensor:
        """[rows, outputs filled up], of rows [a multiple of 32, inputs filled up]; up to `few` of them by blocks.

        The first `count` are computed.
        """
        out = rows.new_empty(len(rows), -(-told.outputs // TILE) * TILE)
        function = getattr(self._library, f"multiply_{_NAMES[rows.dtype]}")
        pointers = ctypes.c_void_p(rows.data_ptr()), ctypes.c_void_p(out.data_ptr())
        function(pointers[0], count, ctypes.byref(told), few, pointers[1], torch.get_num_threads())
        return out

    def step(self, model: ctypes.Structure, step: ctypes.Structure, dtype: torch.dtype) -> bool:
        """Run a step as `steps.py` describes it; False, and nothing is done, where its pages are not all there."""
        function = getattr(self._library, f"step_{_NAMES[dtype]}")
        return bool(function(ctypes.byref(model), ctypes.byref(step)))

    def summed(self, row: Row, warm: float, mask: bytes | None) -> Summed:
        """What `spread.summed` says of a row of logits [vocab]."""
        told, parts = _Spread(), row.size // PART + 1
        sums, tops = np.empty(parts, dtype=np.float32), np.empty(parts, dtype=np.float32)
        places = [ctypes.c_void_p(each.ctypes.data) for each in (row, sums, tops)]
        allowed = (mask, 0 if mask is None else 8 * len(mask))
        self._library.spread_float(
            places[0], row.size, ctypes.c_float(warm), *allowed, places[1], places[2], ctypes.byref(told)
        )
        return Summed(told.highest, told.best, told.allowed, sums, tops)


class _Spread(ctypes.Structure):
    """`Spread` in kernels/spread.h."""

    _fields_ = (("highest", ctypes.c_float), ("best", ctypes.c_int32), ("allowed", ctypes.c_int32))


@cache
def native(folder: Path) -> Native:
    """Steps in C++, built in this folder if they are not there. Raises NotBuilt with the reason."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NotBuilt("there is no C++ compiler (c++, g++ or clang++)")
    target = folder / f"kernels-{_digest(compiler)}.so"
    if not target.is_file():
        _build(compiler, target)
    try:
        made = Native(ctypes.CDLL(str(target)))
    except OSError as error:
        raise NotBuilt(f"{target} cannot be loaded: {error}") from error
    _try(made)
    return made


def _build(compiler: str, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Built beside its place and moved there whole: who builds at the same time, or dies, leaves no half library.
        with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            parts = Path(scratch, "kernels.o"), Path(scratch, "kernels.so")
            _run([compiler, *_FLAGS, "-c", str(SOURCE), "-o", str(parts[0])])
            _run([compiler, "-shared", str(parts[0]), "-o", str(parts[1])])
            parts[1].replace(target)
    except OSError as error:
        raise NotBuilt(f"it cannot be built in {target.parent}: {error}") from error


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise NotBuilt(f"{command[0]} took more than {_SECONDS} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise NotBuilt(f"{command[0]} failed: {next((line for line in lines if 'error' in line), lines[-1])}")


def _digest(compiler: str) -> str:
    """Of all that makes a library differ: its source, its flags, the compiler and the processor it was built for."""
    flags = Path("/proc/cpuinfo")
    lines = flags.read_text().splitlines() if flags.is_file() else []
    processor = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    sources = [path.read_text() for path in sorted(SOURCE.parent.iterdir())]
    parts = *sources, *_FLAGS, compiler, version, platform.machine(), processor
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _try(made: Native) -> None:
    """One small product: a library that computes something else is none."""
    draw = torch.Generator().manual_seed(1)
    weight, rows = torch.randn(40, 48, generator=draw), torch.randn(3, 48, generator=draw)
    for dtype in _NAMES:
        given, by = rows.to(dtype), weight.to(dtype)
        found, expected = Panels(by, None, made)(given).float(), given.float() @ by.float().T
        if not torch.allclose(found, expected, atol=0.1, rtol=0.02):
            raise NotBuilt("what was built computes something else")
