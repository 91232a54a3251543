"""What is wrong with a request is said in OpenAI's form; what came with it leaves nothing behind."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai import (
    APIError,
    AuthenticationError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)

from sostenuto.runtime.doors.http import app, serve
from sostenuto.runtime.doors.http_wire import LONGEST_BODY
from sostenuto.runtime.host import Host

from ..conftest import Say, idle, smaller
from .conftest import WEATHER, Seen, Start

HELLO: Any = [{"role": "user", "content": "Say hello."}]
CHAT = "/v1/chat/completions"


def answered(response: httpx.Response) -> dict[str, Any]:
    """The error in a response, which must have OpenAI's form."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"n": 0}, "n"),
        ({"n": 1000}, "n"),
        ({"seed": 2**80}, "seed"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_completion_tokens"),
        ({"stop": [1]}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"logprobs": 3}, "logprobs"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logit_bias": {"50": 3}}, "logit_bias"),
        ({"timeout": 0}, "timeout"),
        ({"session_id": 7}, "session_id"),
        ({"session_id": "a\nb"}, "session_id"),
        ({"session_id": "a" * 300}, "session_id"),
        ({"hints": {"clsoe": True}}, "hints.clsoe"),
        ({"hints": []}, "hints"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": ["hello"]}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "1"}]}]}, "messages[0].tool_calls[0].function.name"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_object"}, "tools": [WEATHER]}, "response_format"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"return_token_ids": True}, "return_token_ids"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"tools": {"name": "f"}}, "tools"),
    ],
)
def test_a_field_that_is_wrong_is_named(raw: httpx.Client, given: dict[str, Any], param: str) -> None:
    response = raw.post(CHAT, json={"model": "default", "messages": HELLO, **given})
    assert response.status_code == 400
    error = answered(response)
    assert (error["type"], error["param"]) == ("invalid_request_error", param)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "no spaces"),
        ({"tools": [WEATHER, WEATHER]}, "two tools"),
        ({"tools": [WEATHER], "tool_choice": "get_news"}, "get_news"),
        ({"tool_choice": "required"}, "required"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}}, "schema at"),
        ({"messages": [{"role": "user", "content": "word " * 9000}]}, "shorten"),
    ],
)
def test_what_the_model_cannot_be_asked_is_said(raw: httpx.Client, given: dict[str, Any], told: str) -> None:
    response = raw.post(CHAT, json={"model": "default", "messages": HELLO, **given})
    assert response.status_code == 400
    assert told in answered(response)["message"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b"\xff\xfe",
        b'"\\ud800"',
        b"[" * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused(raw: httpx.Client, body: bytes) -> None:
    response = raw.post(CHAT, content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    answered(response)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken_so_that_no_web_page_can_ask(raw: httpx.Client, kind: str) -> None:
    body = json.dumps({"model": "default", "messages": HELLO})
    response = raw.post(CHAT, content=body, headers={"content-type": kind})
    assert (response.status_code, answered(response)["code"]) == (415, "not_json")


def test_a_body_without_end_is_cut_off(raw: httpx.Client) -> None:
    def without_end() -> Any:
        yield b'{"messages": "'
        for _ in range(LONGEST_BODY // 2**16 + 1):
            yield b"x" * 2**16

    response = raw.post(CHAT, content=without_end(), headers={"content-type": "application/json"})
    assert (response.status_code, answered(response)["code"]) == (413, "too_large")


def test_fields_that_nobody_knows_are_ignored_as_openai_does(client: OpenAI, say: Say) -> None:
    say("Hi.")
    told = client.chat.completions.create(model="default", messages=HELLO, user="me", extra_body={"novelty": [1]})
    assert told.choices[0].message.content == "Hi."


def test_nulls_are_no_values(client: OpenAI, say: Say) -> None:
    say("Hi.")
    nothing: Any = dict.fromkeys(
        ("temperature", "tools", "tool_choice", "stop", "seed", "n", "max_tokens", "stream", "stream_options", "hints")
    )
    told = client.chat.completions.create(model="default", messages=HELLO, extra_body=nothing)
    assert told.choices[0].message.content == "Hi."


def test_an_unknown_model_is_not_found_and_the_served_one_is_named(client: OpenAI, quick: Host) -> None:
    with pytest.raises(NotFoundError, match=quick.engine.name) as raised:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert raised.value.code == "model_not_found"
    with pytest.raises(NotFoundError):
        client.models.retrieve("gpt-9")


def test_a_route_that_is_not_there_is_said_in_the_same_form(raw: httpx.Client) -> None:
    missing = raw.post("/v1/embeddings", json={})
    assert (missing.status_code, answered(missing)["message"]) == (404, "Not Found: POST /v1/embeddings")
    assert raw.get(CHAT).status_code == 405


def test_the_session_of_body_and_header_must_be_one(raw: httpx.Client) -> None:
    asked = {"model": "default", "messages": HELLO, "session_id": "a"}
    response = raw.post(CHAT, json=asked, headers={"x-session-id": "b"})
    assert (response.status_code, answered(response)["param"]) == (400, "session_id")


def test_keys_are_asked_for(start: Start, say: Say, quick: Host) -> None:
    say("Hi.")
    url = start(keys={"one": "anna"})
    for key in ("none", "anna", "one"):
        with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            if key == "one":
                assert client.chat.completions.create(model="default", messages=HELLO).choices
                assert client.models.list().data
            else:
                for ask in (client.models.list, lambda: client.completions.create(model="default", prompt="x")):
                    with pytest.raises(AuthenticationError) as raised:
                        ask()
                assert raised.value.code == "invalid_api_key"
    bare = httpx.get(f"{url}/v1/models")
    assert (bare.status_code, bare.headers["www-authenticate"]) == (401, "Bearer")
    assert httpx.delete(f"{url}/v1/sessions/x").status_code == 401
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize("keys", [{"": "anna"}, {"one": ""}, {"one": "an/na"}])
def test_keys_that_cannot_be_are_refused(quick: Host, keys: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="keys"):
        app(quick, keys=keys)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
def test_the_model_is_not_offered_to_everybody_by_mistake(quick: Host, bind: str) -> None:
    with pytest.raises(ValueError, match="keys"):
        serve(quick, bind=bind)


def test_an_answer_that_takes_too_long_is_a_timeout_that_is_not_tried_again(door: str, quick: Host) -> None:
    asked: list[httpx.Request] = []
    with OpenAI(base_url=f"{door}/v1", api_key="none", max_retries=2) as client:
        client._client.event_hooks["request"].append(asked.append)
        with pytest.raises(InternalServerError) as raised:
            client.chat.completions.create(
                model="default", messages=HELLO, max_tokens=2000, extra_body={"timeout": 1e-6}
            )
    assert (raised.value.status_code, raised.value.code) == (504, "too_late")
    assert len(asked) == 1
    assert idle(quick)


def test_whoever_comes_when_too_many_are_there_is_asked_to_come_again(start: Start, seen: Seen) -> None:
    with OpenAI(base_url=f"{start(most=2)}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(BadRequestError, match="at most 2"):
            client.chat.completions.create(model="default", messages=HELLO, n=3)
        stream = client.chat.completions.create(model="default", messages=HELLO, max_tokens=4000, stream=True)
        with pytest.raises(RateLimitError) as raised:
            client.chat.completions.create(model="default", messages=HELLO, n=2)
        assert raised.value.response.headers["retry-after"]
        stream.close()
        assert seen.over.acquire(timeout=60)
        assert client.chat.completions.create(model="default", messages=HELLO, n=2, max_tokens=1).choices


def test_a_host_that_is_closed_is_not_there_for_now(start: Start, quick: Host) -> None:
    with smaller(quick, 512) as small:
        url = start(host=small)
        assert httpx.get(f"{url}/health").json() == {"status": "ok"}
    response = httpx.post(f"{url}{CHAT}", json={"model": "default", "messages": HELLO})
    assert (response.status_code, answered(response)["code"]) == (503, "host_closed")
    assert httpx.get(f"{url}/health").status_code == 503


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_is_a_fault_of_the_server(
    raw: httpx.Client, quick: Host, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    def fail(step: object) -> None:
        raise ArithmeticError("nothing adds up")

    monkeypatch.setattr(quick.engine, "run", fail)
    response = raw.post(CHAT, json={"model": "default", "messages": HELLO, "stream": stream})
    monkeypatch.undo()
    assert (response.status_code, answered(response)["code"]) == (500, "engine_failed")
    assert "nothing adds up" in answered(response)["message"]
    assert idle(quick)


def test_what_fails_in_the_midst_of_a_stream_is_its_last_event(
    client: OpenAI, quick: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = client.chat.completions.create(model="default", messages=HELLO, max_tokens=2000, stream=True)
    next(stream)

    def fail(step: object) -> None:
        raise ArithmeticError("nothing adds up")

    monkeypatch.setattr(quick.engine, "run", fail)
    with pytest.raises(APIError, match="nothing adds up"):
        list(stream)
    monkeypatch.undo()
    assert idle(quick)


def test_an_error_of_one_answer_ends_the_others(client: OpenAI, quick: Host, seen: Seen) -> None:
    with pytest.raises(BadRequestError, match="shorten"):
        client.completions.create(model="default", prompt=["x", "word " * 9000], max_tokens=2000)
    assert idle(quick)
