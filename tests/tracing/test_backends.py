"""The same trace by every way out: both of OTLP's protocols, file, terminal; and a collector that is not there."""

from __future__ import annotations

import io
import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span

from sostenuto.tracing import BadEndpoint, MissingExporter, Record, instrument, provider, read_otlp_json
from sostenuto.tracing import otlp as choosing
from sostenuto.tracing.records import traces

from .receiver import Receiver, receive_grpc, receive_http

ASK: Any = {"messages": [("user", "go")]}
RECEIVERS: dict[str, Callable[[], AbstractContextManager[Receiver]]] = {"http": receive_http, "grpc": receive_grpc}


@tool
def add(a: int, b: int) -> int:
    """Adds."""
    get_current_span().add_event("added", {"sum": a + b, "terms": [a, b]})
    return a + b


@tool
def double(a: int) -> int:
    """Doubles what is small."""
    if a > 2:
        raise ValueError("too large")
    return 2 * a


def run_agent(made: TracerProvider, model: Any) -> Any:
    """A cyclic agent whose last round fails, under a span that links to another trace."""
    tracer = made.get_tracer("a user")
    with tracer.start_as_current_span("before", attributes={"n": 2**60, "x": 0.1, "list": ["a", "b"]}) as before:
        pass
    undo = instrument(made)
    link = Link(before.get_span_context(), {"why": "it came first", "n": 1})
    try:
        with tracer.start_as_current_span("caller", kind=SpanKind.SERVER, links=[link]) as caller:
            caller.set_status(Status(StatusCode.OK))
            with pytest.raises(ValueError, match="too large"):
                create_agent(model, [add, double], name="sums").invoke(ASK)
            return model.said
    finally:
        undo()


def by_id(spans: list[Record]) -> list[Record]:
    return sorted(spans, key=lambda span: span.span_id)


