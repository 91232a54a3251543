"""Every program's spans are where its code ran, and it does the same as without a tracer; nothing stays behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from collections import Counter
from contextvars import copy_context
from typing import Any

import pytest
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry import context as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from sostenuto.tests.tracing.programs import CATEGORIES, OURS, PROGRAMS, Program, judge
from sostenuto.tests.tracing.programs.ground import Ground
from sostenuto.tests.tracing.programs.parts import EMPTY, chain
from sostenuto.tracing import instrument


@pytest.mark.parametrize("program", [each for each in PROGRAMS if each.runs_here], ids=str)
def test_a_program_is_traced_execution_by_execution(program: Program) -> None:
    verdict = judge(program, OURS)
    assert list(verdict.faults) == []


def test_there_are_programs_of_every_category_and_nearly_all_run_on_every_langgraph() -> None:
    bodies = {each.body: each for each in PROGRAMS}
    assert len(bodies) >= 66
    assert len({each.category for each in PROGRAMS}) == len(CATEGORIES)
    assert sum(each.least != "1.0" for each in bodies.values()) < len(bodies) / 10


def alive() -> Counter[str]:
    """What there is of spans, of the tracer's own objects, and of weak references."""
    gc.collect()
    found: Counter[str] = Counter()
    for each in gc.get_objects():
        kind = type(each)  # not `isinstance`, which may run code of foreign objects
        if issubclass(kind, ReadableSpan) or str(kind.__module__).startswith("sostenuto.tracing"):
            found[kind.__qualname__] += 1
        elif kind is weakref.ref:
            found["weak references"] += 1
    return found


class Runs:
    """A graph and the ways in which it is run, over and over."""

    def __init__(self) -> None:
        ground = Ground("async")

        async def wait(state: Any) -> Any:
            await asyncio.Event().wait()

        async def pass_on(state: Any) -> Any:
            return {"seen": ["x"]}

        plain = {name: (lambda state: {"seen": ["x"]}) for name in ("a", "b")}
        self.saver = InMemorySaver()
        self.sync: Any = chain(ground, "a", "b", **plain).compile(checkpointer=self.saver)
        self.waits: Any = chain(ground, "a", "b", a=pass_on, b=wait).compile()

    def round(self) -> None:
        """One run as it should be, and one whose stream is closed early."""
        config: Any = {"configurable": {"thread_id": "t"}}
        self.sync.invoke(EMPTY, config)
        self.saver.delete_thread("t")
        stream = self.sync.stream(EMPTY, config)
        next(stream)
        stream.close()
        self.saver.delete_thread("t")

    async def around(self) -> None:
        """One run whose stream is closed early, and one that is cancelled."""
        stream = self.waits.astream(EMPTY)
        await anext(stream)
        await stream.aclose()
        running = asyncio.create_task(self.waits.ainvoke(EMPTY))
        for _ in range(3):
            await asyncio.sleep(0)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def test_a_thousand_runs_leave_nothing_behind() -> None:
    runs, provider = Runs(), TracerProvider()
    undo = instrument(provider)

    async def loop(times: int) -> None:
        for _ in range(times):
            await runs.around()

    def some(times: int) -> None:
        for _ in range(times):
            runs.round()
        asyncio.run(loop(times))

    try:
        some(5)
        before, ambient, variables = alive(), otel.get_current(), len(copy_context())
        some(250)
        assert alive() - before == Counter()
        assert otel.get_current() is ambient
        assert len(copy_context()) == variables
    finally:
        undo()
        provider.shutdown()
