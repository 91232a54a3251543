"""A trace that crosses HTTP: our engine's client passes it on, our server goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from langchain_core.messages import HumanMessage
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags, TraceState

from sostenuto.runtime.doors.langgraph import ChatSostenuto
from sostenuto.runtime.engines.openai import OpenAIEngine
from sostenuto.runtime.host import Host
from sostenuto.tracing import instrument

from ..conftest import idle

HELLO: Any = {"messages": [{"role": "user", "content": "Say hello."}], "model": "default", "max_tokens": 3}
CALLER = SpanContext(0xA, 0xB, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState([("vendor", "value")]))
UNSAMPLED = SpanContext(0xA, 0xB, is_remote=True, trace_flags=TraceFlags(0))
NONSENSE = (
    "nonsense",
    "00-00000000000000000000000000000000-000000000000000b-01",
    "00-0000000000000000000000000000000a-0000000000000000-01",
    "ff-0000000000000000000000000000000a-000000000000000b-01",
    "00-0000000000000000000000000000000a-000000000000000b",
)


class Spans:
    """What both sides recorded."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def all(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def chat(self, kind: SpanKind) -> ReadableSpan:
        """The model's span: a client's, or the one of the engine that does the work."""
        (found,) = [each for each in self.all if each.name.startswith("chat ") and each.kind is kind]
        return found

    def below(self, span: ReadableSpan) -> list[str]:
        """The names of its children."""
        return [each.name for each in self.all if each.parent and each.parent.span_id == span.context.span_id]


@pytest.fixture
def spans() -> Iterator[Spans]:
    kept = Spans()
    undo = instrument(kept.provider)
    yield kept
    undo()


@pytest.fixture
def client(door: str, quick: Host) -> Iterator[Host]:
    """A host whose engine is the server."""
    with Host(OpenAIEngine(f"{door}/v1", model=quick.engine.name)) as opened:
        yield opened
        assert idle(opened)


def test_one_trace_leads_from_a_callers_span_through_the_client_into_the_servers_engine(
    spans: Spans, client: Host, quick: Host
) -> None:
    model = ChatSostenuto(host=client, max_tokens=3)
    with trace.use_span(NonRecordingSpan(CALLER)):
        model.invoke([HumanMessage("Say hello.")])
    quick.loop.ask()  # its loop has told all it knows
    ours, theirs = spans.chat(SpanKind.CLIENT), spans.chat(SpanKind.INTERNAL)
    assert ours.parent is not None
    assert theirs.parent is not None
    assert (ours.parent.span_id, theirs.parent.span_id) == (CALLER.span_id, ours.context.span_id)
    assert {each.context.trace_id for each in spans.all} == {CALLER.trace_id}
    assert {"queue", "prefill", "decode"} <= set(spans.below(theirs))


def test_what_vendors_keep_in_the_trace_state_stays_there(spans: Spans, client: Host) -> None:
    with trace.use_span(NonRecordingSpan(CALLER)):
        ChatSostenuto(host=client, max_tokens=3).invoke("Say hello.")
    assert {each.context.trace_state.get("vendor") for each in spans.all} == {"value"}


def test_a_streamed_answer_stands_in_the_callers_trace_too(spans: Spans, client: Host) -> None:
    with trace.use_span(NonRecordingSpan(CALLER)):
        list(ChatSostenuto(host=client, max_tokens=3).stream("Say hello."))
    theirs = spans.chat(SpanKind.INTERNAL)
    assert theirs.parent is not None
    assert theirs.parent.span_id == spans.chat(SpanKind.CLIENT).context.span_id
    assert theirs.context.trace_id == CALLER.trace_id


async def test_calls_side_by_side_keep_their_traces_apart(spans: Spans, client: Host) -> None:
    model = ChatSostenuto(host=client, max_tokens=3)

    async def ask(caller: int) -> None:
        place = SpanContext(caller, caller, is_remote=True, trace_flags=TraceFlags(1))
        with trace.use_span(NonRecordingSpan(place)):
            await model.ainvoke("Say hello.")

    await asyncio.gather(ask(1), ask(2))
    found = [each for each in spans.all if each.name.startswith("chat ")]
    assert sorted((each.context.trace_id, each.kind.name) for each in found) == [
        (1, "CLIENT"),
        (1, "INTERNAL"),
        (2, "CLIENT"),
        (2, "INTERNAL"),
    ]


def test_an_unsampled_caller_is_sampled_on_neither_side(spans: Spans, client: Host) -> None:
    with trace.use_span(NonRecordingSpan(UNSAMPLED)):
        ChatSostenuto(host=client, max_tokens=3).invoke("Say hello.")
    assert spans.all == ()


def test_a_server_respects_what_a_foreign_client_says(spans: Spans, raw: httpx.Client) -> None:
    sampled, unsampled = f"00-{0xA:032x}-{0xB:016x}-01", f"00-{0xC:032x}-{0xD:016x}-00"
    for traceparent in (sampled, unsampled):
        headers = {"Traceparent": traceparent, "Tracestate": "vendor=value"}
        assert raw.post("/v1/chat/completions", json=HELLO, headers=headers).status_code == 200
    span = spans.chat(SpanKind.INTERNAL)
    assert span.parent is not None
    assert (span.context.trace_id, span.parent.span_id) == (0xA, 0xB)
    assert span.context.trace_state.get("vendor") == "value"
    assert {each.context.trace_id for each in spans.all} == {0xA}


@pytest.mark.parametrize("traceparent", NONSENSE)
def test_a_malformed_trace_context_begins_a_new_trace(spans: Spans, raw: httpx.Client, traceparent: str) -> None:
    response = raw.post("/v1/chat/completions", json=HELLO, headers={"traceparent": traceparent, "tracestate": "a=b"})
    assert response.status_code == 200
    span = spans.chat(SpanKind.INTERNAL)
    assert span.parent is None
    assert span.context.trace_id not in (0, 0xA)
    assert not span.context.trace_state


def test_a_client_without_a_trace_sends_none(client: Host, raw: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[httpx.Headers] = []
    send = httpx.AsyncClient.send

    async def sending(self: httpx.AsyncClient, request: httpx.Request, **given: Any) -> httpx.Response:
        sent.append(request.headers)
        return await send(self, request, **given)

    monkeypatch.setattr(httpx.AsyncClient, "send", sending)
    ChatSostenuto(host=client, max_tokens=3).invoke("Say hello.")
    assert sent
    assert not any("traceparent" in each for each in sent)
