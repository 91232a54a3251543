"""Traces that hold numbers only: TraceLab's sessions, SWE-agent's commands, Azure's requests."""

from __future__ import annotations

from pathlib import Path

from ...scheduler.simulator import Session, Workload
from .building import TOOL, Asked, Builder, Plain
from .reading import Row, objects, rows

_SYSTEM = 3000
"""Tokens of the first prompt of a session of which only the commands are known."""
_THOUGHT = 60


def tracelab(path: Path, granule: int) -> Workload:
    """TraceLab's workload table: one row a round, with what it keeps, appends and says, and the pause after it.

    Sessions are called `session_id` or `id`; they begin at `arrival_time` or `arrival_time_ms`, in milliseconds.
    """
    lines: dict[str, list[Row]] = {}
    for row in rows(path):
        lines.setdefault(row.text("session_id" if row.has("session_id") else "id"), []).append(row)
    build = Builder(granule)
    sessions, timed = [], False
    for name, found in lines.items():
        found.sort(key=lambda row: row.count("round_idx"))
        asked: list[Asked] = []
        context: tuple[int, ...] = ()
        for number, row in enumerate(found, 1):
            keep = min(row.count("prefix_len") // granule, len(context))
            context = (*context[:keep], *build.fresh.take(max(1, -(-row.count("input_len") // granule))))
            pause = row.seconds("tool_wait_after_ms") / 1000 if row.has("tool_wait_after_ms") else 0.0
            tools = (TOOL,) if number < len(found) else ()
            asked.append(Asked(Plain(context), row.count("output_len"), tools, pause))
            context += build.fresh.take(max(1, -(-row.count("output_len") // granule)))
        begins = next((key for key in ("arrival_time_ms", "arrival_time") if found[0].has(key)), None)
        at = 0.0 if begins is None else found[0].seconds(begins) / 1000
        timed = timed or at > 0
        sessions.append(build.session(name, asked, at=at))
    sessions.sort(key=lambda session: session.at)
    return Workload("tracelab", sessions, granule, ("waits of people are not told from those of tools",), timed=timed)


def tracelab_examples(path: Path, granule: int) -> Workload:
    """TraceLab's example sessions: tokens in, cached and out, and the tools of each step with their times."""
    lines: dict[str, list[Row]] = {}
    for row, _ in objects(path):
        lines.setdefault(row.text("sid"), []).append(row)
    build = Builder(granule)
    sessions = []
    for name, found in lines.items():
        asked: list[Asked] = []
        context: tuple[int, ...] = ()
        for row in found:
            whole, keep = max(1, row.count("in") // granule), min(row.count("cached") // granule, len(context))
            context = (*context[: min(keep, whole)], *build.fresh.take(max(1, whole - keep)))
            tools = [Row(row.path, row.number, tool) for tool in row.items("tools") if isinstance(tool, dict)]
            pause = max((tool.seconds("wall_ms") / 1000 for tool in tools), default=0.0)
            names = tuple(tool.text("name") for tool in tools)
            asked.append(Asked(Plain(context), row.count("out"), names, pause))
            context += build.fresh.take(max(1, -(-row.count("out") // granule)))
        sessions.append(build.session(name, asked))
    return Workload("tracelab-examples", sessions, granule, ("a person answers at once",))


def sweagent(path: Path, granule: int) -> Workload:
    """Shell commands with their times; the prompts around them are made up."""
    lines: dict[str, list[Row]] = {}
    for row, _ in objects(path):
        lines.setdefault(row.text("sid"), []).append(row)
    build = Builder(granule)
    sessions: list[Session] = []
    for name, found in lines.items():
        asked: list[Asked] = []
        context = build.fresh.take(max(1, _SYSTEM // granule))
        for row in found:
            out = _THOUGHT + len(row.text("cmd")) // 4
            tool = (row.text("cmd").split() or [TOOL])[0]
            asked.append(Asked(Plain(context), out, (tool,), row.seconds("exec_s")))
            context += build.fresh.take(-(-out // granule) + 1 + row.count("obs_chars") // 4 // granule)
        asked.append(Asked(Plain(context), _THOUGHT))
        sessions.append(build.session(name, asked))
    return Workload("sweagent", sessions, granule, (f"prompts are made up: {_SYSTEM} tokens and what commands gave",))


def azure(path: Path, granule: int) -> Workload:
    """Requests with times and lengths: sessions of one call, which share nothing."""
    build = Builder(granule)
    sessions = []
    for row in rows(path):
        prompt = build.fresh.take(max(1, -(-row.count("in") // granule)))
        sessions.append(
            build.session(f"a{row.number}", [Asked(Plain(prompt), row.count("out"))], at=row.seconds("t_s"))
        )
    sessions.sort(key=lambda session: session.at)
    return Workload("azure", sessions, granule, ("there are no sessions in it: nothing is reused",), timed=True)
