"""`sostenuto tools plan`: would these calls be allowed one after the other, and how long would they take?"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..tools import loads
from ..tools.contracts import Contract
from ..tools.contracts_plan import Cost, Planned, cost, quantile, rehearse

EXPECTED = '{"tools": {NAME: CONTRACT}, "facts": {...}, "calls": [{"tool": NAME, "arguments": {...}}]}'
_TUPLES = ("reads", "writes")
SHARES = (0.5, 0.95)


def plan_options(commands: Any) -> None:
    """What `sostenuto tools plan` takes."""
    plan = commands.add_parser(
        "plan", help="look through a plan of calls without making one; exits 1 if what one requires does not hold"
    )
    plan.add_argument("plan", type=Path, metavar="FILE", help=f"one JSON object: {EXPECTED}")
    plan.add_argument(
        "--audit", type=Path, metavar="FILE", help="the log of tool calls from which to learn how long each takes"
    )
    plan.add_argument("--json", action="store_true", help="one JSON object")


def plan_shown(options: argparse.Namespace) -> tuple[str, int]:
    """What was found, and how to exit. Raises ValueError for a plan that is none, BadTool, OSError."""
    given = _read(options.plan)
    contracts = {name: _contract(name, told) for name, told in given["tools"].items()}
    steps = rehearse([(one["tool"], one.get("arguments", {})) for one in given["calls"]], contracts, given["facts"])
    learned = {} if options.audit is None else latencies(options.audit)
    costs = [cost(steps, {tool: quantile(took, share) for tool, took in learned.items()}) for share in SHARES]
    holds = all(step.stands == "holds" for step in steps)
    text = _json(steps, costs, holds=holds) if options.json else _told(steps, costs)
    return text, 0 if holds else 1


def latencies(path: Path) -> dict[str, list[float]]:
    """How long calls took that ran, by tool. What cannot be read is passed over: `audit verify` tells of it."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    with path.open("rb") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict) and record.get("kind") == "ended" and record.get("code") == "ran":
                found[str(record["tool"])].append(float(record["seconds"]))
    return dict(found)


def _read(path: Path) -> dict[str, Any]:
    text = path.read_bytes().decode()
    given = loads(text, limit=len(text))
    if not isinstance(given, dict):
        raise ValueError(f"{path}: found no JSON object; expected {EXPECTED}")
    filled: dict[str, Any] = {"tools": {}, "facts": {}, "calls": [], **given}
    calls = filled["calls"]
    right = isinstance(calls, list) and all(
        isinstance(one, dict) and isinstance(one.get("tool"), str) and isinstance(one.get("arguments", {}), dict)
        for one in calls
    )
    if not right or not isinstance(filled["tools"], dict) or not isinstance(filled["facts"], dict):
        raise ValueError(f"{path}: expected {EXPECTED}")
    return filled


def _contract(name: str, told: object) -> Contract:
    if not isinstance(told, Mapping) or not set(told) <= set(Contract.__slots__):
        raise ValueError(f"the contract of {name}: found {told!r}; expected some of {', '.join(Contract.__slots__)}")
    values: dict[str, Any] = {key: tuple(value) if key in _TUPLES else value for key, value in told.items()}
    return Contract(**values)


def _json(steps: tuple[Planned, ...], costs: list[Cost], *, holds: bool) -> str:
    told = [
        {
            "tool": step.tool,
            "stands": step.stands,
            "problems": [each.message for each in step.problems],
            "after": list(step.after),
        }
        for step in steps
    ]
    seconds = {
        f"p{share * 100:g}": {"side_by_side": round(one.chain, 6), "in_a_row": round(one.row, 6)}
        for share, one in zip(SHARES, costs, strict=True)
    }
    unknown = list(costs[0].unknown)
    return json.dumps({"holds": holds, "calls": told, "seconds": seconds, "not_learned": unknown}, ensure_ascii=False)


def _told(steps: tuple[Planned, ...], costs: list[Cost]) -> str:
    lines = []
    for number, step in enumerate(steps, 1):
        behind = f", behind {', '.join(str(before + 1) for before in step.after)}" if step.after else ""
        why = "".join(f"\n   {each.message}" for each in step.problems)
        lines.append(f"{number} {step.tool}: {step.stands}{behind}{why}")
    known = [step for step in steps if step.tool not in costs[0].unknown]
    if known:
        half, most = costs
        lines.append(
            f"half of the time within {half.chain:.3g} s ({half.row:.3g} s one after the other), "
            f"19 times of 20 each call within what makes {most.chain:.3g} s"
        )
    if costs[0].unknown:
        lines.append(f"nothing is known of how long these take: {', '.join(costs[0].unknown)}")
    return "\n".join(lines)
