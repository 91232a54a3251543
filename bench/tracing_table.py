"""The comparison in docs/tracing.md: the tracer's own programs with every instrumentor, check by check.

make tracing-table
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .instrumentors import NONE, OURS, PEERS, Instrumentor
from .tracing import ROOT, python, versions

PAGE = ROOT / "docs" / "tracing.md"
BEGIN, END = "<!-- begin: make tracing-table -->\n", "<!-- end: make tracing-table -->\n"
COLUMNS = (NONE, OURS, *PEERS)
CORE = ("result", "trace", "ended", "graph", "nodes", "probe", "caller", "status")
CHECKS = {
    "result": "the program does what it does without",
    "logs": "nothing is logged that is not logged without",
    "trace": "parents exist, and are in the same trace",
    "ended": "every span ends",
    "within": "children end before their parents",
    "graph": "a span for each run of a graph",
    "nodes": "a span for each execution of a node",
    "tool": "a span for each tool call",
    "model": "a span for each model call",
    "probe": "what a node's code does stands under that very execution",
    "inside": "what a tool's or a model's code does, likewise",
    "ancestors": "and so on upwards: tool, node, graph, node, graph",
    "nested": "the user's own spans keep their order",
    "caller": "the caller's span is the parent, and current again whenever the caller is",
    "status": "errors where something failed, and nowhere else: not on interrupts, handoffs, closed streams",
    "task": "LangGraph's task, place, path, triggers and step on the node's span",
    "superstep": "a span for each superstep",
    "attempt": "the number of attempts on the node's span, a span for each if there are several",
    "links": "links to what started a node",
    "resume": "a resumed run links to the one it takes up, and says why",
    "visit": "how many times a node has run in this run",
}
SEEN = ("graph", "nodes", "tool", "model", "probe", "inside", "ancestors")
"""Checks that say something only of programs that have such a thing: those that fail where nothing is traced."""
NOTES = (
    "Each program runs first without the instrumentor, then with it, in a process of its own. A peer is switched on as",
    "its documentation says and judged under its own names; where a span can be read in two ways, the one that passes",
    "is taken, and a peer that opens a span for each attempt at a node is judged by attempts. OpenTelemetry's own",
    "instrumentor opens no spans for nodes, by design: whatever is asked of them it cannot pass.",
)

Verdict = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table stands, between two comments")
    parser.add_argument("--faults", type=Path, help="where to write every fault, as JSON")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    there = [each for each in COLUMNS if python(each).exists()]
    with ThreadPoolExecutor(asked.jobs) as pool:
        verdicts = dict(zip((each.name for each in there), pool.map(_verdicts, there), strict=True))
    if asked.faults is not None:
        asked.faults.write_text(json.dumps(verdicts, indent=1), encoding="utf-8")
    text = "\n".join(_lines(there, verdicts)) + "\n"
    before, _, rest = asked.page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    asked.page.write_text(f"{before}{BEGIN}{text}{END}{after}", encoding="utf-8")
    print(text)


def _verdicts(instrumentor: Instrumentor) -> list[Verdict]:
    # It is configured when a program is run with it: before that the program runs bare.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OTEL_", "LANG", "TRACELOOP_"))}
    done = subprocess.run(
        [python(instrumentor), "-P", "-m", "sostenuto.bench.tracing_judged", instrumentor.name],
        capture_output=True,
        text=True,
        check=False,
        env=kept,
        cwd=ROOT,
    )
    if done.returncode:
        raise SystemExit(f"{instrumentor.name}: {done.stderr[-2000:]}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def _lines(there: Sequence[Instrumentor], verdicts: Mapping[str, Sequence[Verdict]]) -> Iterator[str]:
    bare = verdicts[NONE.name]
    found = [verdicts[each.name] for each in there]
    yield f"{len(bare)} LangGraph programs, {datetime.now(UTC):%Y-%m-%d}. Passed / judged:"
    yield ""
    yield _row(["", *(each.name for each in there)])
    yield _row(["---"] * (len(there) + 1))
    yield _row(["**core** (see below)", *(f"**{_core(each)}**" for each in found)])
    yield _row(["**all that it promises**", *(f"**{_ratio([one['passed'] for one in each])}**" for each in found)])
    for check, says in CHECKS.items():
        judged = _judged(check, bare)
        yield _row([f"`{check}`: {says}", *(_cell(check, each, judged) for each in found)])
    yield ""
    yield f"**core** is what every tracer must do: {', '.join(f'`{each}`' for each in CORE)}."
    listed = ", ".join(f"`{each}`" for each in SEEN)
    yield f"{listed} are judged on programs that have such a thing; `-`: not promised, so not judged."
    yield from ("", *NOTES, "")
    for each in there:
        bad = Counter(str(one["faults"][0]) for one in verdicts[each.name] if not one["checks"])
        ends = "".join(f"; {number} {'program' if number == 1 else 'programs'} {what}" for what, number in bad.items())
        yield f"- {each.name}: {versions(each)}{ends}"
    missing = [each.name for each in COLUMNS if each not in there]
    yield from ([f"- not run, for their environment is not there: {', '.join(missing)}"] if missing else [])


def _judged(check: str, bare: Sequence[Verdict]) -> list[int]:
    """The programs of which this check says something."""
    return [at for at, each in enumerate(bare) if check not in SEEN or not each["checks"].get(check)]


def _cell(check: str, found: Sequence[Verdict], judged: Sequence[int]) -> str:
    said = [found[at]["checks"].get(check, False) for at in judged]
    return "-" if any(each is None for each in said) else _ratio(said)


def _core(found: Sequence[Verdict]) -> str:
    return _ratio([all(each["checks"].get(check, False) for check in CORE) for each in found])


def _ratio(said: Sequence[bool]) -> str:
    return f"{sum(said)}/{len(said)}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
