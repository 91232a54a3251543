"""LangChain's own client of OpenAI, unmodified, alone and in an agent."""

from __future__ import annotations

import asyncio
from typing import Any, Literal
from uuid import uuid4

import pytest
from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import BaseModel, SecretStr

from sostenuto.runtime.host import Host

from ..conftest import Say, idle, said

ASK: Any = [("user", "What is the weather in Tokyo?")]


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"sunny in {city}, 21 C"


@pytest.fixture
def chat(door: str) -> ChatOpenAI:
    return asking(door)


@pytest.fixture
def real_chat(real: OpenAI) -> ChatOpenAI:
    """Before the packaged model."""
    return asking(str(real.base_url).removesuffix("/v1/"))


def asking(url: str) -> ChatOpenAI:
    return ChatOpenAI(
        model="default",
        base_url=f"{url}/v1",
        api_key=SecretStr("none"),
        temperature=0,
        max_retries=0,
        max_tokens=48,  # type: ignore[call-arg]
        stream_usage=True,
    )


def test_it_is_asked(chat: ChatOpenAI, say: Say, quick: Host) -> None:
    say("Hello.")
    told = chat.invoke("Say hello.")
    assert told.content == "Hello."
    assert told.response_metadata["finish_reason"] == "stop"
    assert told.response_metadata["model_name"] == quick.engine.name
    assert told.usage_metadata is not None
    assert told.usage_metadata["output_tokens"] > 1


def test_it_streams(chat: ChatOpenAI) -> None:
    whole = chat.invoke("Say hello.", max_tokens=8)
    chunks = list(chat.stream("Say hello.", max_tokens=8, stream_usage=True))
    assert "".join(str(chunk.content) for chunk in chunks) == whole.content
    assert len(chunks) > 4
    assert sum(chunk.usage_metadata["output_tokens"] for chunk in chunks if chunk.usage_metadata) == 8


def test_bound_tools_are_called_by_the_model_itself(real_chat: ChatOpenAI) -> None:
    told = real_chat.bind_tools([get_weather], tool_choice="get_weather").invoke(ASK)
    (call,) = told.tool_calls
    assert (call["name"], list(call["args"])) == ("get_weather", ["city"])


def test_streamed_calls_are_put_together(chat: ChatOpenAI, say: Say) -> None:
    say(said("get_weather", city="Tokyo"))
    chunks = list(chat.bind_tools([get_weather]).stream(ASK))
    told = chunks[0]
    for chunk in chunks[1:]:
        told = told + chunk  # type: ignore[assignment]
    assert [(call["name"], call["args"]) for call in told.tool_calls] == [("get_weather", {"city": "Tokyo"})]


class Mood(BaseModel):
    """How somebody feels."""

    mood: Literal["good", "bad"]


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_an_object(chat: ChatOpenAI, method: Any, quick: Host) -> None:
    told = chat.with_structured_output(Mood, method=method).invoke("I am glad.")
    assert isinstance(told, Mood)


def alone() -> Any:
    """A conversation that nobody had before."""
    return {"messages": [("user", f"What is the weather in Tokyo, for {uuid4()}?")]}


def assert_only_the_new_was_computed(messages: list[Any]) -> None:
    first, second = (message for message in messages if isinstance(message, AIMessage))
    before, after = first.usage_metadata, second.usage_metadata
    assert before is not None
    assert after is not None
    assert after["input_token_details"]["cache_read"] == before["total_tokens"] - 1


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream"])
def test_an_agent_computes_after_a_tool_only_what_is_new(chat: ChatOpenAI, say: Say, quick: Host, way: str) -> None:
    """Its second prompt begins with the first and the answer to it, token for token, though both came as text."""
    say("I will see. " + said("get_weather", city="Tokyo"), "It is sunny.")
    agent = create_agent(chat, [get_weather])
    if way == "invoke":
        messages = agent.invoke(alone())["messages"]
    elif way == "ainvoke":
        messages = asyncio.run(agent.ainvoke(alone()))["messages"]
    else:
        *_, (_, state) = agent.stream(alone(), stream_mode=["messages", "values"])
        messages = state["messages"]  # type: ignore[index]
    assert [type(each).__name__ for each in messages] == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    assert messages[-1].content == "It is sunny."
    assert_only_the_new_was_computed(messages)
    assert idle(quick)


def test_the_model_itself_goes_round_the_loop(real_chat: ChatOpenAI) -> None:
    messages = create_agent(real_chat, [get_weather]).invoke({"messages": ASK})["messages"]
    assert messages[1].tool_calls[0]["name"] == "get_weather"
    assert "21" in messages[-1].content
