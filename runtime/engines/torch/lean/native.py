"""The operations of `operations.py` in C++: built once with the compiler that is at hand, and called over pointers.

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
from typing import Any

import torch

from .blocks import Blocks
from .operations import Angles, Decode, Store, Torch

SOURCE = Path(__file__).with_name("kernels.cpp")
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-fno-math-errno", "-fno-trapping-math")
_SUMS = ("-fno-signed-zeros", "-fassociative-math")
"""Sums may be made in vectors, in an order that is fixed when it is built. -ffast-math would change the process."""
_NAMES = {torch.float32: "float", torch.bfloat16: "half"}
_SECONDS = 300


class NotBuilt(Exception):
    """Why there is no library; the operations in torch serve."""


class Native(Torch):
    """Rows on the CPU, in float32 or bfloat16; anything else is torch's."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def norm(self, rows: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        out = torch.empty_like(rows)
        self._call("add_norm", rows, rows, None, weight, out, *rows.shape, ctypes.c_float(eps))
        return out

    def add_norm(self, state: torch.Tensor, more: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        out = torch.empty_like(state)
        self._call("add_norm", state, state, more, weight, out, *state.shape, ctypes.c_float(eps))
        return out

    def gated(self, gate_up: torch.Tensor) -> torch.Tensor:
        rows, both = gate_up.shape
        out = gate_up.new_empty(rows, both // 2)
        self._call("gated", out, gate_up, out, rows, both // 2)
        return out

    def turn_and_write(
        self,
        heads: torch.Tensor,
        angles: Angles,
        norms: tuple[torch.Tensor, torch.Tensor, float] | None,
        slots: torch.Tensor,
        store: Store,
    ) -> torch.Tensor:
        rows, all_heads, dim = heads.shape
        kv_heads = len(store.k)
        query = heads.new_empty(rows, all_heads - 2 * kv_heads, dim)
        first, second, eps = norms or (None, None, 0.0)
        weights = first, second, ctypes.c_float(eps)
        sizes = rows, len(slots), query.shape[1], kv_heads, dim, ctypes.c_int64(store.k.shape[1])
        self._call("turn", heads, heads, *angles, *weights, slots, query, store.k, store.v, *sizes)
        return query

    def decode(self, query: torch.Tensor, store: Store, where: Decode, scale: float) -> torch.Tensor:
        rows, heads, dim = query.shape
        out = torch.empty_like(query)
        sizes = rows, heads, len(store.k), dim, ctypes.c_int64(store.k.shape[1]), store.page, where.tables.shape[1]
        looks = where.tables, where.firsts, where.stops
        self._call("decode", query, query, store.k, store.v, *looks, out, *sizes, ctypes.c_float(scale))
        return out

    def blocks(self, rows: torch.Tensor, blocks: Blocks) -> torch.Tensor:
        """The product of rows with blocks of four or eight bits, summed in float32."""
        out = rows.new_empty(len(rows), len(blocks.data))
        self._call("blocks", rows, blocks.data, rows, out, int(blocks.kind), *rows.shape, len(blocks.data))
        return out

    def _call(self, name: str, like: torch.Tensor, *given: Any) -> None:
        function = getattr(self._library, f"{name}_{_NAMES[like.dtype]}")
        function(*map(_plain, given), torch.get_num_threads())


def _plain(given: Any) -> Any:
    if isinstance(given, torch.Tensor):
        assert given.is_contiguous(), "the library reads rows as they lie"
        return ctypes.c_void_p(given.data_ptr())
    return given


@cache
def native(folder: Path) -> Native:
    """The operations in C++, built in this folder if they are not there. Raises NotBuilt with the reason."""
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
            _run([compiler, *_FLAGS, *_SUMS, "-c", str(SOURCE), "-o", str(parts[0])])
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
    parts = SOURCE.read_text(), *_FLAGS, *_SUMS, compiler, version, platform.machine(), processor
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _try(made: Native) -> None:
    """One small norm: a library that computes something else is none."""
    rows, weight = torch.arange(1.0, 65.0).view(2, 32), torch.ones(32)
    if not torch.allclose(made.norm(rows, weight, 1e-5), Torch().norm(rows, weight, 1e-5)):
        raise NotBuilt("what was built computes something else")