@pytest.fixture
def model(models: Any, rounds: list[AIMessage]) -> Any:
    return models["plain"](answers=rounds)


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine says of OTLP is not what the tests say."""
    for name in ("ENDPOINT", "PROTOCOL", "HEADERS", "COMPRESSION", "TIMEOUT"):
        for kind in ("", "TRACES_"):
            monkeypatch.delenv(f"OTEL_EXPORTER_OTLP_{kind}{name}", raising=False)
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)


@pytest.mark.parametrize("protocol", RECEIVERS)
def test_an_agents_trace_arrives_whole(protocol: str, model: Any, tmp_path: Path) -> None:
    with RECEIVERS[protocol]() as receiver:
        made = provider("svc", otlp=f"{protocol}://127.0.0.1:{receiver.port}", trace_file=tmp_path / "t.jsonl")
        run_agent(made, model)
        made.shutdown()
        arrived = receiver.inbox.records
    assert by_id(arrived) == by_id(read_otlp_json(tmp_path / "t.jsonl"))  # ids, parents, times, links, events, status
    before, run = traces(arrived).values()
    ids = {span.span_id for span in run}
    assert [span.name for span in run if span.parent_id not in ids] == ["caller"]
    assert [(link.span_id, dict(link.attributes)) for link in run[0].links] == [
        (before[0].span_id, {"why": "it came first", "n": 1})
    ]
    assert before[0].attributes == {"n": 2**60, "x": 0.1, "list": ("a", "b")}
    assert {link.attributes["sostenuto.link"] for span in run[1:] for link in span.links} >= {"trigger", "visit"}
    assert [event.attributes for span in run for event in span.events if event.name == "added"] == [
        {"sum": each + 1, "terms": (each, 1)} for each in (1, 2, 3)
    ]
    assert {span.name for span in run if span.status == "error"} >= {"execute_tool double", "run_step tools"}
    assert run[0].status == "ok"
    assert {span.resource["service.name"] for span in arrived} == {"svc"}
    assert {span.scope for span in run} == {"a user", "sostenuto"}


@pytest.mark.parametrize("protocol", RECEIVERS)
def test_a_trace_compressed_by_the_standard_variable_arrives_too(
    protocol: str, model: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    with RECEIVERS[protocol]() as receiver:
        made = provider(otlp=f"{protocol}://127.0.0.1:{receiver.port}", trace_file=tmp_path / "t.jsonl")
        run_agent(made, model)
        made.shutdown()
        assert by_id(receiver.inbox.records) == by_id(read_otlp_json(tmp_path / "t.jsonl"))
        told = {headers.get("content-encoding") for headers in receiver.inbox.headers}
    assert protocol == "grpc" or told == {"gzip"}


def test_the_lines_of_a_trace_file_are_what_a_collector_takes_as_json(model: Any, tmp_path: Path) -> None:
    made = provider(trace_file=tmp_path / "t.jsonl")
    run_agent(made, model)
    made.shutdown()
    with receive_http() as receiver:
        for line in (tmp_path / "t.jsonl").read_bytes().splitlines():
            url, kind = f"http://127.0.0.1:{receiver.port}/v1/traces", {"Content-Type": "application/json"}
            with urlopen(Request(url, line, kind)) as answer:
                assert answer.status == 200
        assert receiver.inbox.records == read_otlp_json(tmp_path / "t.jsonl")


def send_one(**options: Any) -> None:
    made = provider(**options)
    with made.get_tracer("t").start_as_current_span("one"):
        pass
    made.shutdown()


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("", "/v1/traces"),
        ("/", "/v1/traces"),
        ("/v1/traces", "/v1/traces"),
        ("/api/public/otel", "/api/public/otel/v1/traces"),
        ("/api/public/otel/", "/api/public/otel/v1/traces"),
        ("/v1/traces?key=k", "/v1/traces?key=k"),
    ],
)
def test_an_http_address_is_a_base_unless_it_is_the_whole(given: str, path: str) -> None:
    """As OTEL_EXPORTER_OTLP_ENDPOINT is; a path of another end goes into OTEL_EXPORTER_OTLP_TRACES_ENDPOINT."""
    with receive_http() as receiver:
        send_one(otlp=f"http://127.0.0.1:{receiver.port}{given}")
        assert receiver.inbox.paths == [path]
        assert [span.name for span in receiver.inbox.records] == ["one"]


@pytest.mark.parametrize(
    ("variables", "protocol"),
    [
        ({}, "http"),
        ({"PROTOCOL": "http/protobuf"}, "http"),
        ({"PROTOCOL": "grpc"}, "grpc"),
        ({"TRACES_PROTOCOL": "grpc", "PROTOCOL": "http/protobuf"}, "grpc"),
    ],
)
def test_without_an_address_the_standard_variables_say_all(
    variables: dict[str, str], protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_EXPORTER_OTLP_{name}", value)
    with RECEIVERS[protocol]() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{receiver.port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
        send_one(otlp=True)
        assert [span.name for span in receiver.inbox.records] == ["one"]
        assert receiver.inbox.headers[0]["x-key"] == "secret"


def test_an_address_says_its_protocol_whatever_the_variables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with receive_http() as receiver:
        send_one(otlp=f"http://127.0.0.1:{receiver.port}")
        assert len(receiver.inbox.records) == 1


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1:4318", "localhost:4317", "ftp://h", "http://", "http://h:x", "grpc://h:4317/v1/traces", "grpc:h"),
        *("", "http://ho st:4318", "http://h\n:4318", 5, None, b"http://h:4318"),
    ],
)
def test_an_address_that_is_none_is_refused_at_once(address: Any) -> None:
    with pytest.raises(BadEndpoint, match=r"expected .*http://HOST:4318") as raised:
        provider(otlp=address)
    assert repr(address) in str(raised.value)


def test_a_protocol_that_nobody_here_speaks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
    with pytest.raises(BadEndpoint, match="OTEL_EXPORTER_OTLP_PROTOCOL=http/json"):
        provider(otlp=True)


@pytest.mark.parametrize(("address", "extra"), [("http://h:4318", "otlp"), ("grpc://h:4317", "otlp-grpc")])
def test_an_exporter_that_is_missing_is_named_with_its_extra(
    address: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for protocol in ("http", "grpc"):
        monkeypatch.setitem(sys.modules, f"opentelemetry.exporter.otlp.proto.{protocol}.trace_exporter", None)
    with pytest.raises(MissingExporter, match=rf"sostenuto\[{extra}\]"):
        provider(otlp=address)


@contextmanager
def free_port() -> Iterator[int]:
    """A port at which nobody listens: taken, so that nobody else can."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.mark.timeout(25)
