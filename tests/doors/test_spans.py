"""The spans of agents over our model: one tree a run, with what became of the context on every call of the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sostenuto.runtime.doors.langgraph import ChatSostenuto, wrap
from sostenuto.tracing import instrument

from .conftest import Say, said

ASK: Any = {"messages": [("user", "Add 1 and 2, and double 4.")]}


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
def double(a: int) -> int:
    """Doubles."""
    return 2 * a


class Kept:
    """A provider that keeps its spans, and counts those that began."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> list[ReadableSpan]:
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def tree(self) -> list[str]:
        """One name a line, indented by two; what runs in parallel by its path or name."""

        def order(span: ReadableSpan) -> tuple[str, int, int]:
            return str((span.attributes or {}).get("langgraph.path", "")), span.start_time or 0, span.end_time or 0

        def lines(above: int | None, depth: int) -> Iterator[str]:
            here = [span for span in self.spans if (span.parent.span_id if span.parent else None) == above]
            for span in sorted(here, key=order):
                yield "  " * depth + span.name
                yield from lines(span.context.span_id, depth + 1)

        found = list(lines(None, 0))
        assert len(found) == len(self.spans), "a span whose parent was never ended"
        return found


def work(*spans: str) -> list[str]:
    """What the engine did for a call, as lines of a tree."""
    return [f"        {name}" for name in spans]


def sync(agent: Any) -> Any:
    return agent.invoke(ASK)


def in_a_loop(agent: Any) -> Any:
    return asyncio.run(agent.ainvoke(ASK))


def token_by_token(agent: Any) -> Any:
    for _ in agent.stream(ASK, stream_mode="messages"):
        assert trace.get_current_span() is trace.INVALID_SPAN


WAYS = pytest.mark.parametrize("run", [sync, in_a_loop, token_by_token])


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def agent(model: ChatSostenuto, say: Say) -> Any:
    """Two parallel calls, another one, and an answer."""
    say(said("add", a=1, b=2) + "\n" + said("double", a=4), said("double", a=3), "Done.")
    return wrap(create_agent(model, [add, double], name="sums"))


@WAYS
def test_a_run_is_a_tree_of_supersteps_nodes_calls_and_tools(
    kept: Kept, agent: Any, model: ChatSostenuto, run: Callable[[Any], Any]
) -> None:
    undo = instrument(kept.provider)
    run(agent)
    undo()
    chat = f"chat {model.served_by.engine.name}"
    assert kept.tree() == [
        "invoke_agent sums",
        "  superstep 1",
        "    run_step model",
        f"      {chat}",
        *work("queue", "prefill", "decode", "kv.hold"),
        "  superstep 2",
        "    run_step tools",
        "      execute_tool add",
        "    run_step tools",
        "      execute_tool double",
        "  superstep 3",
        "    run_step model",
        f"      {chat}",
        *work("queue", "kv.restore", "prefill", "decode", "kv.hold"),
        "  superstep 4",
        "    run_step tools",
        "      execute_tool double",
        "  superstep 5",
        "    run_step model",
        f"      {chat}",
        *work("queue", "kv.restore", "prefill", "decode"),
    ]
    assert trace.get_current_span() is trace.INVALID_SPAN


@WAYS
def test_calls_of_the_model_tell_what_became_of_the_context(kept: Kept, agent: Any, run: Callable[[Any], Any]) -> None:
    undo = instrument(kept.provider)
    run(agent)
    undo()
    told: list[dict[str, Any]] = [dict(span.attributes or {}) for span in kept.spans if span.name.startswith("chat ")]
    assert len({facts["sostenuto.program.id"] for facts in told}) == 1
    assert len({facts["sostenuto.turn.id"] for facts in told}) == 3
    for before, after in pairwise(told):
        known = before["gen_ai.usage.input_tokens"] + before["gen_ai.usage.output_tokens"] - 1
        assert after["sostenuto.kv.hit_tokens"] >= known
    for facts in told:
        assert facts["sostenuto.kv.hit_tokens"] == facts["gen_ai.usage.cache_read.input_tokens"]
        both = facts["sostenuto.kv.hit_tokens"] + facts["sostenuto.kv.computed_tokens"]
        assert both == facts["gen_ai.usage.input_tokens"]
        assert facts["sostenuto.policy"] == "sostenuto"
    assert ["sostenuto.hold.until" in facts for facts in told] == [True, True, False]


@WAYS
def test_a_wrapped_graph_has_its_calls_under_its_nodes_without_instrumentation(
    kept: Kept, agent: Any, model: ChatSostenuto, run: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: kept.provider)
    run(agent)
    chat = f"    chat {model.served_by.engine.name}"
    found = kept.tree()
    assert found[0] == "invoke_agent sums"
    assert found.count(chat) == 3
    assert [found[at - 1] for at, name in enumerate(found) if name == chat] == ["  run_step model"] * 3
    assert sorted(name for name in found if "execute_tool" in name) == [
        "    execute_tool add",
        "    execute_tool double",
        "    execute_tool double",
    ]
    assert trace.get_current_span() is trace.INVALID_SPAN


async def test_a_cancelled_run_leaves_no_span_open(kept: Kept, model: ChatSostenuto) -> None:
    undo = instrument(kept.provider)
    spoken = asyncio.Event()
    wordy = wrap(create_agent(model.model_copy(update={"max_tokens": 2000}), [add]))

    async def run() -> None:
        asked: Any = {"messages": [("user", "Tell me a story.")]}
        async for _ in wordy.astream(asked, stream_mode="messages"):
            spoken.set()

    task = asyncio.create_task(run())
    await spoken.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    model.served_by.loop.ask()  # the turn is given up by now
    undo()
    assert [line.strip().split()[0] for line in kept.tree()] == [
        *("invoke_agent", "superstep", "run_step", "chat"),
        *("constrain", "queue", "prefill", "decode"),
    ]


def test_a_replay_says_that_it_was_set_back_and_what_it_found_there(
    kept: Kept, agent: Any, model: ChatSostenuto, say: Say
) -> None:
    agent = agent.with_config()
    agent.checkpointer = InMemorySaver()
    undo = instrument(kept.provider)
    config: Any = {"configurable": {"thread_id": uuid4().hex}}
    agent.invoke(ASK, config)
    older = next(state for state in agent.get_state_history(config) if state.next == ("model",))
    kept.exporter.clear()
    say("Done again.")
    agent.invoke(None, older.config)
    undo()
    (back,) = [span for span in kept.spans if span.name == "kv.rollback"]
    (call,) = [span for span in kept.spans if span.name.startswith("chat ")]
    assert back.parent is not None
    assert back.parent.span_id == call.context.span_id
    facts, of_call = dict(back.attributes or {}), dict(call.attributes or {})
    assert facts["sostenuto.kv.hit_tokens"] == of_call["gen_ai.usage.input_tokens"] - 1  # type: ignore[operator]
    assert facts["sostenuto.kv.recomputed_tokens"] == 0
    (run,) = [span for span in kept.spans if span.name.startswith("invoke_agent")]
    assert (run.attributes or {})["langgraph.resumed"] == "replay"
