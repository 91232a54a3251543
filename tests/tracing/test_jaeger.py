"""The demo's kind of trace in a real Jaeger v2, asked back by its query API.

Run with SOSTENUTO_JAEGER=http://127.0.0.1:16686 beside `docker compose -f examples/jaeger/compose.yaml up -d`.
Without it only the reader is checked, against a server of our own that answers in the same shape.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from sostenuto.tracing import (
    Happened,
    ModelCall,
    Open,
    Record,
    begin_span,
    instrument,
    model_span,
    names,
    provider,
    read_otlp_json,
    tell_span,
)
from sostenuto.tracing.records import traces

from .jaeger import Jaeger
from .receiver import receive_grpc, receive_http
from .v3_server import answer_as_v3

ASK: Any = {"messages": [("user", "go")]}
COMPOSE = Path(__file__).parents[2] / "examples" / "jaeger" / "compose.yaml"
JAEGER = os.environ.get("SOSTENUTO_JAEGER", "")


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    return a + b


@tool
def double(a: int) -> int:
    """Doubles."""
    return 2 * a


class Pretended:
    """What our engine would tell of its work: every call is held, and the next one goes on from it."""

    def __init__(self) -> None:
        self._hold: Open | None = None

    def __call__(self) -> None:
        now = time.time_ns()
        with model_span(ModelCall("tiny")) as call:
            call.set({names.KV_HIT_TOKENS: 96, names.KV_COMPUTED_TOKENS: 12, names.KV_WHY: "held"})
            preempted = Happened(names.PREEMPT, now, {names.KV_WHY: "room for another", names.KV_BLOCKS: 2})
            prefill = {names.PREFILL_TOKENS: 12}
            tell_span(names.PREFILL, prefill, under=call.context, begun=now, ended=now + 10, events=[preempted])
            if self._hold is not None:
                self.close("extended by the next turn")
                links = [(self._hold.context, "hold")]
                told = {names.KV_TOKENS: 108, names.KV_HIT_TOKENS: 96}
                tell_span(names.KV_RESTORE, told, under=call.context, begun=now, ended=now, links=links)
            self._hold = begin_span(names.KV_HOLD, {names.KV_TOKENS: 108}, under=call.context, begun=now + 20)

    def close(self, why: str) -> None:
        if self._hold is not None:
            self._hold.ended({names.KV_WHY: why}, at=time.time_ns())


def send(to: str, service: str, model: Any, file: Path) -> list[Record]:
    """Runs the agent; what it was, as the file has it."""
    made = provider(service, otlp=to, trace_file=file, grace=30)
    undo = instrument(made)
    try:
        create_agent(model, [add, double], name="sums").invoke(ASK)
        model.inside.close("its program finished")
    finally:
        undo()
        made.shutdown()
    return read_otlp_json(file)


def asked_back(jaeger: Jaeger, trace_id: str, count: int) -> list[Record]:
    """A trace when all of it is there: a Jaeger may store spans a little later than it takes them."""
    for _ in range(150):
        found = jaeger.trace(trace_id)
        if len(found) >= count:
            return found
        time.sleep(0.2)
    raise AssertionError(f"half a minute later {jaeger.url} has not the {count} spans of trace {trace_id}")


@pytest.fixture
def model(models: Any, rounds: list[AIMessage]) -> Any:
    return models["own"](answers=rounds, inside=Pretended())


@pytest.mark.skipif(not JAEGER, reason="SOSTENUTO_JAEGER does not say where a Jaeger is")
@pytest.mark.parametrize(("protocol", "port"), [("http", 4318), ("grpc", 4317)])
def test_jaeger_has_the_whole_trace(protocol: str, port: int, model: Any, tmp_path: Path) -> None:
    check(Jaeger(JAEGER), f"{protocol}://{urlsplit(JAEGER).hostname}:{port}", model, tmp_path / "t.jsonl")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_the_reader_that_asks_jaeger_reads_the_shape_of_its_answers(protocol: str, model: Any, tmp_path: Path) -> None:
    with ExitStack() as stack:
        receiver = stack.enter_context(receive_http() if protocol == "http" else receive_grpc())
        url = stack.enter_context(answer_as_v3(receiver.inbox))
        check(Jaeger(url), f"{protocol}://127.0.0.1:{receiver.port}", model, tmp_path / "t.jsonl")


def test_the_composed_jaeger_is_pinned_and_listens_on_this_machine_only() -> None:
    text = COMPOSE.read_text(encoding="utf-8")
    assert re.search(r"image: jaegertracing/jaeger:2\.\d+\.\d+$", text, re.M)
    ports = re.findall(r'^ *- "(.*)"', text, re.M)
    assert ports == [f"127.0.0.1:{port}:{port}" for port in (4317, 4318, 16686)]


def check(jaeger: Jaeger, to: str, model: Any, file: Path) -> None:
    """Parents, links, events and KV facts are those that were sent."""
    service = f"sostenuto-test-{uuid4().hex[:8]}"
    sent = send(to, service, model, file)
    (trace_id,) = traces(sent)
    found = {span.span_id: span for span in asked_back(jaeger, trace_id, len(sent))}
    assert len(found) == len(sent)
    for span in sent:
        there = found[span.span_id]
        assert (there.name, there.parent_id, there.kind) == (span.name, span.parent_id, span.kind)
        assert (there.start // 1000, there.end // 1000) == (span.start // 1000, span.end // 1000)
        assert {key: there.attributes[key] for key in told(span)} == told(span)
        assert [(link.trace_id, link.span_id, dict(link.attributes)) for link in there.links] == [
            (link.trace_id, link.span_id, dict(link.attributes)) for link in span.links
        ]
        assert [(event.name, dict(event.attributes)) for event in there.events] == [
            (event.name, dict(event.attributes)) for event in span.events
        ]
    holds = [span.span_id for span in sent if span.name == names.KV_HOLD]
    resumed = [link.span_id for span in found.values() if span.name == names.KV_RESTORE for link in span.links]
    assert len(holds) == 4
    assert resumed == holds[:3]
    asked(jaeger, service, trace_id, sent)


def told(span: Record) -> dict[str, Any]:
    """Facts of plain types: what is done to lists differs from storage to storage."""
    return {key: value for key, value in span.attributes.items() if isinstance(value, str | int)}


def asked(jaeger: Jaeger, service: str, trace_id: str, sent: list[Record]) -> None:
    """What the search page of its UI asks."""
    assert service in jaeger.services()
    assert {name for name, _ in jaeger.operations(service)} == {span.name for span in sent}
    first, last = min(span.start for span in sent), max(span.end for span in sent)
    finds = partial(jaeger.find, service, since=first - 10**9, until=last + 10**9)
    assert list(finds()) == [trace_id]
    assert list(finds(attributes={names.KV_WHY: "its program finished"})) == [trace_id]
    assert list(finds(attributes={names.KV_WHY: "nothing of the kind"})) == []
    assert jaeger.trace("0" * 31 + "1") == []
