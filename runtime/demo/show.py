"""The demo from beginning to end: run, compare, trace, tell."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ...scheduler import Policy
from ...tracing import instrument, provider, read_otlp_json, render_tree
from ..engines.torch.engine import TorchEngine
from ..opening import Wanted, open_engine
from .compare import beside, compare
from .live import Live
from .tasks import load_tasks
from .tell import Report, say, summary, table, verdict
from .transcript import Comparison

POOL_TOKENS = 2_432
"""The default pool: room for the longest of the default tasks' contexts, and for about half of all of them."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    wanted: Wanted
    policy: Policy
    tasks: Path | None
    agents: int
    rounds: int
    out: Path
    trace: Path | None
    otlp: str | None
    json: bool


def show(options: Options) -> int:
    """Run the demo; 0 when every agent came to its end."""
    tasks = load_tasks(options.tasks)[: options.agents]
    options.out.mkdir(parents=True, exist_ok=True)
    trace = options.trace or options.out / "trace.jsonl"
    journal = options.out / "journal.jsonl"
    trace.unlink(missing_ok=True)
    wanted = options.wanted
    if wanted.kind == "torch":
        say("loading the model (the packaged one is converted once, then cached) ...")
    engine = open_engine(wanted)
    where = f"pool: {engine.room * engine.page} tokens" if wanted.kind == "torch" else f"{wanted.kind} at {wanted.url}"
    say(f"{engine.name} | {len(tasks)} agents, {options.rounds} rounds at most | {where} | {options.policy.name}")
    if wanted.kind == "torch" and wanted.model is None:
        say("This model has 135M parameters: its constrained calls are valid, and often not wise. Try --model.\n")
    live = Live(tasks, options.rounds, options.policy)
    otlp: bool | str = False if options.otlp is None else options.otlp or True
    with ExitStack() as stack:
        tracer = provider(service_name="sostenuto-demo", trace_file=trace, otlp=otlp)
        stack.callback(tracer.shutdown)
        stack.callback(instrument(tracer))
        runs, wrong, wall = live.run(engine, journal=journal)
    table(runs)
    sweep: tuple[Comparison, ...] = ()
    chosen = None
    if isinstance(engine, TorchEngine):
        sweep = compare(engine.model, journal, engine.room * engine.page)
        chosen = next(one for one in sweep if one.pool_tokens == engine.room * engine.page)
    elif engine.can.hold:
        chosen = beside(live, runs, wall, wanted)
    else:
        say("\nThis server cannot hold a context, so there are no two policies to compare.")
    report = Report(runs, wrong, sweep, chosen, trace, journal)
    verdict(report)
    spans = read_otlp_json(trace)
    say("\nthe trace of one agent")
    say(render_tree(spans, trace_id=spans[0].trace_id))
    say(f"\ntrace    {trace}\njournal  {journal}   (check it: sostenuto replay {journal})")
    if options.json:
        say(json.dumps(summary(report)))
    return 1 if any(run.refused for run in runs) else 0
