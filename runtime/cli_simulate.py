"""The command line's `simulate`: policies side by side on a trace, as a table, as JSON, as a page."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..scheduler import Future, Policy, oracle
from ..scheduler.simulator import ALPHA, STATED, Conditions, Load, Workload, load_of
from .learnt import load_policy, read_costs
from .simulating import ORACLE, PAGE, Pool, Result, Shown, compared
from .traces import MIXES, Arrangement, arranged, open_trace

USERS = 16
LANES = 24
"""Sessions in a page's timeline."""
_ROW = (
    "policy",
    "jct_mean_s",
    "jct_p50_s",
    "jct_p99_s",
    "ttft_resume_p50_s",
    "reused_share",
    "recomputed_tokens",
    "goodput",
    "regret",
)
"""Of a row of the JSON; `--full` gives every figure."""
_COLUMNS = (
    ("policy", "policy", "{}"),
    ("jobs", "jobs", "{}"),
    ("JCT mean", "jct_mean_s", "{:.2f}"),
    ("p50", "jct_p50_s", "{:.2f}"),
    ("p90", "jct_p90_s", "{:.2f}"),
    ("p99", "jct_p99_s", "{:.2f}"),
    ("TTFT p50", "ttft_resume_p50_s", "{:.3f}"),
    ("p99", "ttft_resume_p99_s", "{:.3f}"),
    ("reused", "reused_share", "{:.3f}"),
    ("recomputed", "recomputed_tokens", "{}"),
    ("held Mtok s", "held_token_s", "{:.1f}"),
    ("moves", "moves", "{}"),
    ("goodput", "goodput", "{:.3f}"),
    ("Jain", "fairness", "{:.3f}"),
    ("busy", "busy_share", "{:.2f}"),
    ("refused", "refused", "{}"),
    ("regret", "regret", "{:+.1%}"),
)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What was run, and what came of it."""

    trace: str
    settings: dict[str, Any]
    results: Sequence[Result]

    full: bool = False

    @property
    def data(self) -> dict[str, Any]:
        """As JSON."""
        rows = (
            {key: value for key, value in asdict(one.figures).items() if self.full or key in _ROW}
            for one in self.results
        )
        return {"trace": self.trace, "settings": self.settings, "rows": list(rows)}


def simulate_options(parser: argparse.ArgumentParser) -> None:
    """What `simulate` may be told."""
    mixes = ", ".join(MIXES)
    parser.add_argument(
        "--trace",
        required=True,
        metavar="F",
        help=f"a trace, its form known by its first line; or generated:MIX[:SESSIONS[:day]], MIX one of {mixes}",
    )
    parser.add_argument(
        "--policy",
        default="sostenuto,forgetful",
        metavar="A,B",
        help="names of policies, or FILE.py:NAME for one of your own (default: %(default)s)",
    )
    parser.add_argument(
        "--pool-tokens",
        type=int,
        metavar="N",
        help="room for contexts (default: half of those that go on at once)",
    )
    parser.add_argument("--host-tokens", type=int, default=0, metavar="N", help="room in host memory below it")
    parser.add_argument(
        "--users", type=int, metavar="K", help=f"sessions at once (default: {USERS}, or the trace's times)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="order of sessions, and what is modelled")
    parser.add_argument("--sessions", type=int, metavar="N", help="run so many (default: all)")
    parser.add_argument("--half", type=int, choices=(1, 2), help="only this half of the trace's sessions")
    parser.add_argument("--tenants", type=int, default=4, metavar="N", help="who the sessions belong to, in turn")
    parser.add_argument("--workers", type=int, metavar="N", help="tools at once (default: all that are called)")
    parser.add_argument("--scale-tokens", type=int, default=1, metavar="X", help="divide all lengths by X")
    parser.add_argument("--scale-pauses", type=float, default=1.0, metavar="Y", help="divide all pauses by Y")
    parser.add_argument("--granule", type=int, metavar="G", help="tokens that one of the schedule stands for")
    parser.add_argument("--page", type=int, default=PAGE, metavar="P", help="granules of a page (default: %(default)s)")
    parser.add_argument(
        "--costs", type=Path, metavar="FILE", help="as `calibrate` writes it (default: a stated device)"
    )
    parser.add_argument("--alpha", type=float, default=ALPHA, help="goodput: within so many times ideal (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--full", action="store_true", help="all figures in the JSON")
    parser.add_argument("--report", type=Path, metavar="FILE", help="write a page with plots")


def simulated(options: argparse.Namespace) -> Simulated:
    """Run what was asked for. Raises BadTrace and ValueError, which say what to do."""
    _checked(options)
    policies = _policies(options.policy)
    recorded = open_trace(options.trace, granule=options.granule, seed=options.seed)
    costs = STATED if options.costs is None else read_costs(options.costs)
    users = options.users if options.users is not None or recorded.timed else USERS
    arrangement = Arrangement(
        seed=options.seed,
        users=users,
        tenants=options.tenants,
        sessions=options.sessions,
        tokens=options.scale_tokens,
        pauses=options.scale_pauses,
        half=options.half,
    )
    workload = arranged(recorded, arrangement)
    load = load_of(workload.sessions, workload.granule, costs)
    tokens = options.pool_tokens or _enough(load, users or USERS, options.page * workload.granule)
    pool = Pool(tokens, options.host_tokens, options.page)
    conditions = Conditions(costs, users, options.workers)
    shown = Shown(options.alpha, LANES if options.report is not None else 0, options.json)
    results = compared(workload, policies, pool, conditions=conditions, shown=shown)
    return Simulated(options.trace, _settings(options, workload, load, pool, conditions), results, options.full)


def table(simulated: Simulated) -> str:
    """For people: what was run, then a line for each policy."""
    rows = [[title for title, _, _ in _COLUMNS]]
    for one in simulated.results:
        facts = asdict(one.figures) | {"held_token_s": one.figures.held_token_s / 1e6}
        rows.append([_shown(facts[key], form) for _, key, form in _COLUMNS])
    widths = [max(len(row[at]) for row in rows) for at in range(len(_COLUMNS))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([*told(simulated), "", *lines])


def told(simulated: Simulated) -> list[str]:
    """What every table has to say: trace, scale, pool, users, seed, and what was assumed."""
    at = simulated.settings
    users = f"{at['users']} users" if at["users"] is not None else "sessions at the trace's times"
    return [
        f"{simulated.trace}: {at['sessions']} sessions, {at['calls']} calls",
        f"pool {at['pool_tokens']} tokens, host {at['host_tokens']}, {users}, {at['tenants']} tenants, "
        f"seed {at['seed']}",
        f"tokens / {at['scale_tokens']}, pauses / {at['scale_pauses']:g}, {at['granule']} tokens a granule, "
        f"{at['page']} granules a page, costs: {at['costs']}",
        f"d {at['d']:.3f} (model's share of a job), k {at['k']:.1f} (contexts that fit), R = k d {at['R']:.2f}, "
        f"working set / pool {at['pressure']:.2f}, goodput within {at['alpha']:g} x ideal",
        *(f"note: {note}" for note in at["notes"]),
        *(
            f"note: under {one.figures.policy} {one.figures.refused} jobs were refused, whose calls need more than the "
            "pool; no time here is theirs"
            for one in simulated.results
            if one.figures.refused
        ),
    ]


def _settings(
    options: argparse.Namespace, workload: Workload, load: Load, pool: Pool, conditions: Conditions
) -> dict[str, Any]:
    users = conditions.users
    return {
        "pool_tokens": pool.tokens,
        "host_tokens": pool.host_tokens,
        "users": users,
        "seed": options.seed,
        "tenants": options.tenants,
        "workers": options.workers,
        "sessions": load.sessions,
        "calls": load.calls,
        "half": options.half,
        "scale_tokens": options.scale_tokens,
        "scale_pauses": options.scale_pauses,
        "granule": workload.granule,
        "page": pool.page,
        "alpha": options.alpha,
        "costs": conditions.costs.source,
        "context_mean_tokens": load.context,
        "d": load.d,
        "k": load.fits(pool.tokens),
        "R": load.r(pool.tokens),
        "pressure": load.pressure(pool.tokens, users or USERS),
        "notes": list(workload.notes),
    }


def _enough(load: Load, users: int, page: int) -> int:
    """Half of what all that go on at once would take, and never too little for one of them."""
    return max(round(load.wanted(users) / 2), -(-load.longest // page) * page + page)


def _policies(names: str) -> list[Policy]:
    found = [oracle(Future()) if name == ORACLE else load_policy(name) for name in map(str.strip, names.split(","))]
    if twice := next((one.name for one in found if sum(each.name == one.name for each in found) > 1), None):
        raise ValueError(f"--policy: found {twice!r} twice; expected each policy once, with a name of its own")
    return found


def _checked(options: argparse.Namespace) -> None:
    for name in ("pool_tokens", "users", "sessions", "tenants", "workers", "granule", "page", "scale_tokens"):
        found = getattr(options, name)
        if found is not None and found < 1:
            raise ValueError(f"--{name.replace('_', '-')}: found {found}; expected 1 or more")
    if options.host_tokens < 0:
        raise ValueError(f"--host-tokens: found {options.host_tokens}; expected 0 or more")
    for name, least, most in (("scale_pauses", 1e-6, 1e6), ("alpha", 1.0, 1e6)):
        if not least <= (found := getattr(options, name)) <= most:
            raise ValueError(f"--{name.replace('_', '-')}: found {found:g}; expected from {least:g} to {most:g}")
    if options.report is not None and (options.report.is_dir() or not options.report.parent.is_dir()):
        raise ValueError(f"--report: found {options.report}; expected a file in a folder that there is")


def _shown(value: object, form: str) -> str:
    text = "-" if value is None else form.format(value)
    return "+0.0%" if text == "-0.0%" else text


def dumped(simulated: Simulated) -> str:
    """As one line of JSON."""
    return json.dumps(simulated.data)
