"""What tracing costs a LangGraph run: processor time per node, ours beside its peers in the same run.

make bench-tracing [ARGS="--rounds 7 --starts 2 --steps 300 --demo 0 --only sostenuto OpenInference"]

Every instrumentor has processes of its own, for they patch for good; all of them are alive at once and take turns,
so that whatever else the machine does hits all alike. All export nowhere: a span processor counts the spans.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any

from .instrumentors import NONE, OURS, PEERS, PLAIN, SILENT, Instrumentor
from .report import machine
from .tracing_worker import BY_HAND

ROOT = Path(__file__).parents[1]
PATIENCE = 120
"""Seconds after which a workload is taken to hang."""
WORKLOADS = {
    "sync_loop": "one node that goes to itself, invoke",
    "async_loop": "one node that goes to itself, ainvoke",
    "sync_agent": "create_agent, a scripted model and a tool, invoke",
    "async_agent": "create_agent, a scripted model and a tool, ainvoke",
}
HAND = Instrumentor(BY_HAND, NONE.switch_on)
EVERYBODY = (NONE, HAND, SILENT, OURS, PLAIN, *PEERS)


@dataclass(slots=True)
class Cost:
    """Microseconds of processor time per node, and spans per node."""

    times: list[float] = field(default_factory=list)
    spans: float = 0.0

    @property
    def least(self) -> float:
        return min(self.times)

    def at(self, share: float) -> float:
        """A quantile: the smallest time that this share of all times does not exceed."""
        ordered = sorted(self.times)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


Costs = dict[str, dict[str, Cost]]
"""Workload -> name -> cost."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="measurements in each process")
    parser.add_argument("--starts", type=int, default=2, help="processes of each instrumentor, one after the other")
    parser.add_argument("--steps", type=int, default=300, help="nodes of the loop")
    parser.add_argument("--turns", type=int, default=20, help="tool calls of the agent")
    parser.add_argument("--demo", type=int, default=15, help="measurements of the demo's agent; 0 leaves it out")
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"some of: {', '.join(e.name for e in EVERYBODY)}")
    asked = parser.parse_args()
    chosen = [each for each in EVERYBODY if each is NONE or not asked.only or each.name in asked.only]
    there = [each for each in chosen if python(each).exists()]
    print(f"$ make bench-tracing ARGS='{' '.join(sys.argv[1:])}'")
    print(machine(0, 1, packages=("langgraph", "langchain-core", "opentelemetry-sdk", "sostenuto")))
    for each in there:
        print(f"  {each.name:<30}{versions(each)}")
    for each in chosen:
        if each not in there:
            print(f"  {each.name:<30}not measured: {python(each)} is not there")
    costs: Costs = {workload: {} for workload in (*WORKLOADS, "span")}
    for _ in range(asked.starts):
        _measure(there, costs, asked)
    for workload, caption in WORKLOADS.items():
        _print(f"{caption}; microseconds of processor time per node", costs[workload], there)
    floor = costs["span"][NONE.name]
    print("\nOpenTelemetry's own part of a span with 12 attributes, made current, started and ended, and nothing else:")
    print(f"  {floor.least:.1f} us at least, p50 {floor.at(0.5):.1f}, n={len(floor.times)}")
    _verdict(costs, there)
    if asked.demo:
        print(flush=True)
        command = [sys.executable, "-P", "-m", "sostenuto.bench.tracing_demo", "--rounds", str(asked.demo)]
        subprocess.run(command, check=True)


def python(instrumentor: Instrumentor) -> Path:
    """The interpreter that has it."""
    return ROOT / ".venv-peers" / instrumentor.environment / "bin" / "python"


def variables(instrumentor: Instrumentor) -> dict[str, str]:
    """The environment of its processes: nobody else's settings, and the same hashes for all."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "LANG", "TRACELOOP_"))}
    return {**kept, "PYTHONHASHSEED": "0", **instrumentor.variables}


def versions(instrumentor: Instrumentor) -> str:
    """What it is, and what it stands on."""
    names = [*([instrumentor.package] if instrumentor.package else []), "langgraph", "opentelemetry-api"]
    code = f"from importlib.metadata import version as v; print(', '.join(f'{{n}} {{v(n)}}' for n in {names}))"
    return subprocess.run(
        [python(instrumentor), "-P", "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def _measure(chosen: Sequence[Instrumentor], costs: Costs, asked: argparse.Namespace) -> None:
    with ExitStack() as stack:
        workers = [(each, stack.enter_context(_worker(each, asked))) for each in chosen]
        for workload in costs:
            for turn in range(asked.rounds + 2):  # the first two warm
                for instrumentor, worker in workers[turn % len(workers) :] + workers[: turn % len(workers)]:
                    told = _ask(worker, workload)
                    if turn < 2:
                        continue
                    cost = costs[workload].setdefault(instrumentor.name, Cost())
                    cost.times.append(told["cpu"] / told["nodes"] * 1e6)
                    cost.spans = told["spans"] / told["nodes"]


@contextmanager
def _worker(instrumentor: Instrumentor, asked: argparse.Namespace) -> Iterator[subprocess.Popen[str]]:
    command = [str(python(instrumentor)), "-P", "-m", "sostenuto.bench.tracing_worker"]
    with subprocess.Popen(
        [*command, instrumentor.name, str(asked.steps), str(asked.turns)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=variables(instrumentor),
        cwd=ROOT,
    ) as worker:
        yield worker


def _ask(worker: subprocess.Popen[str], workload: str) -> Any:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(workload, file=worker.stdin, flush=True)
    if not select([worker.stdout], [], [], PATIENCE)[0]:
        worker.kill()
        raise SystemExit(f"{worker.args!r} did not finish {workload} in {PATIENCE} s")
    return json.loads(worker.stdout.readline())


def _print(caption: str, costs: dict[str, Cost], chosen: Sequence[Instrumentor]) -> None:
    bare = costs[NONE.name].least
    print(f"\n{caption}")
    print(f"  {'':<30}{'min':>9}{'p50':>9}{'p99':>9}{'n':>6}{'min / none':>12}{'min - none':>12}{'spans/node':>12}")
    for instrumentor in chosen:
        cost = costs[instrumentor.name]
        least = cost.least
        print(
            f"  {instrumentor.name:<30}{least:>9.1f}{cost.at(0.5):>9.1f}{cost.at(0.99):>9.1f}{len(cost.times):>6}"
            f"{least / bare:>12.2f}{least - bare:>12.1f}{cost.spans:>12.2f}"
        )


def _verdict(costs: Costs, chosen: Sequence[Instrumentor]) -> None:
    print("\nBeside every peer that opens node spans, by the median (the least of a few is a matter of luck):")
    peers = [each.name for each in chosen if each in PEERS and each.nodes]
    for ours in (each for each in (OURS, PLAIN) if each in chosen and peers):
        for workload in WORKLOADS:
            median = {name: costs[workload][name].at(0.5) for name in (ours.name, *peers)}
            print(f"  {ours.name}, {workload}: {median[ours.name]:.1f}")
            print(f"    below  {_listed([each for each in peers if median[each] > median[ours.name]], median)}")
            print(f"    above  {_listed([each for each in peers if median[each] <= median[ours.name]], median)}")


def _listed(those: Sequence[str], median: Mapping[str, float]) -> str:
    return ", ".join(f"{each} {median[each]:.1f}" for each in those) or "none"


if __name__ == "__main__":
    main()
