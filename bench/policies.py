"""Every policy on recorded and made-up agents, in three pools each, over several seeds: who is quickest, how surely.

python -P -m sostenuto.bench.policies [--seeds 5 --sessions 40 --only weka codex --half 1 --jobs 2 --out FILE]

Mean job completion times, as a share of `forgetful`'s on the same sessions, with 95 % intervals over the seeds; then
which cells reach the goals, and which do not. Weka's sessions are reported on the second half of the file; the first
is there to tune on (--half 1). Traces are looked for in $SOSTENUTO_SHARED_DATA and in ../shared/data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from math import sqrt
from pathlib import Path
from typing import Any

from sostenuto.runtime.simulating import ORACLE, Pool, Shown, compared
from sostenuto.runtime.traces import Arrangement, arranged, open_trace
from sostenuto.scheduler import POLICIES, Future, oracle
from sostenuto.scheduler.simulator import STATED, Conditions, load_of

from .report import machine

OUT = Path(__file__).parent / "results" / "policies.json"
PRESSURES = (0.8, 2.5, 5.0)
"""Working set over pool: all fits; half of it does not; most of it does not."""
UNDER_PRESSURE = 2.0
ALMOST = 1.02
"""As good as the best, and behind by no more than that."""
AHEAD = 0.7
OURS, PLAIN = "sostenuto", "forgetful"
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Student's t for 95 %, with 1 to 9 degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One of the traces, and how it is run."""

    name: str
    source: str
    users: int
    sessions: int
    half: int | None = None
    times: int = 1


