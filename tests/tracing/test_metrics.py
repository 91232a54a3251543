"""What is counted, with which attributes and in which buckets; and that it costs nothing where nobody counts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import ToolException, tool
from langgraph.graph import START, StateGraph
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from sostenuto.tracing import (
    GraphTracer,
    ModelCall,
    ToolCall,
    TurnNumbers,
    held,
    hold_ended,
    instrument,
    meters,
    model_span,
    record_turn,
    tool_span,
)

ASK: Any = {"messages": [("user", "go")]}
CHAT: Any = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "scripted", "gen_ai.request.model": "Scripted"}
NUMBERS = TurnNumbers(
    model="tiny",
    provider="sostenuto",
    seconds=2.5,
    queued=0.25,
    first_token=0.5,
    per_token=0.02,
    prompt=100,
    said=20,
    hit=64,
    computed=30,
    recomputed=6,
)
TINY: Any = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "sostenuto", "gen_ai.request.model": "tiny"}


class Counts:
    """What a provider was told."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def all(self) -> dict[str, Any]:
        """Metrics by name."""
        told = self._reader.get_metrics_data()
        resources = [] if told is None else told.resource_metrics
        return {each.name: each for one in resources for scope in one.scope_metrics for each in scope.metrics}

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The attributes of each point, and its sum or, of a histogram, how many values there were."""
        found = self.all()
        points = found[name].data.data_points if name in found else []
        told = [
            (dict(each.attributes), getattr(each, "count", None) or getattr(each, "value", None)) for each in points
        ]
        return sorted(told, key=repr)

    def sum(self, name: str, **only: Any) -> float:
        """The sum of a histogram's values."""
        points: list[Any] = self.all()[name].data.data_points
        return float(sum(each.sum for each in points if only.items() <= dict(each.attributes).items()))


@pytest.fixture
def counts() -> Iterator[Counts]:
    made = Counts()
    yield made
    made.provider.shutdown()


@pytest.fixture
def measured(spans: Any, counts: Counts) -> Iterator[Counts]:
    """LangGraph instrumented, with metrics that are kept."""
    undo = instrument(spans.provider, meter_provider=counts.provider)
    yield counts
    undo()


@pytest.fixture
def sums(rounds: Any, models: Any) -> Any:
    @tool
    def add(a: int, b: int) -> int:
        """Adds."""
        return a + b

    @tool
    def double(a: int) -> int:
        """Doubles, or does not."""
        raise ToolException("no")

    double.handle_tool_error = True
    return create_agent(models["plain"](answers=rounds), [add, double], name="sums")


