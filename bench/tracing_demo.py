"""What tracing costs the demo's agent when nobody takes the spans: a real model, real tools, both ways in turns.

make bench-tracing runs it last; by itself: python -P -m sostenuto.bench.tracing_demo [--rounds 15]
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from statistics import median
from time import perf_counter, process_time

import torch

from sostenuto.runtime.demo.live import Live
from sostenuto.runtime.demo.tasks import load_tasks
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.weights import locate
from sostenuto.scheduler import named
from sostenuto.tracing import instrument

from .report import machine

SEED = 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--turns", type=int, default=2, help="model calls of the agent")
    parser.add_argument("--pool-tokens", type=int, default=2048)
    asked = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(1)  # threads that wait for each other burn what they are given
    model = Model.load(locate(None))
    live = Live(load_tasks()[:1], asked.turns, named("sostenuto"))

    def once() -> tuple[float, float]:
        gc.collect()
        cpu, wall = process_time(), perf_counter()
        live.run(TorchEngine(model, pool_tokens=asked.pool_tokens), quiet=True)
        return process_time() - cpu, perf_counter() - wall

    def traced() -> tuple[float, float]:
        undo = instrument()
        try:
            return once()
        finally:
            undo()

    once()
    traced()
    bare: list[tuple[float, float]] = []
    ours: list[tuple[float, float]] = []
    for turn in range(asked.rounds):
        # First and second by turns: what comes second finds the caches as the first has left them.
        for taken, call in ((bare, once), (ours, traced))[:: 1 if turn % 2 else -1]:
            taken.append(call())
    print(machine(SEED, torch.get_num_threads(), packages=("torch", "langgraph", "opentelemetry-sdk", "sostenuto")))
    print(f"the demo's agent, one task, {asked.turns} model calls; instrument() without a provider, and not at all")
    for at, what in enumerate(("processor seconds", "seconds")):
        _print(what, [each[at] for each in bare], [each[at] for each in ours])
    pairs = [mine[0] / none[0] for none, mine in zip(bare, ours, strict=True)]
    print(f"  processor seconds, round by round: sostenuto / none {median(pairs):.3f} at the median")


def _print(what: str, bare: Sequence[float], ours: Sequence[float]) -> None:
    print(f"  {what:<24}{'min':>9}{'p50':>9}{'p99':>9}{'n':>6}{'min / none':>12}{'p50 / none':>12}")
    least, middle = min(bare), sorted(bare)[len(bare) // 2]
    for name, times in (("none", sorted(bare)), ("sostenuto, no provider", sorted(ours))):
        p50, p99 = times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]
        ratios = f"{times[0] / least:>12.3f}{p50 / middle:>12.3f}"
        print(f"  {name:<24}{times[0]:>9.3f}{p50:>9.3f}{p99:>9.3f}{len(times):>6}{ratios}")


if __name__ == "__main__":
    main()
