"""What the embedded engine was to reach beside its peers, and whether it did: judged by medians over the rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from .engine_found import MACHINE, Found, spread

BENT = 1.25
"""A token more behind may cost so many times what it cost before; what is above is a bend."""
PRESSURE = 2.0


@dataclass(frozen=True, slots=True)
class Goal:
    """`reached` is None where nothing was measured."""

    name: str
    reached: bool | None
    found: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """Whom of ours a peer is compared with, in which cells, and how many times as fast it is to be."""

    ours: str
    peer: str
    least: float
    cells: Sequence[str]


def goals(found: Found) -> Iterator[Goal]:
    """Every goal, in the order in which they were set."""
    yield compared(found, Match("exact", "vllm", 1.0, ("prefill", "decode")))
    yield compared(found, Match("fast", "vllm", 2.0, ("decode 1 x",)))
    native = any(found.values(cell, "llama.cpp-native") for cell in found.cells("decode 1 x"))
    yield compared(found, Match("fast", "llama.cpp-native" if native else "llama.cpp", 1.0, ("decode 1 x",)))
    for mode in ("exact", "fast"):
        name = f"`{mode}` at batch 1: at least 80 % of the measured bandwidth"
        yield _share(name, found.of_bandwidth(mode, "128"), 0.8)
    best, rate = found.middle("gemm", MACHINE), found.product_rate()
    share = None if best is None or rate is None else rate / best
    yield _share("linear layers of prefill: at least 70 % of the measured rate of products", share, 0.7)
    for cell in found.cells("agents"):
        yield _agents(found, cell)
    bends = list(found.bends())
    told = "; ".join(f"slope to {name} {bend:.2f} x that before" for name, bend in bends)
    name = f"time of a token linear in context to 32k: no slope over {BENT} x that before"
    yield Goal(name, all(bend <= BENT for _, bend in bends) if bends else None, told)
    host = found.host("decode 8 x 128", "exact")
    name = "host overhead of a decode step at batch 8 under 5 %"
    yield Goal(name, None if host is None else host < 0.05, "" if host is None else f"{host:.1%}")


def compared(found: Found, match: Match) -> Goal:
    """Reached if it is in every cell."""
    where = " and ".join(cell.split(" x")[0] for cell in match.cells)
    name = f"`{match.ours}` at least {match.least:.1f} x `{match.peer}` in every cell of {where}"
    every = {cell: found.ratios(cell, match.ours, match.peer) for cell in found.cells(*match.cells)}
    ratios = {cell: median(each) for cell, each in every.items() if each}
    if not ratios:
        return Goal(name, None)
    short = [f"{cell} {ratio:.2f}" for cell, ratio in ratios.items() if ratio < match.least]
    told = f"in {len(ratios) - len(short)} of {len(ratios)}; {min(ratios.values()):.2f} to {max(ratios.values()):.2f}"
    return Goal(name, not short, told + (f"; below: {', '.join(short)}" if short else ""))


def _agents(found: Found, cell: str) -> Goal:
    """Mean job completion times, vLLM's through ours: twice as good under pressure, as good without."""
    pressure = max((float(one["pressure"]) for one in found.rounds(cell, "exact")), default=0.0)
    least = 2.0 if pressure >= PRESSURE else 1.0
    name = f"{cell}, working set {pressure:.2f} x the pool: jobs done in 1/{least:g} of `vllm`'s time at most"
    ratios = [1 / each for each in found.ratios(cell, "exact", "vllm")]
    return Goal(name, median(ratios) >= least if ratios else None, f"{spread(ratios, 2)} x" if ratios else "")


def _share(name: str, share: float | None, least: float) -> Goal:
    return Goal(name, None if share is None else share >= least, "" if share is None else f"{share:.0%}")
