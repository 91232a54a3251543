"""The demo from beginning to end: run, compare, trace, tell."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from langchain_core.messages import AIMessage, BaseMessage

from ...tracing import instrument, provider, read_otlp_json, render_tree
from ..engines.torch.engine import TorchEngine
from ..engines.torch.model import Model
from ..engines.torch.weights import locate
from ..errors import Refused
from ..host import Host
from .agents import Run, build, run_all
from .tasks import Task, load_tasks
from .tell import Report, progress, say, summary, table, verdict
from .tools import workshop
from .transcript import Comparison, Transcript, play, read_transcript

POOL_TOKENS = 2_432
"""The default pool: room for the longest of the default tasks' contexts, and for about half of all of them."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asked for."""

    model: str | None
    policy: str
    pool_tokens: int | None
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
    say("loading the model (the packaged one is converted once, then cached) ...")
    model = Model.load(locate(options.model))
    pool = options.pool_tokens or POOL_TOKENS
    say(f"{model.name} | {len(tasks)} agents, {options.rounds} rounds at most | pool: {pool} tokens | {options.policy}")
    if options.model is None:
        say("This model has 135M parameters: its constrained calls are valid, and often not wise. Try --model.\n")
    runs, wrong = _live(model, tasks, options, pool=pool, trace=trace, journal=journal)
    table(runs)
    transcript = read_transcript(journal)
    if not transcript:
        raise Refused(f"no agent could run in a pool of {pool} tokens: give it more with --pool-tokens")
    sweep = _compare(model, transcript, pool)
    report = Report(runs, wrong, sweep, next(one for one in sweep if one.pool_tokens == pool), trace, journal)
    verdict(report)
    spans = read_otlp_json(trace)
    say("\nthe trace of one agent")
    say(render_tree(spans, trace_id=spans[0].trace_id))
    say(f"\ntrace    {trace}\njournal  {journal}   (check it: sostenuto replay {journal})")
    if options.json:
        say(json.dumps(summary(report)))
    return 1 if any(run.refused for run in runs) else 0


def _live(
    model: Model, tasks: tuple[Task, ...], options: Options, *, pool: int, trace: Path, journal: Path
) -> tuple[tuple[Run, ...], int]:
    """All agents at once, and how many calls were dispatched that should not have been."""
    otlp: bool | str = False if options.otlp is None else options.otlp or True
    with ExitStack() as stack:
        tracer = provider(service_name="sostenuto-demo", trace_file=trace, otlp=otlp)
        stack.callback(tracer.shutdown)
        stack.callback(instrument(tracer))
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sostenuto-workshop-")))
        tools = workshop(root)
        engine = TorchEngine(model, pool_tokens=pool)
        host = stack.enter_context(Host(engine, policy=options.policy, journal=journal))
        agent = build(host, tools, rounds=options.rounds)

        def told(task: Task, message: BaseMessage) -> None:
            progress(task, message, answered=isinstance(message, AIMessage))

        runs = asyncio.run(run_all(agent, tasks, told))
        return runs, sum(run.invalid_dispatched(tools) for run in runs)


def _compare(model: Model, transcript: Transcript, pool: int) -> tuple[Comparison, ...]:
    """Both policies on the same transcript, over a sweep of pools from the default to one that holds everything."""
    page = model.shape.page
    ends = [max(len(turn.tokens) + len(turn.said) for turn in turns) for turns in transcript.values()]
    everything = sum(-(-end // page) + 2 for end in ends) * page
    say("\nThe same transcript with the same pauses under both policies; tokens computed, counted where rows enter the")
    say("forward pass:")
    say(f"{'pool':>10}{'sostenuto':>12}{'forgetful':>12}{'ratio':>8}")
    sweep = []
    for size in sorted({pool, pool * 5 // 4 // page * page, everything}):
        ours = play(model, "sostenuto", transcript, pool_tokens=size)
        theirs = play(model, "forgetful", transcript, pool_tokens=size)
        one = Comparison(size, ours, theirs)
        sweep.append(one)
        note = "  <- the run above" if size == pool else "  everything fits" if size == everything else ""
        say(f"{size:>10}{ours.computed_tokens:>12}{theirs.computed_tokens:>12}{one.ratio:>8.2f}{note}")
    return tuple(sweep)
