"""The agents of the benchmark of engines: recorded sessions, scaled, as plain data for every peer's process."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sostenuto.bench.policies import trace_file
from sostenuto.runtime.traces import Arrangement, arranged, open_trace
from sostenuto.scheduler.simulator import Session

from .engine_speaking import HIGH, LOW

TRACE = "lmcache_miniswe.jsonl.gz"
INSTEAD = "generated:shell:40"
WITHIN_S = 2.0
"""All sessions begin within so many seconds."""
FITS = 8
"""The pool holds about so many sessions at their longest: half of the working set of twice as many."""
PAGE = 128


@dataclass(frozen=True, slots=True)
class Scale:
    """How a trace is made smaller."""

    tokens: int
    """One token for so many."""
    pauses: float
    """Pauses are divided by this."""
    longest: int = 8000
    """Calls whose context would be longer are left out, with all that follow."""


@dataclass(frozen=True, slots=True)
class Agents:
    """Sessions that come at once, and the pool that they share."""

    name: str
    file: str
    pool_tokens: int
    pressure: float
    """Their working set, all contexts at their longest, through the pool."""


def prepared(counts: Sequence[int], scale: Scale, folder: Path, *, seed: int) -> tuple[list[Agents], str]:
    """Files with so many sessions each, and what they are, in words."""
    name = trace_file(TRACE) or INSTEAD
    arrangement = Arrangement(seed=seed, users=1, tokens=scale.tokens, pauses=scale.pauses)
    sessions = list(arranged(open_trace(name, granule=scale.tokens, seed=seed), arrangement).sessions)
    plans = plain(sessions, max(counts), scale.longest, seed)
    pool = sum(map(peak, plans[: 2 * FITS])) // 2 // PAGE * PAGE
    told = f"{Path(name).name}, tokens / {scale.tokens}, pauses / {scale.pauses:g}, {len(sessions)} sessions in it"
    if name == INSTEAD:
        told += (
            f"; the project's own seeded generator, as {TRACE} is in neither $SOSTENUTO_SHARED_DATA nor ../shared/data"
        )
    told += f"; a pool of {pool:,} tokens"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for count in counts:
        chosen = plans[:count]
        pressure = sum(map(peak, chosen)) / pool
        calls = [call for plan in chosen for call in plan["calls"]]
        told += (
            f"; {count}: {len(calls)} calls, {sum(call['say'] for call in calls):,} tokens said, {pressure:.2f} x it"
        )
        label = f"agents {count} at 1/{scale.tokens}" + (f", pauses 1/{scale.pauses:g}" if scale.pauses != 1 else "")
        file = folder / f"{label.replace('/', '_')} of {Path(name).name}.json"
        file.write_text(json.dumps({"told": told, "sessions": chosen}), encoding="utf-8")
        found.append(Agents(label, str(file), pool, pressure))
    return found, told


def plain(sessions: Sequence[Session], count: int, longest: int, seed: int) -> list[dict[str, Any]]:
    """So many sessions; where there are fewer they come again, with tokens of their own but for what all share."""
    shared = Counter(name for one in sessions for name in {name for call in one.calls for name in call.add})
    draw = random.Random(f"agents {seed}")
    numbers: dict[tuple[int, int], int] = {}
    plans = []
    for at in range(count):
        session, copy = sessions[at % len(sessions)], at // len(sessions)
        calls: list[dict[str, Any]] = []
        length = 0
        for call in session.calls:
            add = [
                numbers.setdefault((0 if shared[name] > 1 else copy, name), draw.randrange(LOW, HIGH))
                for name in call.add
            ]
            length = min(length, call.keep) + len(add) + len(call.say)
            if length > longest:
                break
            calls.append({"keep": call.keep, "add": add, "say": len(call.say), "pause": call.pause})
        plans.append({"name": f"agent-{at}", "at": round(draw.uniform(0, WITHIN_S), 3), "calls": calls})
    return [plan for plan in plans if plan["calls"]]


def peak(plan: dict[str, Any]) -> int:
    """The longest context of a session, in tokens."""
    length = most = 0
    for call in plan["calls"]:
        length = min(length, call["keep"]) + len(call["add"]) + call["say"]
        most = max(most, length)
    return most
