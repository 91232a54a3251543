"""What a server does beside answering: it counts, traces, keeps tenants apart, lets go of who left, and ends well."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any
from uuid import uuid4

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families

from sostenuto.runtime.doors import http
from sostenuto.runtime.doors.http import serve
from sostenuto.runtime.host import Host
from sostenuto.tracing import here, instrument, parent_of_headers, trace_headers

from ..conftest import Say, idle, said
from .conftest import WEATHER, Seen, Start

HELLO: Any = [{"role": "user", "content": "Say hello."}]
LONG: Any = {"model": "default", "messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": 4000}


def counts(url: str) -> dict[tuple[str, ...], float]:
    """A server's metrics by name and labels."""
    response = httpx.get(f"{url}/metrics")
    assert response.status_code == 200
    families = text_string_to_metric_families(response.text)
    return {(one.name, *one.labels.values()): one.value for family in families for one in family.samples}


def total(found: dict[tuple[str, ...], float], name: str, *labels: str) -> float:
    """The sum over everything of this name with these labels among its own."""
    return sum(value for (each, *told), value in found.items() if each == name and set(labels) <= set(told))


def test_the_model_is_listed_by_its_name(client: OpenAI, quick: Host, start: Start) -> None:
    (model,) = client.models.list().data
    assert (model.id, model.object, model.owned_by) == (quick.engine.name, "model", "sostenuto")
    assert client.models.retrieve("default").id == model.id
    with OpenAI(base_url=f"{start(name='house/model')}/v1", api_key="none") as other:
        assert [each.id for each in other.models.list().data] == ["house/model"]
        assert other.models.retrieve("house/model").id == "house/model"
        assert other.chat.completions.create(model="house/model", messages=HELLO, max_tokens=1).model == "house/model"


def test_a_server_counts_what_it_did(start: Start, say: Say, quick: Host) -> None:
    say(said("get_weather", city="Tokyo"))
    url = start()
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        tools: Any = [WEATHER]
        usage: Any = client.chat.completions.create(
            model="default", messages=HELLO, tools=tools, extra_body={"session_id": "counted"}
        ).usage
    httpx.post(f"{url}/v1/chat/completions", json={})
    httpx.get(f"{url}/secrets/of/mine")
    found = counts(url)
    requests = "http_server_request_duration_seconds_count"
    assert found[requests, "POST", "200", "/v1/chat/completions"] == 1
    assert found[requests, "POST", "400", "/v1/chat/completions"] == 1
    assert found[requests, "GET", "404", "other"] == 1
    tokens, kv = "sostenuto_turn_tokens_total", "sostenuto_kv_tokens_total"
    assert total(found, tokens, "input") == usage.prompt_tokens
    assert total(found, tokens, "output") == usage.completion_tokens
    assert total(found, kv, "hit") == usage.prompt_tokens_details.cached_tokens
    assert total(found, kv) == usage.prompt_tokens
    assert found["sostenuto_turns_in_flight",] == 0
    assert found["sostenuto_kv_held_blocks",] * quick.engine.page >= usage.prompt_tokens
    for name in ("server_time_to_first_token", "server_time_per_output_token", "server_request_duration"):
        assert total(found, f"gen_ai_{name}_seconds_count", quick.engine.name) == 1
    assert total(found, "sostenuto_queue_duration_seconds_count") == 1
    assert total(found, "gen_ai_client_operation_duration_seconds_count") == 0  # the client counts its own


def test_two_servers_of_one_host_count_apart(start: Start) -> None:
    one, other = start(), start()
    httpx.get(f"{one}/health")
    key = ("http_server_request_duration_seconds_count", "GET", "200", "/health")
    assert counts(one)[key] == 1
    assert key not in counts(other)


def test_tenants_share_no_context_and_no_session(start: Start, quick: Host, say: Say) -> None:
    anna, bert = f"anna-{uuid4()}", f"bert-{uuid4()}"
    url = start(keys={"one": anna, "two": bert})

    def ask(key: str) -> Any:
        with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            tools: Any = [WEATHER]
            told = client.chat.completions.create(
                model="default", messages=HELLO, tools=tools, extra_body={"session_id": "same"}
            )
            return told.usage.prompt_tokens_details.cached_tokens  # type: ignore[union-attr]

    say(*[said("get_weather", city="Tokyo")] * 3)
    assert [ask("one"), ask("two")] == [0, 0]
    assert ask("one") > 0
    assert set(quick.loop.kernel.books.programs) == {f"{anna}/same", f"{bert}/same"}
    httpx.delete(f"{url}/v1/sessions/same", headers={"authorization": "Bearer one"})
    quick.loop.ask()
    assert set(quick.loop.kernel.books.programs) == {f"{bert}/same"}


