"""Traces that name the blocks of each prompt: kv-cache-tester's sessions (Weka) and Mooncake's requests."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from ...scheduler.simulator import Session, Workload
from .building import TOOL, Asked, Builder, Prompt
from .pauses import PEOPLE, TOOLS
from .reading import BadTrace, Row, objects, opened

WEKA = 64
"""Tokens of a block."""
MOONCAKE = 512
_SLACK = 2
"""The last blocks of a prompt that are named anew when it goes on: the last one was not full, and what closes a prompt
may reach into the one before."""
_UNFINISHED = "a prompt that differs from the one before only in its last two blocks goes on from it, answer included"
_CHAINED = "requests that extend an earlier one's blocks are its session's next call"


def weka(path: Path, granule: int) -> Workload:
    """Sessions as `{"session"}` and then one line a request, with real pauses."""
    return Workload("weka", _weka(path, granule), granule, (_UNFINISHED, "sub-agents are sessions of their own"))


def _weka(path: Path, granule: int) -> list[Session]:
    lines: dict[str, list[Row]] = {}
    size = WEKA
    for row, found in objects(path):
        if "session" in found:
            size = row.count("block_size", 1)
        else:
            lines.setdefault(row.text("sid"), []).append(row)
    build = Builder(granule, _SLACK * max(1, WEKA // granule))
    spreads: dict[str, int] = {}  # ids are a session's own; its sub-agents share them
    sessions = []
    for name, rows in lines.items():
        spread = spreads.setdefault(name.split("/")[0], len(spreads))
        asked = [_asked(row, size, granule, spread) for row in rows]
        for one, row in zip(asked, rows[1:], strict=False):
            after = row.text("after") if row.has("after") else "user"
            one.tools = (TOOL,) if after.startswith("tool") else ()
            one.pause = row.seconds("gap_s") if row.has("gap_s") else 0.0
        sessions.append(build.session(name, asked))
    return sessions


def _asked(row: Row, size: int, granule: int, spread: int = 0) -> Asked:
    tokens = row.count("in", 1)
    runs = tuple((spread << 32 | first, count) for first, count in _runs(row))
    return Asked(Blocks(runs, size, granule, tokens=tokens), row.count("out"))


def _runs(row: Row) -> tuple[tuple[int, int], ...]:
    runs = row.items("blk")
    for run in runs:
        if not (isinstance(run, list) and len(run) == 2 and all(type(one) is int and one >= 0 for one in run)):
            raise row.wrong("blk", "pairs of a first id and a count")
    return tuple((first, count) for first, count in runs)


class Blocks:
    """A prompt told by runs of block names, as granules.

    The name of a block says all that comes before it: of several that are one granule the last stands for them, and
    each part of one that is several gets a name of its own. A prompt has one granule at least.
    """

    __slots__ = ("_blocks", "_length", "_parts", "_runs", "_step")

    def __init__(self, runs: tuple[tuple[int, int], ...], size: int, granule: int, *, tokens: int) -> None:
        self._runs = runs or ((0, 1),)
        self._step, self._parts = max(1, granule // size), max(1, size // granule)
        self._blocks = sum(count for _, count in self._runs)
        whole = self._blocks // self._step * self._parts
        self._length = max(1, whole if self._parts == 1 else min(whole, tokens // granule))

    def __len__(self) -> int:
        return self._length

    def common(self, before: Prompt | None) -> int:
        if not isinstance(before, Blocks):
            return 0
        same = 0
        for (one, ones), (other, others) in zip(self._runs, before._runs, strict=False):
            if one != other:
                break
            same += min(ones, others)
            if ones != others:
                break
        return min(same // self._step * self._parts, len(self), len(before))

    def after(self, keep: int) -> tuple[int, ...]:
        if self._blocks < self._step:
            return self._names(self._blocks - 1)[keep:]
        first = keep // self._parts * self._step
        names = self._names(first)[self._step - 1 :: self._step]
        if self._parts > 1:
            names = tuple(name * self._parts + part for name in names for part in range(self._parts))
        return names[keep % self._parts :][: len(self) - keep]

    def _names(self, first: int) -> tuple[int, ...]:
        """Of the blocks from the one with this number on."""
        found: list[int] = []
        at = 0
        for name, count in self._runs:
            skip = max(0, first - at)
            found += range(name + skip, name + count)
            at += count
        return tuple(found)


def _ids(row: Row) -> list[int]:
    ids = row.items("hash_ids")
    if not all(type(one) is int and one >= 0 for one in ids):
        raise row.wrong("hash_ids", "whole numbers of at least 0")
    return ids


def runs_of(names: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Names as runs of a first one and a count."""
    runs: list[tuple[int, int]] = []
    for name in names:
        if runs and runs[-1][0] + runs[-1][1] == name:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((name, 1))
    return tuple(runs)