@pytest.mark.parametrize("protocol", RECEIVERS)
def test_a_collector_that_is_not_there_changes_nothing_but_a_warning(
    protocol: str, model: Any, models: Any, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    untraced = models["plain"](answers=model.answers)
    with pytest.raises(ValueError, match="too large"):
        create_agent(untraced, [add, double], name="sums").invoke(ASK)
    with free_port() as port, caplog.at_level(logging.DEBUG):
        address = f"{protocol}://user:word@127.0.0.1:{port}"
        made = provider(otlp=address, trace_file=tmp_path / "t.jsonl", grace=0.3)
        assert run_agent(made, model) == untraced.said
        assert made.force_flush() is False
        made.shutdown()
        made.shutdown()
    assert len(read_otlp_json(tmp_path / "t.jsonl")) > 20
    (warning,) = [each for each in caplog.records if each.levelno >= logging.WARNING]
    assert warning.name == "sostenuto.tracing.sender"
    assert f"127.0.0.1:{port}" in warning.getMessage()
    assert "word" not in warning.getMessage()


def test_a_collector_that_refuses_is_told_of_once_with_what_it_said(caplog: pytest.LogCaptureFixture) -> None:
    with receive_http(status=400) as receiver:
        made = provider(otlp=f"http://127.0.0.1:{receiver.port}")
        for name in ("one", "two"):
            with made.get_tracer("t").start_as_current_span(name):
                pass
            made.force_flush()
        made.shutdown()
    (warning,) = caplog.records
    assert "code: 400" in warning.getMessage()
    assert "retrying" not in warning.getMessage()
    assert "The program goes on" in warning.getMessage()


class Stuck(SpanExporter):
    """An exporter whose collector never answers, until it is shut down."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Event(), threading.Event()

    def export(self, spans: Any) -> SpanExportResult:
        self.begun.set()
        self.over.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.over.set()


@pytest.mark.timeout(25)
def test_a_collector_that_never_answers_holds_up_no_end(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    monkeypatch.setattr("sostenuto.tracing.sender.exporter", lambda to: (stuck, choosing.HTTP))
    made = provider(otlp="http://h:4317", grace=0.1)
    with made.get_tracer("t").start_as_current_span("one"):
        pass
    made.shutdown()
    assert stuck.begun.is_set()
    assert stuck.over.is_set()  # ended by us: nothing else sets it
    (warning,) = caplog.records
    assert "no answer within 0.1 s" in warning.getMessage()


def test_where_no_thread_can_be_started_any_more_the_rest_is_sent_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the exit of the first releases of Python 3.12, for programs that forgot to shut down."""

    class Unable(threading.Thread):
        def start(self) -> None:
            if self.name == "sostenuto-spans":
                raise RuntimeError("can't create new thread at interpreter shutdown")
            super().start()

    with receive_http() as receiver:
        made = provider(otlp=f"http://127.0.0.1:{receiver.port}")
        with made.get_tracer("t").start_as_current_span("one"):
            pass
        monkeypatch.setattr(threading, "Thread", Unable)
        made.shutdown()
        assert [span.name for span in receiver.inbox.records] == ["one"]


def test_the_usual_mistake_with_a_port_is_named(caplog: pytest.LogCaptureFixture) -> None:
    for protocol, address in ((choosing.HTTP, "http://h:4317/v1/traces"), (choosing.GRPC, "h:4318")):
        assert "is usually OTLP over" in protocol.hint(address)
        assert protocol.hint("http://h:9999/v1/traces") == ""


def test_the_service_has_the_name_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert provider().resource.attributes["service.name"] == "sostenuto"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from outside")
    assert provider().resource.attributes["service.name"] == "from outside"
    assert provider("mine").resource.attributes["service.name"] == "mine"


def test_the_console_shows_a_trace_when_it_is_over(capsys: pytest.CaptureFixture[str]) -> None:
    made = provider(console=True)
    tracer = made.get_tracer("t")
    with tracer.start_as_current_span("outer"):
        with tracer.start_as_current_span("inner"):
            late = tracer.start_span("late")
        assert capsys.readouterr().err == ""
    shown = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[0] for line in shown[1:]] == ["outer", "└─ inner"]
    late.end()
    made.shutdown()
    assert "late (parent elsewhere)" in capsys.readouterr().err


def test_a_console_that_is_closed_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    made = provider(console=True)
    for stream in (None, closed):
        monkeypatch.setattr("sys.stderr", stream)
        with made.get_tracer("t").start_as_current_span("outer"):
            pass
    made.shutdown()


def test_the_console_keeps_no_more_than_it_can(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sostenuto.tracing.console.MOST_SPANS", 2)
    made = provider(console=True)
    tracer = made.get_tracer("t")
    with tracer.start_as_current_span("outer"):
        for name in ("one", "two", "three"):
            with tracer.start_as_current_span(name):
                pass
        assert "three" in capsys.readouterr().err
    made.shutdown()
