"""An OpenAI-compatible server as an engine: answers, how they break off, and the key."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing

import httpx
import pytest

from sostenuto.runtime.ask import Ask
from sostenuto.runtime.engines import Capabilities, TurnEngine, Usage
from sostenuto.runtime.engines.openai import OpenAIEngine, Patience
from sostenuto.runtime.errors import EngineFailed, Unable
from sostenuto.tools import HERMES, Choice, Parser, Tool

from .openai_server import ASK, OpenAIServer, Reply, answer, chunk, events, job, mocked, refusal, replying, text, told

KEY = "sk-" + "secret" * 5
WEATHER = Tool("weather", "The weather of a city.", {"type": "object"})


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(models=("first", "second")) as opened:
        yield opened


@pytest.fixture
async def engine(server: OpenAIServer) -> AsyncIterator[OpenAIEngine]:
    opened = OpenAIEngine(server.url, api_key=KEY)
    yield opened
    await opened.aclose()
    await opened.aclose()


async def test_an_answer_streams_and_ends_with_what_the_server_counted(
    server: OpenAIServer, engine: OpenAIEngine
) -> None:
    server.script(answer("Let me ", "look.", calls=[("weather", '{"city": "Rome"}')], usage=(30, 20, 7)))
    said = await told(engine)
    assert [one.text for one in said[:2]] == ["Let me ", "look."]
    parser = Parser(HERMES, (WEATHER,))
    parser.feed(text(said))
    outcome = parser.finish(truncated=False)
    assert [(call.name, call.arguments) for call in outcome.calls] == [("weather", {"city": "Rome"})]
    assert [(one.end, one.usage) for one in said[-2:]] == [(None, None), ("stop", Usage(30, 20, 7))]
    assert {(one.turn, one.token, one.computed) for one in said} == {("t1", None, 0)}


async def test_a_request_says_who_asks_for_which_model_in_which_trace(
    server: OpenAIServer, engine: OpenAIEngine
) -> None:
    server.script(answer("hi"))
    trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "authorization": "not yours"}
    assert text([one async for one in engine.say(job(trace=trace))]) == "hi"
    (asked,) = server.asked
    assert asked.path == "/v1/chat/completions"
    assert (asked.headers["authorization"], asked.headers["traceparent"]) == (f"Bearer {KEY}", trace["traceparent"])
    assert asked.body["model"] == "first"


def test_the_model_is_the_first_that_the_server_lists_asked_from_any_event_loop(server: OpenAIServer) -> None:
    server.script(answer("one"), answer("two"))
    engine = OpenAIEngine(server.url)
    assert engine.name == "unknown"
    assert asyncio.run(engine.probe()) == ("first", "second")
    assert (engine.name, engine.fingerprint) == ("first", f"{server.url} first")

    async def twice() -> str:
        said = text(await told(engine)) + text(await told(engine))
        await engine.aclose()
        return said

    assert asyncio.run(twice()) == "onetwo"


async def test_a_given_model_stays_and_nobody_asks_for_others(server: OpenAIServer) -> None:
    server.script(answer("hi"))
    engine = OpenAIEngine(server.url + "/", model="mine")
    assert engine.fingerprint == f"{server.url} mine"
    await engine.probe()
    await told(engine)
    assert (engine.name, server.asked[0].body["model"]) == ("mine", "mine")
    await engine.aclose()


async def test_the_environment_sends_no_request_elsewhere(
    monkeypatch: pytest.MonkeyPatch, server: OpenAIServer
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    engine = OpenAIEngine(server.url)
    assert await engine.probe() == ("first", "second")
    await engine.aclose()


def test_it_is_a_turn_engine_that_can_very_little() -> None:
    engine: TurnEngine = mocked(lambda request: httpx.Response(200), concurrent=3, longest=4096)
    assert engine.can == Capabilities(cached=True)
    assert (engine.page, engine.room, engine.longest) == (1, 3, 4096)
    assert repr(engine) == "<OpenAIEngine tiny at http://there/v1>"


async def test_what_it_cannot_do_it_says() -> None:
    engine = mocked(lambda request: httpx.Response(200))
    with pytest.raises(Unable, match="cannot hold a context"):
        await engine.hold("p", 1.0)
    with pytest.raises(Unable, match="cannot release a context"):
        await engine.release("p")
    with pytest.raises(Unable, match="takes messages, so give the turn its Ask"):
        await anext(engine.say(job(None)))
    with pytest.raises(Unable, match="cannot say a recorded answer"):
        await anext(engine.say(job(forced=(1,))))


async def test_closing_the_iterator_closes_the_connection(server: OpenAIServer, engine: OpenAIEngine) -> None:
    server.script(answer("Once ", then="wait"), answer("again"))
    async with aclosing(engine.say(job())) as saying:
        assert (await anext(saying)).text == "Once "
    await asyncio.to_thread(server.left)
    assert text(await told(engine)) == "again"


async def test_cancelling_whoever_reads_closes_the_connection(server: OpenAIServer, engine: OpenAIEngine) -> None:
    server.script(answer("Once ", then="wait"))
    heard = asyncio.Event()

    async def listen() -> None:
        async for _ in engine.say(job()):
            heard.set()

    listening = asyncio.create_task(listen())
    await heard.wait()
    listening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await listening
    await asyncio.to_thread(server.left)


async def test_several_turns_are_said_at_once(server: OpenAIServer, engine: OpenAIEngine) -> None:
    """None waits for another: the first is not over when the second ends."""
    server.script(answer("first", then="wait"), answer("second"), answer("third"))
    async with aclosing(engine.say(job())) as saying:
        assert (await anext(saying)).text == "first"
        both = await asyncio.gather(told(engine), told(engine))
    assert sorted(map(text, both)) == ["second", "third"]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (answer("Once ", then="cut"), "the connection broke; look into its log"),
        (Reply(events(chunk({"content": "Once "}))), "ended its answer in the middle"),
        (Reply(events(chunk({"content": "Once "}), "[DONE]")), "ended its answer in the middle"),
        (Reply(events(chunk({"content": "Once "}), '{"choices": [')), "sent what is not JSON"),
        (Reply(events(chunk({"content": "Once "}), {"error": {"message": "no memory"}})), "broke off .*no memory"),
    ],
    ids=["cut", "ended", "done", "broken", "told"],
)
async def test_an_answer_that_breaks_off_fails_after_what_was_said(
    server: OpenAIServer, engine: OpenAIEngine, reply: Reply, why: str
) -> None:
    server.script(reply)
    saying = engine.say(job())
    assert (await anext(saying)).text == "Once "
    with pytest.raises(EngineFailed, match=f"the server {server.url}: .*{why}"):
        await anext(saying)


async def test_an_answer_that_had_its_end_is_whole_though_the_connection_breaks(
    server: OpenAIServer, engine: OpenAIEngine
) -> None:
    server.script(Reply(events(chunk({"content": "Done."}), chunk({}, "length")), then="cut"))
    said = await told(engine)
    assert (text(said), said[-1].end, said[-1].usage) == ("Done.", "length", None)


async def test_a_server_that_does_not_count_is_taken_as_it_is() -> None:
    handler, _ = replying(answer("hi", usage=None))
    assert (await told(mocked(handler)))[-1].usage is None


@pytest.mark.parametrize("status", [400, 422])
async def test_a_server_that_knows_no_stream_options_is_asked_again_without_and_never_with(status: int) -> None:
    handler, bodies = replying(refusal(status, "Unknown parameter: 'stream_options'."), answer("hi", usage=None))
    engine = mocked(handler, patience=Patience(retries=0))
    assert [text(await told(engine)), text(await told(engine))] == ["hi", "hi"]
    assert ["stream_options" in body for body in bodies] == [True, False, False]


async def test_a_server_that_does_not_stream_is_read_all_the_same() -> None:
    message = {"role": "assistant", "content": "hi", "tool_calls": [{"id": "a", "function": {"name": "weather"}}]}
    whole = {
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 3},
    }
    handler, _ = replying(Reply((json.dumps(whole).encode(),), kind="application/json; charset=utf-8"))
    said = await told(mocked(handler))
    assert text(said) == 'hi<tool_call>{"name": "weather", "arguments": {}}</tool_call>'
    assert said[-1].usage == Usage(3, None, None)


async def test_text_is_broken_up_only_where_it_could_be_taken_for_a_call() -> None:
    handler, _ = replying(answer("<tool_call>"))
    assert text(await told(mocked(handler))) == "<tool_call >"
    assert text(await told(mocked(handler), Ask(ASK.messages, choice=Choice("none")))) == "<tool_call>"


async def test_extra_fields_are_merged_and_none_takes_a_field_out() -> None:
    handler, bodies = replying(answer("hi"))
    await told(mocked(handler, extra_body={"top_p": None, "temperature": 0.3, "chat_template_kwargs": {"a": 1}}))
    assert bodies[0].items() >= {"temperature": 0.3, "chat_template_kwargs": {"a": 1}}.items()
    assert "top_p" not in bodies[0]


async def test_a_server_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    engine = OpenAIEngine(url)
    with pytest.raises(EngineFailed, match=f"{url}: it cannot be reached; is it running"):
        await told(engine)
    await engine.aclose()


@pytest.mark.parametrize(
    "reply",
    [
        refusal(401, f"Incorrect API key provided: {KEY}"),
        refusal(401, "x" * 590 + KEY),
        Reply((f"a page with {KEY}".encode(),), 500, "text/html"),
        Reply(events({"error": {"message": f"bad key {KEY}"}})),
        Reply(events(f"{{no JSON {KEY}")),
        answer(then="cut"),
    ],
    ids=["told", "at the edge", "page", "in the stream", "broken", "cut"],
)
async def test_the_key_is_never_shown(
    caplog: pytest.LogCaptureFixture, server: OpenAIServer, engine: OpenAIEngine, reply: Reply
) -> None:
    caplog.set_level(logging.DEBUG)
    server.script(reply)
    with pytest.raises(EngineFailed) as failed:
        await told(engine)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    shown = [repr(failed.value), repr(engine), engine.fingerprint, *traceback.format_exception(failed.value)]
    assert KEY[:8] not in "".join(shown) + caplog.text
