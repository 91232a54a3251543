"""The server before an engine that takes messages and gives text, and can do nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from sostenuto.runtime.engines import Capabilities, Job, Said
from sostenuto.runtime.host import Host

from ..conftest import idle, said
from .conftest import WEATHER, Start
from .test_server import counts, total

HELLO: Any = [{"role": "user", "content": "Say hello."}]


class Parrot:
    """Says what it was asked last, word by word."""

    can = Capabilities()
    name = "parrot"
    fingerprint = "parrot"
    page = 1
    room = 4
    longest = 1000

    async def say(self, job: Job) -> AsyncIterator[Said]:
        assert job.ask is not None
        *words, last = job.ask.messages[-1].text.split(" ")
        for word in words:
            yield Said(job.turn, 0, text=f"{word} ")
        yield Said(job.turn, 0, text=last, end="stop")

    async def hold(self, key: str, seconds: float) -> None:
        raise AssertionError("it cannot")

    async def release(self, key: str) -> None:
        raise AssertionError("it cannot")

    async def aclose(self) -> None: ...


@pytest.fixture
def parrot() -> Iterator[Host]:
    with Host(Parrot()) as opened:
        yield opened
        assert idle(opened)


@pytest.fixture
def url(start: Start, parrot: Host) -> str:
    return start(host=parrot)


@pytest.fixture
def asked(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_it_answers_whole_and_streamed(asked: OpenAI) -> None:
    whole = asked.chat.completions.create(model="parrot", messages=HELLO)
    assert whole.choices[0].message.content == "Say hello."
    told = [chunk.choices[0] for chunk in asked.chat.completions.create(model="parrot", messages=HELLO, stream=True)]
    assert [choice.delta.content for choice in told] == ["", "Say ", "hello.", None]
    assert told[-1].finish_reason == "stop"


def test_its_calls_are_calls(asked: OpenAI) -> None:
    tools: Any = [WEATHER]
    messages: Any = [{"role": "user", "content": said("get_weather", city="Tokyo")}]
    choice = asked.chat.completions.create(model="parrot", messages=messages, tools=tools).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [call.function.name for call in choice.message.tool_calls or []] == ["get_weather"]  # type: ignore[union-attr]


def test_what_it_does_not_tell_is_not_made_up(asked: OpenAI, url: str) -> None:
    usage = asked.chat.completions.create(model="parrot", messages=HELLO).usage
    assert usage is not None
    assert usage.prompt_tokens_details is None
    found = counts(url)
    assert total(found, "sostenuto_kv_tokens_total") == 0  # it does not tell
    assert total(found, "gen_ai_server_request_duration_seconds_count") == 1


def test_what_it_cannot_do_is_refused(asked: OpenAI) -> None:
    with pytest.raises(BadRequestError, match="logprobs"):
        asked.chat.completions.create(model="parrot", messages=HELLO, logprobs=True)
    with pytest.raises(BadRequestError, match="messages"):
        asked.completions.create(model="parrot", prompt="Say hello.")
