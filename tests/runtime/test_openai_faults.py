"""What an OpenAI-compatible server refuses, how often it is asked again, and what is never asked."""

from __future__ import annotations

import asyncio
import threading
import traceback
from typing import Any

import httpx
import pytest

from sostenuto.runtime.engines import openai
from sostenuto.runtime.engines.openai import OpenAIEngine, Patience
from sostenuto.runtime.errors import EngineFailed

from .openai_server import Reply, answer, mocked, refusal, replying, text, told

KEY = "sk-" + "secret" * 5


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (refusal(400, "too long"), r"/chat/completions with 400; .* extra_body .* \(it said: too long\)"),
        (refusal(401, "who are you"), "with 401; give the api_key that it expects .*who are you"),
        (refusal(403, "not you"), "with 403; .* not you"),
        (refusal(404, "no model tiny"), "with 404; look whether base_url is right .*no model tiny"),
        (refusal(429, "slow"), "with 429; .*lower `concurrent`.*slow"),
        (refusal(500, "ouch"), "with 500; look into its log .*ouch"),
        (refusal(418, "teapot"), "with 418; see what it says .*teapot"),
        (refusal(307, "", location="http://here/v1"), "with 307; it sends to http://here/v1, which base_url"),
        (Reply((b"<html>\n busy </html>",), 502, "text/html"), "with 502; .*<html> busy </html>"),
        (Reply((b"",), 502), "with 502; .*Bad Gateway"),
        (Reply((b"<html>",), 200, "text/html"), "answered with a page; look whether base_url .*text/html"),
        (Reply((b"data: " + b"a" * 2000,)), "more than 1000 characters"),
        (Reply((b"a" * 2000,), kind="application/json"), "more than 1000 bytes"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
async def test_a_refusal_says_what_the_server_said_and_what_to_do(
    monkeypatch: pytest.MonkeyPatch, reply: Reply, why: str
) -> None:
    monkeypatch.setattr(openai, "LONGEST_EVENT", 1000)
    handler, bodies = replying(reply)
    with pytest.raises(EngineFailed, match=f"the server http://there/v1: .*{why}"):
        await told(mocked(handler))
    assert len(bodies) == 1


async def test_a_server_that_says_nothing_is_given_up() -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("", request=request)

    with pytest.raises(EngineFailed, match="said nothing for 5 s; is it alive"):
        await told(mocked(silent, patience=Patience(silence=5)))


@pytest.mark.parametrize("listed", ['{"data": []}', "[]", "<html>", '{"data": [{"id": "a"}, {}]}'])
async def test_a_server_that_lists_no_model_wants_one_named(listed: str) -> None:
    with pytest.raises(EngineFailed, match="say which `model` is meant"):
        await told(mocked(lambda request: httpx.Response(200, text=listed), model=None))


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept; nobody sleeps."""
    slept: list[float] = []
    asleep, here = asyncio.sleep, threading.get_ident()

    async def sleep(seconds: float) -> None:
        if threading.get_ident() == here:
            slept.append(seconds)
        else:
            await asleep(seconds)  # a server of another test, which must not spin

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return slept


async def test_a_server_that_names_a_delay_is_asked_again_after_it(delays: list[float]) -> None:
    busy, soon = refusal(429, "slow", retry_after="7"), refusal(503, "loading", retry_after_ms="1500", retry_after="2")
    handler, bodies = replying(busy, soon, answer("hi"))
    assert text(await told(mocked(handler))) == "hi"
    assert delays == [7.0, 1.5]
    assert bodies[0] == bodies[2]


@pytest.mark.parametrize(
    ("delay", "slept"),
    [("2", [2.0, 2.0]), ("3600", []), ("-1", []), ("nan", []), ("Wed, 21 Oct 2026 07:28:00 GMT", [])],
)
async def test_a_server_is_asked_again_so_often_and_no_more(
    delays: list[float], delay: str, slept: list[float]
) -> None:
    handler, bodies = replying(refusal(429, "slow", retry_after=delay))
    with pytest.raises(EngineFailed, match="with 429") as failed:
        await told(mocked(handler, patience=Patience(retries=2)))
    assert delays == slept
    assert len(bodies) == len(slept) + 1
    assert ("asked again in 3600 s, and we wait up to 2 times, for at most 60 s each" in str(failed.value)) == (
        delay == "3600"
    )


async def test_whoever_waits_to_ask_again_can_be_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    asleep = asyncio.Event()

    async def sleep(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(asyncio, "sleep", sleep)
    handler, bodies = replying(refusal(429, "slow", retry_after="30"))
    waiting = asyncio.create_task(told(mocked(handler)))
    await asleep.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(bodies) == 1


async def test_the_key_is_not_shown_though_a_server_puts_it_into_an_address() -> None:
    handler, _ = replying(refusal(307, "", location=f"http://here/{KEY}"))
    with pytest.raises(EngineFailed, match=r"sends to http://here/\[key\], which"):
        await told(mocked(handler, api_key=KEY))


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"base_url": "localhost:8000/v1"}, "found no scheme or no host"),
        ({"base_url": "ftp://there/v1"}, "found no scheme or no host"),
        ({"base_url": "http://"}, "found no scheme or no host"),
        ({"base_url": "http://there:port/v1"}, "found no scheme or no host"),
        ({"base_url": f"http://me:{KEY}@there/v1"}, "belongs into api_key"),
        ({"base_url": f"http://there/v1?key={KEY}"}, "belongs into api_key"),
        ({"api_key": f"{KEY}\n"}, "expected the bare key"),
        ({"api_key": f"Bearer {KEY}"}, "expected the bare key"),
        ({"knows": ["everything"]}, r"found \['everything'\]; expected some of \['cache_salt', "),
        ({"concurrent": 0}, "expected at least 1"),
    ],
)
def test_what_can_never_work_is_refused_at_once_and_no_key_shown(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why) as refused:
        OpenAIEngine(**{"base_url": "http://there/v1", **given})
    assert KEY not in "".join(traceback.format_exception(refused.value))
