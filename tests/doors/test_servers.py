"""The same model class, graphs and demo over engines behind a server: what they can, they do, and the rest is said."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from sostenuto.runtime.cli import main
from sostenuto.runtime.doors.langgraph import ChatSostenuto, ToolGuard, wrap
from sostenuto.runtime.engines.openai import OpenAIEngine, Patience
from sostenuto.runtime.errors import EngineFailed, HostClosed, TooLate, Unable
from sostenuto.runtime.host import Host
from sostenuto.runtime.session import Session
from sostenuto.scheduler import Hold
from sostenuto.tracing import read_otlp_json

from ..runtime.openai_server import Asked, OpenAIServer, Reply, answer, refusal
from .conftest import idle

ASK: Any = {"messages": [("user", "What is the weather in Tokyo?")]}


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"sunny in {city}, 21 C"


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as opened:
        yield opened


@pytest.fixture
def host(server: OpenAIServer) -> Iterator[Host]:
    with Host(OpenAIEngine(server.url, model="tiny", concurrent=2, patience=Patience(retries=0))) as opened:
        yield opened
        assert idle(opened)


def test_an_agent_runs_over_a_server_that_knows_nothing_of_us(server: OpenAIServer, host: Host) -> None:
    server.script(
        answer("I look. ", calls=[("get_weather", '{"city": "Tokyo"}')], usage=(50, 0, 9)),
        answer("It is sunny.", usage=(80, 64, 5)),
    )
    effects: list[Any] = []
    host.loop.watch(effects.append)
    agent = wrap(create_agent(ChatSostenuto(host=host), [get_weather], middleware=[ToolGuard()]))
    messages = agent.invoke(ASK, {"configurable": {"thread_id": "a"}})["messages"]
    assert [type(m).__name__ for m in messages] == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    assert (messages[1].text, messages[1].tool_calls[0]["args"]) == ("I look. ", {"city": "Tokyo"})
    assert messages[2].content == "sunny in Tokyo, 21 C"
    facts = messages[3].response_metadata["sostenuto"]["turn"]
    assert (facts["prompt_tokens"], facts["reused_tokens"], facts["said_tokens"]) == (80, 64, 5)
    assert facts["why"] == "as its server says"
    assert facts["held_s"] == 0
    assert not [effect for effect in effects if isinstance(effect, Hold)], "it cannot hold, and is not asked to"
    sent = server.asked[1].body["messages"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]


async def test_streamed_and_awaited_it_is_the_same(server: OpenAIServer, host: Host) -> None:
    server.script(answer("One ", "two ", "three."), answer("One ", "two ", "three."))
    model = ChatSostenuto(host=host)
    pieces = [chunk.text async for chunk in model.astream("count")]
    assert "".join(pieces) == "One two three."
    assert len([piece for piece in pieces if piece]) == 3
    assert (await model.ainvoke("count")).text == "One two three."


def test_a_call_that_does_not_fit_is_not_run_whoever_wrote_it(server: OpenAIServer, host: Host) -> None:
    server.script(answer(calls=[("get_weather", '{"city": 7}')]), answer(calls=[("get_weather", '{"city": "Oslo"}')]))
    server.script(answer("Fine."))
    agent = wrap(create_agent(ChatSostenuto(host=host), [get_weather], middleware=[ToolGuard()]))
    messages = agent.invoke(ASK)["messages"]
    results = [m for m in messages if isinstance(m, ToolMessage)]
    assert "not run" in str(results[0].content) or results[0].status == "error"
    assert results[1].content == "sunny in Oslo, 21 C"


def test_no_more_turns_are_sent_than_the_server_is_said_to_take(server: OpenAIServer, host: Host) -> None:
    gate, lock, most, now = threading.Event(), threading.Lock(), [0], [0]
    came = threading.Semaphore(0)

    def slow(asked: Asked) -> Reply:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        came.release()
        gate.wait(20)
        with lock:
            now[0] -= 1
        return answer("done")

    server.script(*[slow] * 6)
    model = ChatSostenuto(host=host)
    threads = [threading.Thread(target=model.invoke, args=(f"say {n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    assert came.acquire(timeout=30)
    assert came.acquire(timeout=30)
    assert "| 2 running" in host.loop.ask()
    gate.set()
    for thread in threads:
        thread.join(30)
    assert most == [2]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (refusal(500, "out of order"), "out of order"),
        (answer("It is ", then="cut"), "broke off|closed|incomplete|cut"),
        (refusal(401, "who are you?"), "api_key"),
    ],
)
def test_a_server_that_fails_ends_the_turn_with_what_it_said(
    server: OpenAIServer, host: Host, reply: Reply, why: str
) -> None:
    server.script(reply, answer("Here I am."))
    model = ChatSostenuto(host=host)
    with pytest.raises(EngineFailed, match=why):
        model.invoke("hello")
    assert idle(host)
    assert model.invoke("hello").text == "Here I am.", "and the next turn goes on as ever"


def test_a_server_that_is_gone_is_told_at_once() -> None:
    with OpenAIServer() as gone:
        url = gone.url
    with Host(OpenAIEngine(url, model="tiny")) as host:
        with pytest.raises(EngineFailed, match=r"127\.0\.0\.1"):
            ChatSostenuto(host=host).invoke("hello")
        assert idle(host)


async def test_leaving_early_gives_the_request_up(server: OpenAIServer, host: Host) -> None:
    server.script(answer("It is ", "a long ", then="wait"))
    async for chunk in ChatSostenuto(host=host).astream("hello"):
        if chunk.text:
            break
    await asyncio.to_thread(server.left)
    assert idle(host)


def test_an_answer_may_take_no_longer_than_it_was_given(server: OpenAIServer, host: Host) -> None:
    server.script(answer("It is ", then="wait"))
    with pytest.raises(TooLate):
        ChatSostenuto(host=host, timeout=0.2).invoke("hello")
    server.left()


def test_closing_the_host_ends_what_is_on_its_way(server: OpenAIServer) -> None:
    server.script(answer("It is ", then="wait"))
    host = Host(OpenAIEngine(server.url, model="tiny"))
    caught: list[BaseException] = []

    def ask() -> None:
        try:
            for chunk in ChatSostenuto(host=host).stream("hello"):
                if chunk.text:
                    begun.set()
        except HostClosed as error:
            caught.append(error)

    begun = threading.Event()
    thread = threading.Thread(target=ask)
    thread.start()
    begun.wait(20)
    host.close()
    thread.join(20)
    assert len(caught) == 1
    server.left()


def test_what_it_cannot_do_is_refused_by_name(host: Host) -> None:
    with pytest.raises(Unable, match="a session needs an engine of token ids"):
        Session(host)
    with pytest.raises(Unable, match="weights"):
        host.update_weights([])
    with pytest.raises(Unable, match="tokens are not ours"):
        _ = host.render


def test_checkpoints_are_saved_and_bind_nothing(server: OpenAIServer, host: Host) -> None:
    server.script(answer("Hello."), answer("Again."))
    agent = wrap(create_agent(ChatSostenuto(host=host), [], checkpointer=InMemorySaver()))
    where: Any = {"configurable": {"thread_id": "t"}}
    agent.invoke(ASK, where)
    assert agent.invoke(ASK, where)["messages"][-1].content == "Again."


def test_the_demo_runs_over_any_such_server(
    server: OpenAIServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = answer(calls=[("final_answer", '{"answer": "42"}')], usage=(200, 100, 9))
    server.script(*[last] * 4)
    out = tmp_path / "out"
    given = ["--engine", "openai", "--url", server.url, "--agents", "2", "--rounds", "1", "--out", str(out), "--json"]
    assert main(["demo", *given]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["policies"], told["computed_ratio"]) == ({}, None), "it holds nothing: there is nothing to compare"
    spans = read_otlp_json(Path(told["trace"]))
    assert len([span for span in spans if span.name == "invoke_agent workshop"]) == 2
    assert main(["replay", told["journal"]]) == 0


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (["--engine", "openai"], "give its url"),
        (["--engine", "torch", "--url", "http://127.0.0.1:1"], "has no url"),
        (["--engine", "openai", "--url", "http://127.0.0.1:1", "--pool-tokens", "99"], "a pool of its own"),
        (["--engine", "vllm", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["--engine", "openai", "--url", "http://127.0.0.1:9"], "127.0.0.1:9"),
        (["--engine", "openai", "--url", "http://127.0.0.1:9", "--api-key-from", "NO_SUCH"], "NO_SUCH"),
    ],
)
def test_wrong_words_for_an_engine_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], why: str
) -> None:
    assert main(["demo", "--out", str(tmp_path / "out"), *given]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("sostenuto: ")
    assert why in line


def test_messages_of_another_engine_are_rendered_anew(server: OpenAIServer, host: Host) -> None:
    server.script(answer("Hello."), answer("And again."))
    model = ChatSostenuto(host=host)
    first = model.invoke("hi")
    assert isinstance(first, AIMessage)
    model.invoke([("user", "hi"), first, ("user", "again")])
    assert server.asked[1].body["messages"][1] == {"role": "assistant", "content": "Hello."}
