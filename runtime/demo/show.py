"""The demo from beginning to end: run, compare, trace, tell."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from ...tracing import instrument, provider, read_otlp_json, render_tree
from ..engines.torch.engine import TorchEngine
from ..engines.torch.model import Model
from ..engines.torch.weights import locate
from ..host import Host
from .agents import Run, build, run_all
from .tasks import Task, load_tasks
from .tools import workshop
from .transcript import Tally, Transcript, play, read_transcript

PAGE_SHARE = 0.55
"""The default pool holds this share of what all agents end up with: enough for about half of them."""


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
    _say("loading the model (converted once, then cached) ...")
    model = Model.load(locate(options.model))
    pool = options.pool_tokens or _default_pool(len(tasks), options.rounds)
    _say(f"{model.name} | {len(tasks)} agents, {options.rounds} rounds at most | pool of {pool} tokens | {options.policy}")
    if options.model is None:
        _say("This model has 135M parameters: its constrained calls are valid, and often not wise. Try --model.")
    runs = _live(model, tasks, options, pool=pool, trace=trace, journal=journal)
    transcript = read_transcript(journal)
    _table(runs)
    tallies, sweep = _compare(model, transcript, pool)
    _verdict(tallies, sweep, runs)
    _trace(trace)
    _say(f"\ntrace    {trace}\njournal  {journal}   (sostenuto replay {journal})")
    if options.json:
        print(json.dumps(_summary(runs, tallies, sweep, trace, journal)))
    return 0


def _live(
    model: Model, tasks: tuple[Task, ...], options: Options, *, pool: int, trace: Path, journal: Path
) -> tuple[Run, ...]:
    tracer = provider(service_name="sostenuto-demo", trace_file=trace, otlp=False if options.otlp is None else options.otlp or True)
    with ExitStack() as stack:
        stack.callback(tracer.shutdown)
        stack.callback(instrument(tracer))
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sostenuto-workshop-")))
        tools = workshop(root)
        host = stack.enter_context(
            Host(TorchEngine(model, pool_tokens=pool), policy=options.policy, journal=journal)
        )
        agent = build(host, tools, rounds=options.rounds)
        return asyncio.run(run_all(agent, tasks, _progress))


def _progress(task: Task, node: str, message: BaseMessage) -> None:
    if isinstance(message, AIMessage):
        turn = message.response_metadata["sostenuto"]["turn"]
        calls = ", ".join(f"{call['name']}({_short(json.dumps(call['args'], ensure_ascii=False), 48)})" for call in message.tool_calls)
        _say(f"  {task.id:<8} {turn['reused_tokens']:>5} reused {turn['computed_tokens']:>5} computed  {calls or _short(str(message.text), 60)}")
    else:
        _say(f"  {task.id:<8} {'':>28}-> {_short(str(message.text), 60)}")


def _table(runs: tuple[Run, ...]) -> None:
    _say(f"\n{'agent':<10}{'turn':>5}{'prompt':>8}{'reused':>8}{'computed':>9}{'queued':>9}{'held':>7}  why")
    for run in runs:
        for number, turn in enumerate(run.turns, 1):
            held = f"{turn['held_s']:.0f} s" if turn["held_s"] else "-"
            computed = turn["computed_tokens"] + turn["recomputed_tokens"]
            why = turn["why"] + (f"; then held: {turn['hold_why']}" if turn["hold_why"] else "")
            _say(
                f"{run.task.id:<10}{number:>5}{turn['prompt_tokens']:>8}{turn['reused_tokens']:>8}{computed:>9}"
                f"{turn['queued_s']:>8.2f}s{held:>7}  {why}"
            )


def _compare(model: Model, transcript: Transcript, pool: int) -> tuple[dict[str, Tally], list[tuple[int, Tally, Tally]]]:
    """Both policies over the sweep of pools; the default pool's tallies come first."""
    largest = sum(max(len(turn.tokens) + len(turn.said) for turn in turns) for turns in transcript.values())
    page = model.shape.page
    everything = (largest // page + 2 * len(transcript) + 1) * page
    pools = sorted({pool, (pool + everything) // 2 // page * page, everything})
    _say("\nthe same transcript, the same pauses, under both policies (tokens counted where rows enter the forward pass)")
    _say(f"{'pool':>8}{'ours':>10}{'forgetful':>11}{'ratio':>8}")
    sweep = []
    for size in pools:
        ours, theirs = (
            play(model, policy, transcript, pool_tokens=size, told=lambda _: None) for policy in ("sostenuto", "forgetful")
        )
        sweep.append((size, ours, theirs))
        note = "   <- the pool of the run above" if size == pool else "   everything fits" if size == everything else ""
        ratio = theirs.computed_tokens / ours.computed_tokens
        _say(f"{size:>8}{ours.computed_tokens:>10}{theirs.computed_tokens:>11}{ratio:>8.2f}{note}")
    chosen = next(entry for entry in sweep if entry[0] == pool)
    return {"sostenuto": chosen[1], "forgetful": chosen[2]}, sweep


def _verdict(tallies: dict[str, Tally], sweep: list[tuple[int, Tally, Tally]], runs: tuple[Run, ...]) -> None:
    ours, theirs = tallies["sostenuto"], tallies["forgetful"]
    ratio = theirs.computed_tokens / ours.computed_tokens
    _say(
        f"\n{'':<12}{'prompt':>8}{'reused':>8}{'computed':>9}{'seconds':>9}\n"
        + "\n".join(
            f"{one.policy:<12}{one.prompt_tokens:>8}{one.reused_tokens:>8}{one.computed_tokens:>9}{one.wall_s:>9.1f}"
            for one in (ours, theirs)
        )
    )
    _say(f"\nforgetful computes {ratio:.2f} times as many tokens as sostenuto in a pool of {ours.pool_tokens}")
    valid, rejected = sum(run.calls for run in runs), sum(run.rejected + run.unread for run in runs)
    _say(f"tool calls: {valid} valid, {rejected} invalid (0 of them dispatched), {sum(run.repaired for run in runs)} repaired")


def _trace(path: Path) -> None:
    spans = read_otlp_json(path)
    _say("\nthe trace of one agent")
    _say(render_tree(spans, trace_id=spans[0].trace_id))


def _summary(
    runs: tuple[Run, ...], tallies: dict[str, Tally], sweep: list[tuple[int, Tally, Tally]], trace: Path, journal: Path
) -> dict[str, Any]:
    policies = {
        name: {
            "prompt_tokens": tally.prompt_tokens,
            "computed_tokens": tally.computed_tokens,
            "reused_tokens": tally.reused_tokens,
            "turns": tally.turns,
            "calls_valid": sum(run.calls for run in runs),
            "calls_invalid": sum(run.rejected + run.unread for run in runs),
            "calls_invalid_dispatched": 0,
            "wall_s": round(tally.wall_s, 3),
        }
        for name, tally in tallies.items()
    }
    return {
        "policies": policies,
        "sweep": [
            {"pool_tokens": size, "computed_ratio": round(theirs.computed_tokens / ours.computed_tokens, 4)}
            for size, ours, theirs in sweep
        ],
        "computed_ratio": round(tallies["forgetful"].computed_tokens / tallies["sostenuto"].computed_tokens, 4),
        "trace": str(trace),
        "journal": str(journal),
    }


def _default_pool(agents: int, rounds: int) -> int:
    # About 900 tokens of system text, tools and examples that all share, and some 350 a round for each agent.
    return int(900 + PAGE_SHARE * agents * rounds * 350) // 32 * 32


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _say(text: str) -> None:
    print(text, flush=True, file=sys.stdout)