@pytest.mark.parametrize(("stream", "count"), [(False, 1), (False, 3), (True, 1), (True, 3)])
def test_who_leaves_takes_the_turn_along(client: OpenAI, quick: Host, seen: Seen, stream: bool, count: int) -> None:
    if stream:
        told: Any = client.chat.completions.create(**LONG, n=count, stream=True)
        next(told)
        told.close()
    else:
        asyncio.run(_leave(str(client.base_url), seen, count))
    assert seen.over.acquire(timeout=60)
    for _ in range(1000):  # of several questions some may not have been handed in: nobody knows how many
        httpx.get(f"{client.base_url}models")  # whatever the server had to do before this is done
        if seen.ended == seen.handed_in and idle(quick):
            return
    raise AssertionError(f"{seen.handed_in} begun, {seen.ended} ended, {quick.loop.ask()}")


async def _leave(url: str, seen: Seen, count: int) -> None:
    """Give up an answer that is on its way and of which nothing was told yet."""
    async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        asking = asyncio.create_task(client.chat.completions.create(**LONG, n=count))
        assert await asyncio.to_thread(seen.begun.acquire, timeout=60)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking


def test_who_leaves_while_the_question_is_on_its_way_in_takes_it_along(
    client: OpenAI, quick: Host, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    """Rendering takes as long as this test likes."""
    gate, ask = threading.Event(), quick.ask

    def slowly(wanted: Any) -> Any:
        seen.begun.release()
        gate.wait()
        return ask(wanted)

    monkeypatch.setattr(quick, "ask", slowly)
    asyncio.run(_leave(str(client.base_url), seen, 1))
    httpx.get(f"{client.base_url}models")  # whatever the server had to do about it is done
    gate.set()
    assert seen.over.acquire(timeout=60)
    assert idle(quick)


class Spans:
    """A provider that keeps its spans."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def named(self, start: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(start)]


def test_the_models_span_stands_under_the_callers(client: OpenAI, quick: Host, say: Say) -> None:
    say("Hi.", "Hello.", "Ho.")
    spans = Spans()
    undo = instrument(spans.provider)
    try:
        with spans.provider.get_tracer("a caller").start_as_current_span("caller"):
            place = here()
        assert place is not None
        headers = trace_headers(place)
        known = parent_of_headers(headers)
        assert known is not None
        assert (known.trace_id, known.span_id) == (place.trace_id, place.span_id)
        assert parent_of_headers({"traceparent": "nonsense"}) is None
        usage: Any = client.chat.completions.create(
            model="default", messages=HELLO, n=2, extra_headers=headers, extra_body={"session_id": "traced"}
        ).usage
        client.chat.completions.create(model="default", messages=HELLO)
    finally:
        undo()
    *under, alone = spans.named("chat ")
    assert len(under) == 2
    for span in under:
        assert span.parent is not None
        assert span.parent.span_id == place.span_id
        assert span.context.trace_id == place.trace_id
        told = dict(span.attributes or {})
        assert told["gen_ai.request.model"] == quick.engine.name
        assert told["gen_ai.conversation.id"] == "traced"
        assert told["gen_ai.usage.input_tokens"] == usage.prompt_tokens
        assert told["sostenuto.program.id"] == "default/traced"
    assert alone.parent is None


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_server_ends_at_a_signal_with_the_answers_on_their_way(quick: Host, sign: signal.Signals) -> None:
    """It is served on the test's own thread, as a program does."""
    told: list[str] = []

    def use(address: str) -> None:
        url = address.rpartition(" ")[2]
        with OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model="default", messages=HELLO, max_tokens=12, temperature=0, stream=True
            )
            next(stream)
            os.kill(os.getpid(), sign)
            told.append(str([chunk.choices[0].finish_reason for chunk in stream][-1]))

    users: list[threading.Thread] = []

    def ready(address: str) -> None:
        users.append(threading.Thread(target=use, args=(address,)))
        users[0].start()

    before = signal.getsignal(sign)
    serve(quick, port=0, ready=ready)
    users[0].join()
    assert told == ["length"]
    assert signal.getsignal(sign) is before
    assert idle(quick)


def test_an_address_that_is_taken_is_an_error_of_the_system(quick: Host, door: str) -> None:
    with pytest.raises(OSError, match="in use"):
        serve(quick, port=int(door.rpartition(":")[2]))


def test_the_address_is_printed_with_the_port_that_the_system_chose(
    quick: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uvicorn.Server.run", lambda server, sockets: None)
    serve(quick, port=0)
    name, _, url = capsys.readouterr().out.strip().rpartition(" on ")
    assert name == f"{quick.engine.name}, mode exact,"
    assert url.startswith("http://127.0.0.1:")
    assert url.endswith("/v1")
    assert not url.endswith(":0/v1")


def test_a_server_that_must_end_does_not_wait_for_ever(quick: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "GRACE_S", 0)
    seen: list[type] = []

    def use(address: str) -> None:
        with OpenAI(base_url=address.rpartition(" ")[2], api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(**LONG, stream=True)
            next(stream)
            os.kill(os.getpid(), signal.SIGTERM)
            with pytest.raises(Exception) as raised:  # noqa: PT011  # the connection breaks off, somehow
                list(stream)
            seen.append(raised.type)

    users: list[threading.Thread] = []

    def ready(address: str) -> None:
        users.append(threading.Thread(target=use, args=(address,)))
        users[0].start()

    serve(quick, port=0, ready=ready)
    users[0].join()
    assert len(seen) == 1
    assert idle(quick)
