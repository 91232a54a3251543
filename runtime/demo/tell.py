"""What the demo prints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from ..doors.langgraph_messages import KEY
from .agents import Run
from .tasks import Task
from .transcript import Comparison


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the demo found out."""

    runs: tuple[Run, ...]
    invalid_dispatched: int
    sweep: tuple[Comparison, ...]
    chosen: Comparison | None
    """The comparison in the pool of the live run; None where there is nothing to compare."""
    trace: Path
    journal: Path

    @property
    def valid(self) -> int:
        """Calls that were dispatched and fit."""
        return sum(len(run.dispatched) for run in self.runs) - self.invalid_dispatched

    @property
    def invalid(self) -> int:
        """Calls that did not fit, or could not be read."""
        return sum(run.rejected + run.unread for run in self.runs) + self.invalid_dispatched


def say(text: str) -> None:
    """A line on standard output, at once."""
    print(text, flush=True)


def progress(task: Task, message: BaseMessage, *, answered: bool) -> None:
    """One message of an agent as it comes."""
    if answered and isinstance(message, AIMessage):
        turn = message.response_metadata[KEY]["turn"]
        calls = ", ".join(f"{call['name']}({_short(_json(call['args']), 50)})" for call in message.tool_calls)
        told = calls or _short(str(message.text), 60)
        say(
            f"  {_short(task.id, 22):<22}{turn['reused_tokens']:>6} reused{turn['computed_tokens']:>6} computed  {told}"
        )
    else:
        say(f"  {_short(task.id, 22):<22}{'':>29}-> {_short(str(message.text), 56)}")


def table(runs: tuple[Run, ...]) -> None:
    """A row for each agent and turn."""
    say(f"\n{'agent':<22}{'turn':>5}{'prompt':>8}{'reused':>8}{'computed':>9}{'pause':>9}  decision and why")
    for run in runs:
        for number, (turn, pause) in enumerate(zip(run.turns, run.pauses, strict=True), 1):
            computed = turn["computed_tokens"] + turn["recomputed_tokens"]
            held = (
                f"; then held {turn['held_s']:.0f} s at most: {turn['hold_why']}" if turn["held_s"] else "; then let go"
            )
            queued = f" after {turn['queued_s']:.1f} s in the queue" if turn["queued_s"] >= 0.05 else ""
            say(
                f"{_short(run.task.id, 22):<22}{number:>5}{turn['prompt_tokens']:>8}{turn['reused_tokens']:>8}"
                f"{computed:>9}{pause:>9}  {turn['why']}{queued}{held}"
            )
        if run.gave_up:
            say(f"{_short(run.task.id, 22):<22}{'-':>5}  gave up: {run.gave_up}")
        elif run.refused:
            say(f"{_short(run.task.id, 22):<22}{'-':>5}  refused: {run.refused}")


def verdict(report: Report) -> None:
    """Both policies in the pool of the live run, and the tool calls."""
    chosen = report.chosen
    if chosen is not None:
        say(f"\n{'policy':<12}{'prompt':>8}{'reused':>8}{'computed':>9}{'seconds':>9}")
        for one in (chosen.ours, chosen.theirs):
            counts = f"{one.prompt_tokens:>8}{one.reused_tokens:>8}{one.computed_tokens:>9}"
            say(f"{one.policy:<12}{counts}{one.wall_s:>9.1f}")
        source = "" if report.sweep else ", by what the server tells"
        told = f"`forgetful` computes {chosen.ratio:.2f} times as many tokens as `sostenuto`{source}"
        say(f"In a pool of {chosen.pool_tokens} tokens {told}.")
    repaired = sum(run.repaired for run in report.runs)
    say(
        f"Tool calls: {report.valid} valid, {report.invalid} invalid ({report.invalid_dispatched} of them dispatched), "
        f"{repaired} repaired."
    )


def summary(report: Report) -> dict[str, Any]:
    """The object that `--json` prints."""
    chosen = report.chosen
    policies = {
        tally.policy: {
            "prompt_tokens": tally.prompt_tokens,
            "computed_tokens": tally.computed_tokens,
            "reused_tokens": tally.reused_tokens,
            "turns": tally.turns,
            "calls_valid": report.valid,
            "calls_invalid": report.invalid,
            "calls_invalid_dispatched": report.invalid_dispatched,
            "wall_s": round(tally.wall_s, 3),
        }
        for tally in ((chosen.ours, chosen.theirs) if chosen is not None else ())
    }
    sweep = [{"pool_tokens": one.pool_tokens, "computed_ratio": round(one.ratio, 4)} for one in report.sweep]
    return {
        "policies": policies,
        "sweep": sweep,
        "computed_ratio": None if chosen is None else round(chosen.ratio, 4),
        "trace": str(report.trace),
        "journal": str(report.journal),
    }


def _short(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