TRACES = (
    Trace("weka", "weka_claude_code.jsonl.gz", users=16, sessions=40, half=2),
    Trace("mini-swe", "lmcache_miniswe.jsonl.gz", users=24, sessions=90, times=10),
    Trace("mooncake", "mooncake_conversation.jsonl.gz", users=64, sessions=600),
    Trace("coding", "generated:coding:400", users=16, sessions=40),
    Trace("codex", "generated:codex:400", users=32, sessions=120),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """A trace in a pool, with a seed."""

    trace: Trace
    pressure: float
    seed: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sessions", type=int, help="of each trace at most (default: 40 to 600)")
    parser.add_argument("--only", nargs="+", choices=[trace.name for trace in TRACES])
    parser.add_argument("--policies", nargs="+", default=[*POLICIES, ORACLE])
    parser.add_argument("--half", type=int, default=2, choices=(1, 2), help="of Weka's sessions (default: 2)")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--out", type=Path, default=OUT, help="where all figures are written (%(default)s)")
    asked = parser.parse_args(arguments)
    found = measure(asked)
    print(machine(0, asked.jobs, packages=("sostenuto",)))
    print("\n".join(report(found)), flush=True)
    asked.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten to {asked.out}")


def measure(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of each policy in each cell."""
    cells = list(_cells(asked))
    names = [asked.policies] * len(cells)
    if asked.jobs == 1:
        return _noted(cells, (run(cell, each) for cell, each in zip(cells, names, strict=True)))
    with ProcessPoolExecutor(asked.jobs) as pool:
        return _noted(cells, pool.map(run, cells, names))


def run(cell: Cell, policies: Sequence[str]) -> list[dict[str, Any]]:
    """All policies in one cell, on the same sessions in the same order."""
    trace = cell.trace
    arrangement = Arrangement(
        seed=cell.seed, users=trace.users, sessions=trace.sessions, half=trace.half, times=trace.times
    )
    workload = arranged(open_trace(trace_file(trace.source) or trace.source, seed=cell.seed), arrangement)
    load = load_of(workload.sessions, workload.granule, STATED)
    pool = Pool(round(load.wanted(trace.users) / cell.pressure))
    chosen = [oracle(Future()) if name == ORACLE else POLICIES[name] for name in policies]
    results = compared(workload, chosen, pool, conditions=Conditions(STATED, trace.users), shown=Shown(quiet=True))
    told = {
        "trace": trace.name,
        "half": trace.half,
        "sessions": load.sessions,
        "calls": load.calls,
        "users": trace.users,
        "seed": cell.seed,
        "pool_tokens": pool.tokens,
        "granule": workload.granule,
        "pressure": cell.pressure,
        "d": load.d,
        "R": load.r(pool.tokens),
        "notes": list(workload.notes),
    }
    return [told | asdict(one.figures) for one in results]


def report(found: Sequence[dict[str, Any]]) -> list[str]:
    """The matrix, and the goals."""
    places = list(dict.fromkeys((row["trace"], row["pressure"]) for row in found))
    policies = list(dict.fromkeys(row["policy"] for row in found))
    seeds = sorted({row["seed"] for row in found})
    lines = [
        f"mean JCT as a share of {PLAIN}'s on the same sessions, 95 % interval over seeds {seeds}; {STATED.source}"
    ]
    means: dict[tuple[str, float], dict[str, float]] = {}
    for trace, pressure in places:
        rows = [row for row in found if (row["trace"], row["pressure"]) == (trace, pressure)]
        by_policy = {name: {row["seed"]: row for row in rows if row["policy"] == name} for name in policies}
        means[trace, pressure] = {
            name: sum(row["jct_mean_s"] for row in own.values()) / len(own) for name, own in by_policy.items()
        }
        lines += ["", _told(rows[0], pressure)]
        for note in rows[0]["notes"]:
            lines.append(f"  note: {note}")
        for name, own in by_policy.items():
            lines.append(_row(name, list(own.values()), list(by_policy[PLAIN].values())))
    return [*lines, "", *goals(means)]


def goals(means: dict[tuple[str, float], dict[str, float]]) -> Iterator[str]:
    """What was wanted of ours in each cell, and whether it is so."""
    yield f"goals of {OURS}: within 2 % of the best, never 2 % behind {PLAIN}, 30 % ahead of it under pressure"
    for (trace, pressure), by_policy in means.items():
        ours, plain = by_policy[OURS], by_policy[PLAIN]
        others = {name: value for name, value in by_policy.items() if name != ORACLE}
        best = min(others, key=lambda name: others[name])
        missed = []
        if ours > ALMOST * others[best]:
            missed.append(f"{best} is {1 - others[best] / ours:.1%} quicker")
        if ours > ALMOST * plain:
            missed.append(f"{ours / plain - 1:.1%} behind {PLAIN}")
        if pressure > UNDER_PRESSURE and ours > AHEAD * plain:
            missed.append(f"only {1 - ours / plain:.1%} ahead of {PLAIN}")
        gap = f"; {ours / by_policy[ORACLE] - 1:+.1%} against the oracle" if ORACLE in by_policy else ""
        reached = "reached" if not missed else "missed: " + ", ".join(missed)
        yield f"  {trace} at {pressure:g}: {reached}{gap}"


def spread(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval; infinite for a single value."""
    count = len(values)
    mean = sum(values) / count
    if count < 2:
        return mean, float("inf")
    deviation = sqrt(sum((value - mean) ** 2 for value in values) / (count - 1))
    return mean, (_T[count - 2] if count <= len(_T) + 1 else 1.96) * deviation / sqrt(count)


def _noted(cells: Sequence[Cell], found: Iterable[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """All rows; each cell is told on standard error when it is done."""
    rows = []
    for number, (cell, own) in enumerate(zip(cells, found, strict=True), 1):
        rows += own
        print(f"{number}/{len(cells)}: {cell.trace.name} at {cell.pressure:g}, seed {cell.seed}", file=sys.stderr)
    return rows


def _told(row: dict[str, Any], pressure: float) -> str:
    half = f", half {row['half']}" if row["half"] else ""
    return (
        f"{row['trace']}{half}: {row['sessions']} sessions, {row['calls']} calls, {row['users']} users, "
        f"pool {row['pool_tokens']} tokens (working set / pool {pressure:g}), {row['granule']} tokens a granule, "
        f"tokens / 1, pauses / 1, d {row['d']:.3f}, R {row['R']:.2f}"
    )


def _row(name: str, own: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]]) -> str:
    pairs = zip(own, plain, strict=True)
    share, half = spread([mine["jct_mean_s"] / other["jct_mean_s"] for mine, other in pairs])
    seconds, _ = spread([row["jct_mean_s"] for row in own])
    reused, _ = spread([row["reused_share"] for row in own])
    goodput, _ = spread([row["goodput"] for row in own])
    regret = [row["regret"] for row in own if row["regret"] is not None]
    told = f"{spread(regret)[0]:+8.1%}" if regret else ""
    return (
        f"  {name:<14}{share:7.3f} +- {half:<6.3f} JCT {seconds:9.2f} s  reused {reused:.3f}  goodput {goodput:.3f}"
        f"  regret {told}"
    )


def _cells(asked: argparse.Namespace) -> Iterator[Cell]:
    for trace in TRACES:
        if asked.only and trace.name not in asked.only:
            continue
        if not trace.source.startswith("generated:") and trace_file(trace.source) is None:
            print(f"skipped {trace.name}: {trace.source} is in neither $SOSTENUTO_SHARED_DATA nor ../shared/data")
            continue
        sessions = min(trace.sessions, asked.sessions or trace.sessions)
        half = asked.half if trace.half else None
        run_as = replace(trace, sessions=sessions, half=half)
        for pressure in PRESSURES:
            for seed in range(asked.seeds):
                yield Cell(run_as, pressure, seed)


def trace_file(name: str) -> str | None:
    """Where a recorded trace lies, if it is here."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    file = Path(os.environ.get("SOSTENUTO_SHARED_DATA", beside)) / "traces" / name
    return str(file) if file.is_file() else None


if __name__ == "__main__":
    main()