def test_an_agents_run_is_counted_with_few_attributes(measured: Counts, sums: Any) -> None:
    sums.invoke(ASK, {"run_name": "run 17 of Ann"})
    step, run = "gen_ai.run_step.duration", "gen_ai.invoke_agent.duration"
    assert measured.points(run) == [({"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "sums"}, 1)]
    of_step = {"gen_ai.operation.name": "run_step"}
    assert measured.points(step) == [
        (of_step | {"gen_ai.step.name": "model"}, 4),
        (of_step | {"gen_ai.step.name": "tools"}, 6),
    ]
    of_tool = {"gen_ai.operation.name": "execute_tool"}
    assert measured.points("gen_ai.execute_tool.duration") == [
        (of_tool | {"gen_ai.tool.name": "add"}, 3),
        (of_tool | {"gen_ai.tool.name": "double", "error.type": "tool_error"}, 3),
    ]
    assert measured.points("gen_ai.client.operation.duration") == [(CHAT, 4)]
    assert measured.points("gen_ai.client.token.usage") == [
        (CHAT | {"gen_ai.token.type": "input"}, 3),
        (CHAT | {"gen_ai.token.type": "output"}, 3),
    ]
    assert measured.sum("gen_ai.client.token.usage", **{"gen_ai.token.type": "input"}) == 60
    assert measured.sum("gen_ai.client.token.usage", **{"gen_ai.token.type": "output"}) == 9


def test_what_failed_is_counted_as_failed_and_what_was_given_up_is_not(measured: Counts) -> None:
    for error in (KeyError, asyncio.CancelledError):
        with pytest.raises(error), model_span(ModelCall("tiny")):
            raise error
        with pytest.raises(error), tool_span(ToolCall("t")):
            raise error

    def fall(state: Any) -> Any:
        raise LookupError

    state: Any = dict
    graph: Any = StateGraph(state).add_node("fall", fall).add_edge(START, "fall").compile()
    with pytest.raises(LookupError):
        graph.invoke({})
    for name, kind in (
        ("gen_ai.client.operation.duration", "KeyError"),
        ("gen_ai.execute_tool.duration", "KeyError"),
        ("gen_ai.invoke_workflow.duration", "LookupError"),
        ("gen_ai.run_step.duration", "LookupError"),
    ):
        kinds = [told.get("error.type") for told, _ in measured.points(name)]
        assert kind in kinds
        assert set(kinds) <= {kind, None}
    assert len(measured.points("gen_ai.execute_tool.duration")) == 2


@pytest.mark.parametrize("way", ["sync", "async"])
def test_a_stream_tells_its_first_chunk_and_the_time_between_chunks(
    measured: Counts, spans: Any, models: Any, way: str
) -> None:
    model = models["streaming"](answers=[AIMessage("one two three")])

    async def consume() -> None:
        async for _ in model.astream("x"):
            pass

    asyncio.run(consume()) if way == "async" else list(model.stream("x"))
    (first,) = measured.points("gen_ai.client.operation.time_to_first_chunk")
    (each,) = measured.points("gen_ai.client.operation.time_per_output_chunk")
    assert (first[1], first[0]) == (1, each[0])
    assert each[1] >= 3
    (span,) = spans.all
    assert span.attributes["gen_ai.response.time_to_first_chunk"] == measured.sum(
        "gen_ai.client.operation.time_to_first_chunk"
    )


def test_a_turn_of_an_engine_is_counted_as_it_is_told(measured: Counts) -> None:
    record_turn(NUMBERS)
    record_turn(TurnNumbers("tiny", "sostenuto", 1.0, error="EngineFailed", first_token=0.5))
    duration, kv, tokens = "gen_ai.server.request.duration", "sostenuto.kv.tokens", "sostenuto.turn.tokens"
    assert measured.points(duration) == [(TINY | {"error.type": "EngineFailed"}, 1), (TINY, 1)]
    assert measured.sum(duration) == 3.5
    for name, value in (
        ("gen_ai.server.time_to_first_token", 0.5),
        ("gen_ai.server.time_per_output_token", 0.02),
        ("sostenuto.queue.duration", 0.25),
    ):
        assert measured.points(name) == [(TINY, 1)]
        assert measured.sum(name) == value
    kinds = {told["sostenuto.kv.kind"]: count for told, count in measured.points(kv)}
    assert kinds == {"hit": 64, "computed": 30, "recomputed": 6}
    types = {told["gen_ai.token.type"]: count for told, count in measured.points(tokens)}
    assert types == {"input": 100, "output": 20}


def test_what_an_engine_does_not_tell_is_not_counted_as_nothing(measured: Counts) -> None:
    record_turn(replace(NUMBERS, hit=None, computed=None, recomputed=None, queued=None))
    assert measured.points("sostenuto.kv.tokens") == []
    assert measured.points("sostenuto.queue.duration") == []
    assert len(measured.points("sostenuto.turn.tokens")) == 2


def test_holds_are_counted_from_before_anybody_looked(counts: Counts, spans: Any) -> None:
    held(7)
    undo = instrument(spans.provider, meter_provider=counts.provider)
    try:
        held(5)
        held(-4)
        hold_ended("resumed")
        hold_ended("expired")
        hold_ended("resumed")
        assert counts.points("sostenuto.kv.held_blocks") == [({}, 8)]
        assert counts.all()["sostenuto.kv.held_blocks"].data.is_monotonic is False
        assert counts.points("sostenuto.kv.holds") == [
            ({"sostenuto.hold.end": "expired"}, 1),
            ({"sostenuto.hold.end": "resumed"}, 2),
        ]
    finally:
        undo()
        held(-8)


def test_buckets_and_units_are_those_of_the_conventions(measured: Counts, models: Any) -> None:
    record_turn(NUMBERS)
    hold_ended("resumed")
    list(models["streaming"](answers=[AIMessage("one two", usage_metadata=_USED)]).stream("x"))
    found = measured.all()
    bounds = {name: tuple(each.data.data_points[0].explicit_bounds) for name, each in found.items() if _wide(each)}
    assert bounds["gen_ai.client.operation.duration"] == bounds["gen_ai.server.request.duration"]
    seconds = bounds["gen_ai.client.operation.duration"]
    assert (seconds[0], seconds[1], seconds[-1], len(seconds)) == (0.01, 0.02, 81.92, 14)
    assert bounds["gen_ai.client.token.usage"] == tuple(4**power for power in range(14))
    assert min(bounds["gen_ai.server.time_per_output_token"]) < 0.01
    units = {name: each.unit for name, each in found.items()}
    assert {unit for name, unit in units.items() if _wide(found[name])} == {"s", "{token}"}
    assert units["sostenuto.kv.holds"] == "{hold}"


def test_a_span_that_is_not_sampled_is_counted_all_the_same(counts: Counts, models: Any) -> None:
    undo = instrument(TracerProvider(sampler=ALWAYS_OFF), meter_provider=counts.provider)
    try:
        models["plain"](answers=[AIMessage("hi")]).invoke("x")
    finally:
        undo()
    assert counts.points("gen_ai.client.operation.duration")[0][1] == 1


def test_numbers_need_no_spans(counts: Counts, sums: Any) -> None:
    undo = instrument(meter_provider=counts.provider)
    try:
        sums.invoke(ASK)
    finally:
        undo()
    assert counts.points("gen_ai.invoke_agent.duration")[0][1] == 1
    assert counts.points("gen_ai.execute_tool.duration")[0][1] == 3
    assert counts.points("gen_ai.client.operation.duration")[0][1] == 4


def test_a_served_call_is_left_to_its_client_to_count(measured: Counts) -> None:
    with model_span(ModelCall("tiny", served=True)) as span:
        span.set({"gen_ai.usage.input_tokens": 3})
    assert measured.points("gen_ai.client.operation.duration") == []
    assert measured.points("gen_ai.client.token.usage") == []


def test_instruments_are_made_once_for_a_provider_and_only_when_used(spans: Any, monkeypatch: Any) -> None:
    made: list[str] = []

    class Meter(metrics.NoOpMeter):
        def create_histogram(self, name: str, *args: Any, **told: Any) -> Any:
            made.append(name)
            return super().create_histogram(name, *args, **told)

    class Provider(metrics.MeterProvider):
        def get_meter(self, name: str, *args: Any, **told: Any) -> Any:
            made.append("meter")
            return Meter(name)

    provider = Provider()
    for _ in range(2):
        undo = instrument(spans.provider, meter_provider=provider)
        for _ in range(3):
            with tool_span(ToolCall("t")):
                pass
        undo()
    assert made == ["meter", "gen_ai.execute_tool.duration"]


def test_where_no_provider_was_configured_nothing_is_made(spans: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(meters, "_pages", ())  # of other tests' servers
    assert meters.meters() == ()
    assert meters.watch("gen_ai.execute_tool.duration", {}) is meters.watch("anything", {})
    record_turn(NUMBERS)
    with model_span(ModelCall("tiny")) as span, tool_span(ToolCall("t")) as other:
        assert span is other
        span.set({"gen_ai.usage.input_tokens": 3})
        span.chunk()
    undo = instrument(spans.provider)  # spans, but no numbers
    try:
        with tool_span(ToolCall("t")):
            pass
    finally:
        undo()
    assert spans.tree() == ["execute_tool t"]


def test_a_handler_alone_counts_too(counts: Counts, spans: Any, sums: Any) -> None:
    sums.invoke(ASK, {"callbacks": [GraphTracer(spans.provider, meter_provider=counts.provider)]})
    assert counts.points("gen_ai.invoke_agent.duration")[0][1] == 1
    assert [count for _, count in counts.points("gen_ai.run_step.duration")] == [4, 6]
    assert {told["gen_ai.tool.name"] for told, _ in counts.points("gen_ai.execute_tool.duration")} == {"add", "double"}


_USED: Any = {"input_tokens": 20, "output_tokens": 2, "total_tokens": 22}


def _wide(metric: Any) -> bool:
    return hasattr(metric.data.data_points[0], "explicit_bounds")