def weka_original(path: Path, granule: int) -> Workload:
    """One JSON file for each session, or a folder of them, as kv-cache-tester publishes them.

    A request that was made twice, streaming and not, counts once. Without `think_time`, which older files lack, the
    pause is the time between two requests.
    """
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise BadTrace(f"{path}: found no .json file in it; expected the sessions of kv-cache-tester")
    build = Builder(granule, _SLACK * max(1, WEKA // granule))
    sessions: list[Session] = []
    for spread, file in enumerate(files):
        with opened(file) as text:
            try:
                found = json.load(text)
            except json.JSONDecodeError as error:
                raise BadTrace(f"{file}, line {error.lineno} is no JSON ({error.msg})") from error
        if not isinstance(found, dict) or not isinstance(found.get("requests"), list):
            raise BadTrace(f'{file}, line 1: expected an object with a list of "requests"')
        name = str(found.get("id", file.stem))
        sessions += _original(Row(file, 1, found), name, build, spread)
    notes = (_UNFINISHED, "sub-agents are sessions of their own")
    return Workload("weka", sessions, granule, notes)


def _original(whole: Row, name: str, build: Builder, spread: int) -> Iterator[Session]:
    size = whole.count("block_size", 1) if whole.has("block_size") else WEKA
    rows: list[Row] = []
    nested = 0
    for number, found in enumerate(whole.items("requests"), 1):
        row = _request(whole, found, number)
        if isinstance(found.get("requests"), list):
            nested += 1
            inner = {"block_size": size, **found}
            yield from _original(Row(whole.path, whole.number, inner), f"{name}/agent_{nested}", build, spread)
            continue
        twin = bool(rows) and row.items("hash_ids") == rows[-1].items("hash_ids")
        if twin:
            rows.pop()
        rows.append(row)
    asked = []
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        runs = runs_of([spread << 32 | one for one in _ids(row)])
        one = Asked(Blocks(runs, size, build.granule, tokens=row.count("in", 1)), row.count("out"))
        if after is not None:
            one.tools = (TOOL,) if "tool_result" in after.items("input_types") else ()
            took = row.seconds("api_time") if row.has("api_time") else 0.0
            gap = after.seconds("t") - row.seconds("t") - took
            one.pause = after.seconds("think_time") if after.has("think_time") else max(0.0, gap)
        asked.append(one)
    if asked:
        yield build.session(name, asked)


def _request(whole: Row, found: Any, number: int) -> Row:
    if not isinstance(found, Mapping):
        raise whole.fault(f"request {number}: expected an object, found {type(found).__name__}")
    defaults: dict[str, Any] = {"input_types": [], "hash_ids": []}
    return Row(whole.path, whole.number, defaults | dict(found))


def mooncake(path: Path, granule: int, seed: int) -> Workload:
    """Requests with times and the names of their blocks, as published or as `{i, t_ms, in, out, blk}`.

    There are no sessions in it and no tools: a request is the next call of the one whose blocks it extends.
    """
    random = Random(f"mooncake pauses {seed}")
    build = Builder(granule, max(1, MOONCAKE // granule))
    ends: dict[int, int] = {}
    lines: list[list[Asked]] = []
    begun: list[float] = []
    for row, found in objects(path):
        ours = "blk" in found
        runs = _runs(row) if ours else runs_of(_ids(row))
        ids = [one for first, count in runs for one in range(first, first + count)]
        tokens = row.count("in" if ours else "input_length", 1)
        prompt = Blocks(runs, MOONCAKE, granule, tokens=tokens)
        one = Asked(prompt, row.count("out" if ours else "output_length"))
        # Its last block was not full: a request goes on from it if it has all the others.
        line = next((ends.pop(each) for each in reversed(ids[:-1]) if each in ends), None) if len(ids) > 1 else None
        if line is None:
            line = len(lines)
            lines.append([])
            begun.append(row.seconds("t_ms" if ours else "timestamp") / 1000)
        else:
            before = lines[line][-1]
            before.tools = (TOOL,) if random.random() < 0.7 else ()
            before.pause = (TOOLS if before.tools else PEOPLE)["agentic"](random)
        lines[line].append(one)
        if len(ids) > 2:
            ends[ids[-2]] = line
    first = min(begun, default=0.0)
    sessions = [
        build.session(f"m{number}", asked, at=at - first)
        for number, (asked, at) in enumerate(zip(lines, begun, strict=True))
    ]
    modelled = (
        "pauses are modelled: 70 % of tools (median 2 s, mean 5 s), the others of people (median 15 s, mean 30 s)"
    )
    return Workload("mooncake", sessions, granule, (_CHAINED, modelled), timed=True)
