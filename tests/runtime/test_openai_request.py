"""What an OpenAI-compatible server is asked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines import Job
from sostenuto.runtime.engines.openai_request import write_body
from sostenuto.runtime.errors import BadMessage
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import TurnId
from sostenuto.tools import BadSchema, Call, Choice, Tool

HELLO = (Message("user", "hello"),)
CITY: Mapping[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "The weather of a city.", CITY)


def body(ask: Ask, **rest: Any) -> dict[str, Any]:
    job = Job(TurnId("t1"), [], 0, ask.sampling, ask=ask, key="p/main", salt="5a17")
    return write_body(job, ask, model="tiny", **rest)


def test_a_plain_question_sends_no_more_than_every_server_knows() -> None:
    assert body(Ask((Message("system", "Be brief."), *HELLO))) == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "top_p": 1.0,
        "max_tokens": 256,
    }


def test_all_sampling_that_was_wanted_is_sent() -> None:
    sampling = Sampling(
        temperature=0.5, top_p=0.9, top_k=20, min_p=0.1, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3, seed=7, logprobs=2, stop=("END",), max_tokens=9,
    )  # fmt: skip
    assert body(Ask(HELLO, sampling=sampling)).items() >= {
        "temperature": 0.5, "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1,
        "presence_penalty": 0.2, "frequency_penalty": 0.3, "seed": 7, "logprobs": True, "top_logprobs": 2,
        "stop": ["END"], "max_tokens": 9,
    }.items()  # fmt: skip


def test_what_only_some_servers_know_is_sent_to_those() -> None:
    knows = ("session_id", "cache_salt", "max_completion_tokens", "top_k", "min_p", "repetition_penalty")
    sent = body(Ask(HELLO), knows=knows)
    assert sent.items() >= {"session_id": "p/main", "cache_salt": "5a17", "max_completion_tokens": 256}.items()
    assert sent.items() >= {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}.items()
    assert "max_tokens" not in sent


def test_a_turn_without_key_or_salt_sends_none() -> None:
    sent = write_body(
        Job(TurnId("t1"), [], 0, Sampling()), Ask(HELLO), model="tiny", knows=("session_id", "cache_salt")
    )
    assert not sent.keys() & {"session_id", "cache_salt"}


def test_calls_and_their_results_go_out_with_the_ids_that_join_them() -> None:
    calls = (Call("call_1", "weather", {"city": "Paris"}, '{"city":  "Paris"}'), Call("call_2", "now", {}, ""))
    messages = (
        Message("assistant", "Let me look.", calls),
        Message("tool", "sunny", tool="weather", call="call_1"),
        Message("assistant", "", calls[1:]),
    )
    said, result, silent = body(Ask(messages))["messages"]
    first = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":  "Paris"}'}}
    second = {"id": "call_2", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    assert said == {"role": "assistant", "content": "Let me look.", "tool_calls": [first, second]}
    assert result == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}
    assert silent == {"role": "assistant", "content": None, "tool_calls": [second]}


def test_a_result_that_answers_no_call_is_refused() -> None:
    with pytest.raises(BadMessage, match=r"the tool 'weather' that answers no call; expected the call's id"):
        body(Ask((Message("tool", "sunny", tool="weather"),)))


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (Choice("auto"), None),
        (Choice("none"), "none"),
        (Choice("any"), "required"),
        (Choice("named", "weather"), {"type": "function", "function": {"name": "weather"}}),
    ],
    ids=lambda value: getattr(value, "mode", ""),
)
def test_a_choice_of_tools_is_sent_in_openais_words(choice: Choice, sent: object) -> None:
    told = body(Ask(HELLO, tools=(WEATHER,), choice=choice))
    assert told.get("tool_choice") == sent
    assert "tool_choice" not in body(Ask(HELLO, choice=choice))


def test_only_calls_one_at_a_time_need_be_said() -> None:
    assert "parallel_tool_calls" not in body(Ask(HELLO, tools=(WEATHER,)))
    assert body(Ask(HELLO, tools=(WEATHER,), parallel=False))["parallel_tool_calls"] is False


def test_a_tool_whose_schema_can_be_strict_is_sent_closed_and_strict() -> None:
    (sent,) = body(Ask(HELLO, tools=(WEATHER,)))["tools"]
    shut = {**CITY, "additionalProperties": False}
    assert sent == {
        "type": "function",
        "function": {"name": "weather", "description": WEATHER.description, "parameters": shut, "strict": True},
    }


NESTED: dict[str, Any] = {"place": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}}
LOOSE: dict[str, dict[str, Any]] = {
    "something optional": {**CITY, "required": []},
    "any keys": {"type": "object"},
    "keys of a kind": {**CITY, "additionalProperties": {"type": "string"}},
    "no type": {**CITY, "properties": {"city": {}}},
    "a keyword strict schemas lack": {**CITY, "properties": {"city": {"type": "string", "default": "Paris"}}},
    "optional inside": {"type": "object", "properties": {**NESTED, "y": CITY}, "required": ["place"]},
    "a choice at the top": {**CITY, "additionalProperties": False, "anyOf": [{"const": {"city": "Rome"}}]},
    "allOf": {"type": "object", "allOf": [CITY]},
}


@pytest.mark.parametrize("schema", LOOSE.values(), ids=LOOSE.keys())
def test_a_tool_whose_schema_cannot_be_strict_is_sent_as_it_is_unless_the_server_takes_any(schema: Any) -> None:
    tool = Tool("weather", "", schema)
    (sent,) = body(Ask(HELLO, tools=(tool,)))["tools"]
    assert sent["function"] == {"name": "weather", "description": "", "parameters": schema}
    (sent,) = body(Ask(HELLO, tools=(tool,)), knows=("strict",))["tools"]
    assert sent["function"]["strict"] is True


def test_a_tool_that_wants_to_be_strict_is_sent_so() -> None:
    (sent,) = body(Ask(HELLO, tools=(Tool("weather", "", {"type": "object"}, strict=True),)))["tools"]
    assert sent["function"]["strict"] is True


def test_nested_objects_can_be_strict_and_an_unconstrained_answer_is_not() -> None:
    tool = Tool("weather", "", {"type": "object", "properties": NESTED, "required": ["place"]})
    (sent,) = body(Ask(HELLO, tools=(tool,)))["tools"]
    assert sent["function"]["strict"] is True
    assert sent["function"]["parameters"]["properties"]["place"]["additionalProperties"] is False
    (sent,) = body(Ask(HELLO, tools=(tool,), constrain=False))["tools"]
    assert sent["function"] == {"name": "weather", "description": "", "parameters": tool.parameters}


def test_a_wanted_form_is_sent_strict_where_it_can_be() -> None:
    shut = {**CITY, "additionalProperties": False}
    sent = body(Ask(HELLO, schema=shut))["response_format"]
    assert sent == {"type": "json_schema", "json_schema": {"name": "answer", "schema": shut, "strict": True}}
    assert body(Ask(HELLO, schema=CITY))["response_format"]["json_schema"]["strict"] is False
    with pytest.raises(BadSchema):
        body(Ask(HELLO, schema={"type": "nothing"}))
