"""LangGraph with the tracer is LangGraph without it: its own conformance suite, and what its documentation teaches."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import validate
from langgraph.checkpoint.conformance.initializer import RegisteredCheckpointer
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from opentelemetry.trace import StatusCode

from sostenuto.tests.tracing.documented import EXAMPLES, Example
from sostenuto.tests.tracing.programs.ground import Ground
from sostenuto.tests.tracing.programs.plain import plain
from sostenuto.tracing import instrument

Saver = BaseCheckpointSaver[Any]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda each: each.__name__)
def test_a_documented_example_gives_the_same_both_ways(example: Example, caplog: Any) -> None:
    without = plain(example())
    ground = Ground("sync")
    undo = instrument(ground.provider)
    try:
        with caplog.at_level(logging.WARNING):
            found = plain(example())
    finally:
        undo()
    assert found == without
    assert plain(example()) == without, "after the undo, too"
    assert caplog.messages == []
    assert ground.tally.began.keys() == ground.tally.ended.keys() != set()
    assert [each.name for each in ground.tally.ended.values() if each.status.status_code is StatusCode.ERROR] == []


@asynccontextmanager
async def in_memory() -> AsyncIterator[Saver]:
    yield InMemorySaver()


SAVERS: dict[str, Callable[[], AbstractAsyncContextManager[Saver]]] = {
    "in memory": in_memory,
    "sqlite": lambda: AsyncSqliteSaver.from_conn_string(":memory:"),
}


async def conformance(name: str) -> dict[str, Any]:
    """What LangGraph's suite for checkpointers finds, capability by capability."""

    async def made() -> AsyncGenerator[Saver, None]:
        async with SAVERS[name]() as saver:
            yield saver

    report = await validate(RegisteredCheckpointer(name, made))
    return {
        capability: (result.detected, result.passed, result.tests_passed, result.tests_failed)
        for capability, result in report.results.items()
    }


@pytest.mark.parametrize("name", SAVERS)
async def test_langgraphs_conformance_suite_finds_the_same_both_ways(name: str) -> None:
    without = await conformance(name)
    undo = instrument(Ground("async").provider)
    try:
        assert await conformance(name) == without
    finally:
        undo()
    assert sum(passed for _, _, passed, _ in without.values()) > 0
