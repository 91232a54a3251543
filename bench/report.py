"""How a figure is printed."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from time import perf_counter


def machine(seed: int, threads: int, *, packages: Sequence[str] = ("torch", "transformers", "sostenuto")) -> str:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    chip = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    python = platform.python_version()
    return f"{chip}, {os.cpu_count()} cores, {threads} threads | Python {python}, {versions} | seed {seed}"


def alternate(runs: int, *calls: Callable[[], object]) -> list[list[float]]:
    """Milliseconds of each call, taken in turns so that whatever else the machine does hits all alike."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()  # warm
    for _ in range(runs):
        for call, taken in zip(calls, times, strict=True):
            start = perf_counter()
            call()
            taken.append((perf_counter() - start) * 1000)
    return times


def row(name: str, times: Sequence[float], peer: Sequence[float] | None = None) -> str:
    """min, p50 and p99 in milliseconds; with a peer, how many times as long it takes at the median."""
    ordered = sorted(times)
    p50, p99 = ordered[len(ordered) // 2], ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    ratio = "" if peer is None else f"{sorted(peer)[len(peer) // 2] / p50:>8.2f} x"
    return f"  {name:<44}{ordered[0]:>9.1f}{p50:>9.1f}{p99:>9.1f}  n={len(ordered)}{ratio}"


MICRO = f"  {'':<52}{'min':>11}{'p50':>11}{'p99':>11}"
"""What stands over rows of `micro`."""


def micro(name: str, times: Sequence[float], peer: Sequence[float] | None = None, *, each: int = 1) -> str:
    """min, p50 and p99 in microseconds of milliseconds for `each` things; the rest as in `row`."""
    ordered = sorted(times)
    shown = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e3 / each for part in (0, 0.5, 0.99)]
    ratio = "" if peer is None else f"{sorted(peer)[len(peer) // 2] / max(ordered[len(ordered) // 2], 1e-9):>9.2f} x"
    return f"  {name:<52}" + "".join(f"{one:>11.2f}" for one in shown) + f"  n={len(ordered):<7}{ratio}"
