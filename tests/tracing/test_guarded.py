"""Samplers and processors that raise: the program goes on, and other spans do."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler

from sostenuto.tracing import guarded, instrument

ASK: Any = {"messages": [("user", "go")]}


class Broken(Exception):
    """What a program's own part raises."""


class Picky(Sampler):
    """Raises for one kind of span."""

    def should_sample(self, parent_context: Any, trace_id: int, name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("run_step"):
            raise Broken(name)
        return ALWAYS_ON.should_sample(parent_context, trace_id, name, *args, **kwargs)

    def get_description(self) -> str:
        return "picky"


class AtStart(SpanProcessor):
    """Raises whenever a span starts."""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        raise Broken(span.name)


class AtEnd(SpanProcessor):
    """Raises whenever a span ends."""

    def on_end(self, span: Any) -> None:
        raise Broken(span.name)


@tool
def double(a: int) -> int:
    """Doubles."""
    return 2 * a


@pytest.fixture
def agent(models: Any) -> Any:
    """One call of a tool, and an answer."""
    call = {"name": "double", "args": {"a": 3}, "id": "c"}
    return create_agent(models["plain"](answers=[AIMessage("", tool_calls=[call]), AIMessage("6")]), [double])


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarded, "_told", set())


def traced_run(agent: Any, made: TracerProvider, *last: SpanProcessor) -> tuple[int, list[str]]:
    """How many messages came of the run, and the names of the spans that ended."""
    kept = InMemorySpanExporter()
    for each in (SimpleSpanProcessor(kept), *last):
        made.add_span_processor(each)
    undo = instrument(made)
    try:
        said = len(agent.invoke(ASK)["messages"])
    finally:
        undo()
    assert trace.get_current_span() is trace.INVALID_SPAN
    return said, sorted(each.name.split()[0] for each in kept.get_finished_spans())


def test_a_sampler_that_raises_costs_its_spans_alone(agent: Any, caplog: pytest.LogCaptureFixture) -> None:
    said, names = traced_run(agent, TracerProvider(sampler=Picky()))
    assert said == 4
    assert set(names) == {"invoke_agent", "superstep", "chat", "execute_tool"}
    (warning,) = caplog.records
    assert (warning.levelno, warning.exc_info and warning.exc_info[0]) == (logging.WARNING, Broken)


def test_a_processor_that_raises_as_spans_start_costs_them(agent: Any) -> None:
    said, names = traced_run(agent, TracerProvider(), AtStart())
    assert (said == 4, names) == (True, [])


def test_a_processor_that_raises_as_spans_end_takes_nothing_from_those_before_it(
    agent: Any, caplog: pytest.LogCaptureFixture
) -> None:
    whole = traced_run(agent, TracerProvider())
    assert traced_run(agent, TracerProvider(), AtEnd()) == whole
    assert len(whole[1]) == 10
    assert len(caplog.records) == 1


def test_what_cannot_be_started_stands_for_its_parent() -> None:
    provider = TracerProvider(sampler=Picky())
    parent = provider.get_tracer("t").start_span("above")
    context = trace.set_span_in_context(parent)
    made = guarded.stand_in("run_step a", context, Broken())
    assert made.get_span_context() == parent.get_span_context()
    assert not made.is_recording()
    guarded.end(made)
    guarded.end(parent, at=7)
    assert getattr(parent, "end_time", None) == 7
