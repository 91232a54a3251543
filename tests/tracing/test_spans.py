"""Spans that our own model and tools open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode

from sostenuto.tracing import ModelCall, ToolCall, model_span, names, tool_span, work_span

ASK: Any = {"messages": [("user", "go")]}
CALL = ModelCall("tiny", conversation="c", max_tokens=9, stop=("END",), facts={names.PROGRAM: "p"})


def test_a_model_span_has_what_was_asked_at_its_start_and_what_came_of_it_at_its_end(spans: Any) -> None:
    with model_span(CALL, tracer=spans.tracer) as span:
        span.set({names.INPUT_TOKENS: 40, names.OUTPUT_TOKENS: 5, names.CACHE_READ: 32})
        span.set({names.KV_HIT_TOKENS: 32, names.HOLD_WHY: "returns soon"})
    found = spans.one("chat tiny")
    assert found.kind is SpanKind.INTERNAL
    assert dict(found.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "sostenuto",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stop_sequences": ("END",),
        "gen_ai.conversation.id": "c",
        "session.id": "c",
        "sostenuto.program.id": "p",
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 32,
        "sostenuto.kv.hit_tokens": 32,
        "sostenuto.hold.why": "returns soon",
    }


def test_samplers_see_the_attributes_of_the_start() -> None:
    seen: list[dict[str, Any]] = []

    class Watching(Sampler):
        def should_sample(self, *args: Any, **told: Any) -> SamplingResult:
            seen.append(dict(told.get("attributes") or args[4]))
            return SamplingResult(Decision.DROP)

        def get_description(self) -> str:
            return "watching"

    tracer = TracerProvider(sampler=Watching()).get_tracer("t")
    with model_span(CALL, tracer=tracer) as span:
        span.set({names.INPUT_TOKENS: 1})
        span.event("seen")
        span.fail("x")
    assert seen[0]["gen_ai.request.model"] == "tiny"
    assert seen[0]["sostenuto.program.id"] == "p"


def test_the_ambient_span_is_the_parent_unless_one_is_given(spans: Any) -> None:
    with spans.tracer.start_as_current_span("given") as given:
        pass
    with spans.tracer.start_as_current_span("ambient"):
        with tool_span(ToolCall("a"), tracer=spans.tracer):
            pass
        with tool_span(ToolCall("b"), parent=given.get_span_context(), tracer=spans.tracer):
            with work_span("prefill", {names.KV_COMPUTED_TOKENS: 3}, tracer=spans.tracer) as work:
                assert work.context == trace.get_current_span().get_span_context()
    assert spans.tree() == ["given", "  execute_tool b", "    prefill", "ambient", "  execute_tool a"]


@pytest.mark.parametrize(("error", "outcome"), [(asyncio.CancelledError, "cancelled"), (GeneratorExit, "closed")])
def test_what_was_given_up_has_not_failed(spans: Any, error: type[BaseException], outcome: str) -> None:
    with pytest.raises(error), tool_span(ToolCall("t"), tracer=spans.tracer):
        raise error
    span = spans.one("execute_tool t")
    assert span.attributes["sostenuto.outcome"] == outcome
    assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_what_failed_says_how(spans: Any) -> None:
    with pytest.raises(KeyError), tool_span(ToolCall("t"), tracer=spans.tracer):
        raise KeyError("k")
    span = spans.one("execute_tool t")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "KeyError")
    assert span.attributes["error.type"] == "KeyError"
    assert [each.name for each in span.events] == ["exception"]


def test_a_signal_of_a_framework_is_no_failure(spans: Any) -> None:
    with pytest.raises(KeyError), tool_span(ToolCall("t"), tracer=spans.tracer, quiet=(KeyError,)):
        raise KeyError("k")
    assert spans.failed() == []
    assert spans.one("execute_tool t").events == ()


def test_without_a_tracer_nothing_is_recorded_and_nothing_becomes_current() -> None:
    with model_span(CALL) as span, tool_span(ToolCall("t")):
        span.set({"a": 1})
        span.event("e")
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert not span.context.is_valid


def test_our_own_model_stands_under_the_node_that_calls_it_and_in_its_conversation(traced: Any, models: Any) -> None:
    def inside() -> None:
        with model_span(ModelCall("ours")) as span:
            span.set({names.KV_HIT_TOKENS: 7})

    model = models["own"](answers=[AIMessage("hi")], inside=inside)
    agent = create_agent(model, [], name="a")
    agent.invoke(ASK, {"configurable": {"thread_id": "t-9"}})
    assert traced.path(traced.one("chat ours")) == [
        "invoke_agent a",
        "superstep 1",
        "run_step model",
        "chat ours",
    ]
    assert traced.one("chat ours").attributes["gen_ai.conversation.id"] == "t-9"
