"""Trace files, providers and trees."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode

from sostenuto.tracing import (
    BadTraceFile,
    Facts,
    MissingExporter,
    ModelCall,
    Open,
    OtherProvider,
    OTLPJsonFile,
    Record,
    TracingError,
    Value,
    instrument,
    model_span,
    names,
    provider,
    read_otlp_json,
    records_of,
    render_tree,
)
from sostenuto.tracing.encode import encode

ASK: Any = {"messages": [("user", "go")]}


def write(path: Path) -> None:
    made = provider("svc", trace_file=path)
    tracer = made.get_tracer("t", "1")
    with tracer.start_as_current_span("first") as first:
        pass
    values: dict[str, Any] = {"i": 2**53 + 1, "f": 0.5, "n": math.inf, "b": True, "s": "ö", "l": [1, 2]}
    link = Link(first.get_span_context(), {"why": "x"})
    with (
        tracer.start_as_current_span("outer", kind=SpanKind.CLIENT, attributes=values, links=[link]) as outer,
        tracer.start_as_current_span("inner"),
    ):
        outer.add_event("e", {"k": 1})
        outer.set_status(Status(StatusCode.ERROR, "why"))
    made.shutdown()


def test_a_trace_file_gives_back_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl")
    first, inner, outer = read_otlp_json(tmp_path / "t.jsonl")
    assert (outer.name, outer.kind, outer.status, outer.message) == ("outer", "client", "error", "why")
    assert dict(outer.attributes) == {
        "i": 2**53 + 1,
        "f": 0.5,
        "n": math.inf,
        "b": True,
        "s": "ö",
        "l": (1, 2),
    }
    assert inner.parent_id == outer.span_id
    assert inner.trace_id == outer.trace_id != first.trace_id
    assert outer.parent_id is None
    assert outer.start <= inner.start <= inner.end <= outer.end
    assert [(each.name, dict(each.attributes)) for each in outer.events] == [("e", {"k": 1})]
    assert [(each.span_id, dict(each.attributes)) for each in outer.links] == [(first.span_id, {"why": "x"})]
    assert outer.resource["service.name"] == "svc"


def test_the_file_is_otlp_json_as_the_specification_writes_it(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl")
    line = (tmp_path / "t.jsonl").read_text().splitlines()[-1]
    (group,) = json.loads(line)["resourceSpans"]
    (scope,) = group["scopeSpans"]
    (span,) = scope["spans"]
    assert scope["scope"] == {"name": "t", "version": "1"}
    assert (len(span["traceId"]), len(span["spanId"])) == (32, 16)
    assert span["kind"] == 3
    assert isinstance(span["startTimeUnixNano"], str)
    assert {"key": "i", "value": {"intValue": str(2**53 + 1)}} in span["attributes"]
    assert {"key": "n", "value": {"doubleValue": "Infinity"}} in span["attributes"]
    assert span["status"] == {"code": 2, "message": "why"}


def test_the_file_agrees_with_opentelemetrys_own_encoder(spans: Any) -> None:
    encoder = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    json_format = pytest.importorskip("google.protobuf.json_format")
    with spans.tracer.start_as_current_span("a", attributes={"n": 1, "l": ["x"]}) as span:
        span.add_event("e")
    theirs = json_format.MessageToDict(encoder.encode_spans(spans.all))["resourceSpans"][0]["scopeSpans"][0]
    ours = encode(spans.all)["resourceSpans"][0]["scopeSpans"][0]
    (one,), (other,) = ours["spans"], theirs["spans"]
    assert one["attributes"] == other["attributes"]
    assert one["flags"] & 0x300 == other["flags"]  # theirs leaves out the W3C flags in the lower byte
    assert (one["startTimeUnixNano"], one["name"]) == (other["startTimeUnixNano"], other["name"])


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write(tmp_path / "t.jsonl")
    with open(tmp_path / "t.jsonl", "a") as file:
        file.write('\n{"resource')
    with pytest.raises(BadTraceFile, match="line 5"):
        read_otlp_json(tmp_path / "t.jsonl")
    (tmp_path / "u.jsonl").write_text("[1]\n")
    with pytest.raises(BadTraceFile, match="line 1"):
        read_otlp_json(tmp_path / "u.jsonl")


def end_spans(made: TracerProvider, *names: str) -> None:
    for name in names:
        made.get_tracer("t").start_span(name).end()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_a_full_disk_costs_spans_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    made = provider(trace_file="/dev/full")
    end_spans(made, "one", "two")
    made.shutdown()
    end_spans(made, "late")
    (warning,) = [each for each in caplog.records if each.name.startswith("sostenuto")]
    assert "spans could not be written to /dev/full: [Errno 28]" in warning.getMessage()


def test_where_a_line_was_broken_off_the_next_one_is_whole(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="this system has no limits")
    file = tmp_path / "t.jsonl"
    made = provider(trace_file=file)
    end_spans(made, "before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file.stat().st_size + 100, limits[1]))
    try:
        end_spans(made, "half", "none")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    end_spans(made, "after", "later")
    made.shutdown()
    faults: list[BadTraceFile] = []
    assert [each.name for each in read_otlp_json(file, faults=faults)] == ["before", "after", "later"]
    assert [each.line for each in faults] == [2]
    assert len(file.read_text().splitlines()[1]) == 100


def test_text_that_is_no_unicode_is_written_as_json_escapes_it(tmp_path: Path) -> None:
    made = provider(trace_file=tmp_path / "t.jsonl")
    end_spans(made, "half a smile: \ud83d")
    made.shutdown()
    (found,) = read_otlp_json(tmp_path / "t.jsonl")
    assert found.name == "half a smile: \ud83d"


def test_without_the_otlp_exporter_the_error_names_the_extra(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    with pytest.raises(MissingExporter, match=r"sostenuto\[otlp\]"):
        provider(otlp=True)


def test_otlp_goes_where_it_is_told(monkeypatch: Any) -> None:
    module = pytest.importorskip("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    told: list[str | None] = []
    real = module.OTLPSpanExporter

    def make(endpoint: str | None = None) -> Any:
        told.append(endpoint)
        return real(endpoint=endpoint)

    monkeypatch.setattr(module, "OTLPSpanExporter", make)
    provider(otlp="http://127.0.0.1:9/v1/traces").shutdown()
    provider(otlp=True).shutdown()
    assert told == ["http://127.0.0.1:9/v1/traces", None]


def test_an_agents_trace_goes_through_a_file_to_the_terminal(models: Any, rounds: Any, tmp_path: Path) -> None:
    def inside() -> None:
        with model_span(ModelCall("tiny")) as span:
            span.set({names.KV_HIT_TOKENS: 96, names.KV_COMPUTED_TOKENS: 12, names.OUTPUT_TOKENS: 5})

    made = provider(trace_file=tmp_path / "t.jsonl")
    undo = instrument(made)
    try:
        create_agent(models["own"](answers=[AIMessage("hi")], inside=inside), [], name="a").invoke(ASK)
    finally:
        undo()
        made.shutdown()
    drawn = render_tree(read_otlp_json(tmp_path / "t.jsonl")).splitlines()
    assert [each.split("  ")[0] for each in drawn[:1]] == ["invoke_agent a"]
    assert [line.strip().split(" ms")[0].rsplit("  ", 1)[0].strip() for line in drawn] == [
        "invoke_agent a",
        "└─ superstep 1",
        "└─ run_step model",
        "└─ chat tiny",
    ]
    assert drawn[-1].endswith("reused 96, computed 12, out 5")


def test_a_tree_shows_the_last_trace_and_marks_spans_whose_parent_is_elsewhere(spans: Any) -> None:
    other = TracerProvider().get_tracer("x")
    with spans.tracer.start_as_current_span("old"):
        pass
    with other.start_as_current_span("unseen"):
        with spans.tracer.start_as_current_span("a"):
            with spans.tracer.start_as_current_span("b"):
                pass
            with spans.tracer.start_as_current_span("c") as last:
                last.set_attribute("error.type", "Oops")
                last.set_status(Status(StatusCode.ERROR))
    records = records_of(spans.all)
    drawn = render_tree(records).splitlines()
    assert [line[:6] for line in drawn] == ["a (par", "├─ b  ", "└─ c  "]
    assert drawn[-1].endswith("ERROR Oops")
    old = next(each for each in records if each.name == "old")
    assert render_tree(records, old.trace_id).startswith("old")
    assert render_tree(records, "0" * 32) == render_tree([]) == ""


def test_a_provider_of_ones_own_may_write_the_same_file(tmp_path: Path) -> None:
    exporter = OTLPJsonFile(tmp_path / "t.jsonl")
    made = TracerProvider()
    made.add_span_processor(SimpleSpanProcessor(exporter))
    value: Value = 7
    facts: Facts = {names.KV_HIT_TOKENS: value}
    with model_span(ModelCall("m"), tracer=made.get_tracer("t")) as opened:
        assert isinstance(opened, Open)
        opened.set(facts)
    made.shutdown()
    record: Record
    (record,) = read_otlp_json(tmp_path / "t.jsonl")
    assert record.attributes[names.KV_HIT_TOKENS] == 7


@pytest.mark.parametrize("kind", [BadTraceFile, MissingExporter, OtherProvider])
def test_one_class_catches_every_fault_of_tracing(kind: type[Exception]) -> None:
    assert issubclass(kind, TracingError)
