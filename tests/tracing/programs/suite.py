"""The list of programs, and how one is run: without a tracer, then with it, and then judged.

from sostenuto.tests.tracing.programs import run
results = run(adapter=OURS)          # all of them; `python -m sostenuto.tests.tracing.programs` prints them
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, get_args

from .adapters import Adapter, Promise
from .checks import check
from .ground import Fault, Ground, Way
from .plain import plain

CHECKS = (
    *("result", "logs", "trace", "ended", "within", "graph", "nodes", "tool", "model"),
    *("probe", "inside", "ancestors", "nested", "caller", "status"),
    *get_args(Promise),
)


@dataclass(frozen=True, slots=True)
class Program:
    """A program in one way of running it."""

    name: str
    category: str
    body: Callable[[Ground], Any]
    way: Way
    least: str = "1.0"
    """The first LangGraph on which it can run."""
    raises: str = ""
    """The exception that it ends with, if it is meant to."""

    def __str__(self) -> str:
        return f"{self.category}: {self.name}"

    @property
    def runs_here(self) -> bool:
        here = tuple(int(each) for each in version("langgraph").split(".")[:2])
        return here >= tuple(int(each) for each in self.least.split("."))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a program with an instrumentor."""

    program: Program
    faults: Sequence[Fault]
    spans: int = 0

    @property
    def passed(self) -> bool:
        return not self.faults

    def told(self, adapter: Adapter) -> dict[str, Any]:
        """As plain data: for each check whether it passed; null for what was not promised."""
        failed = {each.check for each in self.faults}
        judged = [each for each in CHECKS if each not in get_args(Promise) or each in adapter.promises]
        return {
            "program": self.program.name,
            "category": self.program.category,
            "passed": self.passed,
            "spans": self.spans,
            "checks": {each: (each not in failed) if each in judged else None for each in CHECKS},
            "faults": [f"{each.check}: {each.text}" for each in self.faults],
        }


PROGRAMS: list[Program] = []


def program(
    category: str, *, ways: Sequence[Way] = ("sync",), least: str = "1.0", raises: str = ""
) -> Callable[[Callable[[Ground], Any]], Callable[[Ground], Any]]:
    """Adds a program to the list, once for each way; `async def` programs run in an event loop."""

    def add(body: Callable[[Ground], Any]) -> Callable[[Ground], Any]:
        name = getattr(body, "__name__", "?")
        chosen: Sequence[Way] = ("async",) if inspect.iscoroutinefunction(body) else ways
        for way in chosen:
            full = f"{name}[{way}]" if len(chosen) > 1 else name
            PROGRAMS.append(Program(full, category, body, way, least, raises))
        return body

    return add


BOTH: Sequence[Way] = ("sync", "async")


def judge(program: Program, adapter: Adapter) -> Verdict:
    """Runs a program without the instrumentor and with it, and says what is wrong."""
    bare = Ground(program.way)
    with _logged() as noise:
        expected = _outcome(program, bare)
    ground = Ground(program.way, adapter)
    undo = adapter.start(ground.provider)
    try:
        with _logged() as said:
            found = _outcome(program, ground)
    finally:
        undo()
    faults = check(ground, adapter)
    if (expected[1] if isinstance(expected, tuple) and expected[:1] == ("raised",) else "") != program.raises:
        faults.append(Fault("result", f"it does not do what it is meant to: {expected!r}"))
    if found != expected:
        faults.append(Fault("result", f"without: {expected!r}; with: {found!r}"))
    faults += [Fault("logs", each) for each in said if each not in noise]
    return Verdict(program, tuple(faults), len(ground.tally.began))


def run(adapter: Adapter, programs: Iterable[Program] | None = None) -> list[dict[str, Any]]:
    """The verdicts on these programs, else on all that can run with this LangGraph, as plain data."""
    chosen = PROGRAMS if programs is None else programs
    return [judge(each, adapter).told(adapter) for each in chosen if each.runs_here]


def _outcome(program: Program, ground: Ground) -> Any:
    """What a program returns or raises, in plain data."""
    try:
        found = program.body(ground)
        if inspect.iscoroutine(found):
            found = asyncio.run(found)
        return plain(found)
    except Exception as raised:  # whatever it raises is its result
        return "raised", type(raised).__name__, re.sub(r"\d+\.\d+", "#", str(raised))  # times differ
    finally:
        gc.collect(1)  # what was dropped just now ends now


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Whatever anybody logs at WARNING or above."""
    found: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(f"{record.name}: {record.getMessage()}")

    ear = Ear(logging.WARNING)
    logging.getLogger().addHandler(ear)
    try:
        yield found
    finally:
        logging.getLogger().removeHandler(ear)
