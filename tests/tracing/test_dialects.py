"""The exact words of every kind of span: the conventions', and Phoenix's and Langfuse's on demand."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import RetryPolicy
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult

from sostenuto.tracing import GraphTracer, ModelCall, instrument, model_span, names, work_span

ASK: Any = {"messages": [("user", "go")]}
THREAD: Any = {"configurable": {"thread_id": "t-1"}, "metadata": {"user_id": "u-1", "gen_ai.agent.version": "7"}}
TOLD = AIMessage(
    "done",
    id="m-1",
    response_metadata={"model_name": "scripted-1", "finish_reason": "stop"},
    usage_metadata={
        "input_tokens": 20,
        "output_tokens": 5,
        "total_tokens": 25,
        "input_token_details": {"cache_read": 12, "cache_creation": 3},
        "output_token_details": {"reasoning": 2},
    },
)

STARTS: dict[str, set[str]] = {
    "invoke_agent sums": {
        "gen_ai.operation.name",
        "gen_ai.agent.name",
        "gen_ai.agent.version",
        "gen_ai.conversation.id",
        "session.id",
        "langgraph.thread_id",
        "langgraph.resumed",
    },
    "superstep 1": {"langgraph.step", "langgraph.checkpoint_ns"},
    "run_step model": {
        "gen_ai.operation.name",
        "gen_ai.step.name",
        "gen_ai.conversation.id",
        "session.id",
        "langgraph.node",
        "langgraph.step",
        "langgraph.task.id",
        "langgraph.triggers",
        "langgraph.checkpoint_ns",
        "langgraph.path",
        "langgraph.visit",
    },
    "chat Scripted": {
        "gen_ai.operation.name",
        "gen_ai.provider.name",
        "gen_ai.request.model",
        "gen_ai.request.temperature",
        "gen_ai.request.stop_sequences",
        "gen_ai.conversation.id",
        "session.id",
    },
    "execute_tool add": {
        "gen_ai.operation.name",
        "gen_ai.tool.name",
        "gen_ai.tool.type",
        "gen_ai.tool.description",
        "gen_ai.tool.call.id",
        "gen_ai.conversation.id",
        "session.id",
    },
    "attempt 1": {"langgraph.attempt"},
    "prefill": {"sostenuto.prefill.tokens"},
}
"""What samplers see."""

ENDS: dict[str, set[str]] = {
    "invoke_agent sums": {"langgraph.steps", "langgraph.status", "langgraph.checkpoint_id.end"},
    "superstep 1": {"langgraph.step.tasks", "langgraph.step.nodes"},
    "run_step model": {"langgraph.status", "langgraph.attempts", "langgraph.goto"},
    "chat Scripted": {
        "gen_ai.response.model",
        "gen_ai.response.id",
        "gen_ai.response.finish_reasons",
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.reasoning.output_tokens",
    },
}
"""What is known later."""

OPENINFERENCE: dict[str, dict[str, Any]] = {
    "invoke_agent sums": {"openinference.span.kind": "AGENT", "agent.name": "sums", "user.id": "u-1"},
    "superstep 1": {"openinference.span.kind": "CHAIN"},
    "run_step model": {
        "openinference.span.kind": "CHAIN",
        "graph.node.id": "model",
        "graph.node.name": "model",
    },
    "chat Scripted": {
        "openinference.span.kind": "LLM",
        "llm.model_name": "scripted-1",
        "llm.provider": "scripted",
        "llm.invocation_parameters": '{"temperature": 0.5, "stop": ["END"]}',
        "llm.token_count.prompt": 20,
        "llm.token_count.completion": 5,
        "llm.token_count.total": 25,
        "llm.token_count.prompt_details.cache_read": 12,
        "llm.token_count.prompt_details.cache_write": 3,
        "llm.token_count.completion_details.reasoning": 2,
    },
    "execute_tool add": {
        "openinference.span.kind": "TOOL",
        "tool.name": "add",
        "tool.description": "Adds.",
        "tool.id": "add-1",
    },
    "attempt 1": {"openinference.span.kind": "CHAIN"},
    "prefill": {"openinference.span.kind": "CHAIN"},
}

LANGFUSE: dict[str, dict[str, Any]] = {
    "invoke_agent sums": {
        "langfuse.observation.type": "agent",
        "langfuse.trace.name": "sums",
        "user.id": "u-1",
    },
    "superstep 1": {"langfuse.observation.type": "span"},
    "run_step model": {"langfuse.observation.type": "chain"},
    "chat Scripted": {
        "langfuse.observation.type": "generation",
        "langfuse.observation.model.name": "scripted-1",
        "langfuse.observation.model.parameters": '{"temperature": 0.5, "stop": ["END"]}',
        "langfuse.observation.usage_details": json.dumps(
            {"input": 5, "output": 3, "input_cache_read": 12, "input_cache_creation": 3, "output_reasoning": 2}
        ),
    },
    "execute_tool add": {"langfuse.observation.type": "tool"},
    "attempt 1": {"langfuse.observation.type": "span"},
    "prefill": {"langfuse.observation.type": "span"},
}

Run = Callable[..., dict[str, dict[str, Any]]]


@pytest.fixture
def run(spans: Any, models: Any) -> Run:
    """One run with a span of every kind; the attributes of the first of each."""

    plain: Any = models["plain"]

    class Tuned(plain):  # type: ignore[misc]
        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            return super()._get_ls_params(stop=stop, **kwargs) | {
                "ls_provider": "scripted",
                "ls_model_name": "Scripted",
                "ls_temperature": 0.5,
                "ls_stop": ["END"],
            }

    @tool
    def add(a: int) -> int:
        """Adds."""
        with work_span("prefill", {names.PREFILL_TOKENS: 3}):
            return a + 1

    call = {"name": "add", "args": {"a": 1}, "id": "add-1"}
    first = AIMessage(
        "", tool_calls=[call], response_metadata=TOLD.response_metadata, usage_metadata=TOLD.usage_metadata
    )

    def go(**options: Any) -> dict[str, dict[str, Any]]:
        undo = instrument(options.pop("tracer_provider", spans.provider), **options)
        try:
            agent = create_agent(Tuned(answers=[first, TOLD]), [add], name="sums", checkpointer=InMemorySaver())
            agent.nodes["tools"].retry_policy = [RetryPolicy()]
            agent.invoke(ASK, THREAD)
        finally:
            undo()
        found: dict[str, dict[str, Any]] = {}
        for each in sorted(spans.all, key=lambda span: span.start_time):
            found.setdefault(each.name, dict(each.attributes))
        return found

    return go


def test_every_kind_of_span_says_exactly_what_the_table_says(run: Run) -> None:
    found = run()
    for name, start in STARTS.items():
        assert set(found[name]) == start | ENDS.get(name, set()), name
    for told in found.values():
        assert told.get("session.id") == told.get("gen_ai.conversation.id")
    chat = found["chat Scripted"]
    assert chat["gen_ai.usage.cache_creation.input_tokens"] == chat["gen_ai.usage.cache_write.input_tokens"] == 3


def test_samplers_see_what_is_known_at_the_start(run: Run) -> None:
    seen: dict[str, dict[str, Any]] = {}

    class Watching(Sampler):
        def should_sample(self, *args: Any, **told: Any) -> SamplingResult:
            name = told.get("name") or args[2]
            seen.setdefault(name, dict(told.get("attributes") or args[4]))
            return SamplingResult(Decision.DROP)

        def get_description(self) -> str:
            return "watching"

    run(tracer_provider=TracerProvider(sampler=Watching()))
    assert {name: set(seen[name]) for name in STARTS} == STARTS
    assert seen["run_step model"]["langgraph.node"] == "model"
    assert seen["run_step model"]["langgraph.step"] == 1
    assert seen["chat Scripted"]["gen_ai.operation.name"] == "chat"


@pytest.mark.parametrize(
    ("options", "tables"),
    [
        ({"openinference": True}, (OPENINFERENCE,)),
        ({"langfuse": True}, (LANGFUSE,)),
        ({"openinference": True, "langfuse": True}, (OPENINFERENCE, LANGFUSE)),
    ],
)
def test_a_dialect_adds_its_words_and_nothing_else(run: Run, options: Any, tables: Any) -> None:
    found = run(**options)
    for name, start in STARTS.items():
        more = {key: value for table in tables for key, value in table[name].items()}
        told = found[name]
        assert set(told) == start | ENDS.get(name, set()) | set(more), name
        assert {key: told[key] for key in more} == more


def test_a_node_names_the_one_that_started_it(run: Run, spans: Any) -> None:
    run(openinference=True)
    assert spans.one("run_step tools").attributes["graph.node.parent_id"] == "model"
    assert spans.named("run_step model")[1].attributes["graph.node.parent_id"] == "tools"


def test_only_the_outermost_graph_names_a_trace_for_langfuse(spans: Any, models: Any) -> None:
    inner = create_agent(models["plain"](answers=[AIMessage("hi")]), [], name="inner")

    @tool
    def ask() -> str:
        """Asks."""
        return str(inner.invoke(ASK)["messages"][-1].content)

    call = {"name": "ask", "args": {}, "id": "1"}
    outer = create_agent(
        models["plain"](answers=[AIMessage("", tool_calls=[call]), AIMessage("ok")]), [ask], name="outer"
    )
    undo = instrument(spans.provider, langfuse=True)
    try:
        outer.invoke(ASK)
    finally:
        undo()
    assert spans.one("invoke_agent outer").attributes["langfuse.trace.name"] == "outer"
    assert "langfuse.trace.name" not in spans.one("invoke_agent inner").attributes


def test_what_failed_has_langfuses_level(spans: Any) -> None:
    undo = instrument(spans.provider, langfuse=True)
    try:
        with pytest.raises(KeyError), model_span(ModelCall("m")):
            raise KeyError("k")
        with model_span(ModelCall("n")) as span:
            span.fail("tool_error")
    finally:
        undo()
    for name, error in (("chat m", "KeyError"), ("chat n", "tool_error")):
        told = spans.one(name).attributes
        assert told["langfuse.observation.level"] == "ERROR"
        assert told["langfuse.observation.status_message"] == told["error.type"] == error


def test_a_handler_alone_speaks_the_dialect_it_was_given(spans: Any, models: Any) -> None:
    agent = create_agent(models["plain"](answers=[AIMessage("hi")]), [], name="a")
    agent.invoke(ASK, {"callbacks": [GraphTracer(spans.provider, openinference=True, langfuse=True)]})
    agent.invoke(ASK, {"callbacks": [GraphTracer(spans.provider)]})
    first, second = spans.named("invoke_agent a")
    assert first.attributes["openinference.span.kind"] == "AGENT"
    assert first.attributes["langfuse.trace.name"] == "a"
    assert not [key for key in second.attributes if key.startswith(("openinference", "langfuse", "agent."))]


def test_the_names_are_those_of_the_conventions_package() -> None:
    from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as theirs
    from opentelemetry.semconv._incubating.metrics import gen_ai_metrics as metrics

    known = {value for each in (theirs, metrics) for value in vars(each).values() if isinstance(value, str)}
    newer = {
        "gen_ai.step.name",
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.invoke_workflow.duration",
        "gen_ai.invoke_agent.duration",
        "gen_ai.execute_tool.duration",
        "gen_ai.run_step.duration",
    }
    ours = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("gen_ai.")}
    assert ours - known - newer == set()
