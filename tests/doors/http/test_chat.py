"""Chat completions through OpenAI's own client, unmodified: whole, streamed, with tools, as JSON, with logprobs."""

from __future__ import annotations

import asyncio
import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal
from uuid import uuid4

import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel, ConfigDict

from sostenuto.runtime.host import Host

from ..conftest import Say, idle, said
from .conftest import WEATHER, Seen

HELLO: Any = [{"role": "user", "content": "Say hello."}]
ASK: Any = [{"role": "user", "content": "What is the weather in Tokyo?"}]


def cached(response: Any) -> int:
    return int(response.usage.prompt_tokens_details.cached_tokens)


def test_an_answer_has_everything_that_a_client_looks_for(client: OpenAI, quick: Host, say: Say) -> None:
    say("Hello there.")
    response = client.chat.completions.create(model="default", messages=HELLO)
    (choice,) = response.choices
    assert (choice.index, choice.message.role, choice.message.content) == (0, "assistant", "Hello there.")
    assert choice.finish_reason == "stop"
    assert choice.message.tool_calls is None
    assert response.object == "chat.completion"
    assert response.model == quick.engine.name
    assert response.id.startswith("chatcmpl-")
    assert (response.system_fingerprint or "").startswith("fp_")
    assert response.created > 1_700_000_000
    assert response._request_id
    usage = response.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens == len(quick.engine.tokenizer.encode("Hello there.")) + 1  # type: ignore[union-attr]


def test_the_model_is_greedy_at_temperature_0_and_stops_at_the_limit(client: OpenAI) -> None:
    def ask() -> Any:
        return client.chat.completions.create(model="default", messages=HELLO, temperature=0, max_tokens=5)

    first, second = ask(), ask()
    assert first.choices[0].message.content == second.choices[0].message.content
    assert first.choices[0].finish_reason == "length"
    assert first.usage.completion_tokens == 5
    assert cached(second) == second.usage.prompt_tokens - 1, "all but the last token, whose logits are needed"


def test_a_stream_adds_up_to_the_whole(client: OpenAI) -> None:
    asked: Any = {"model": "default", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    *told, last = chunks
    assert "".join(chunk.choices[0].delta.content or "" for chunk in told) == whole.choices[0].message.content
    assert told[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in told][-1] == whole.choices[0].finish_reason
    assert all(chunk.choices[0].finish_reason is None for chunk in told[:-1])
    assert last.choices == []
    assert last.usage is not None
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in told)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_tells_no_usage_unless_asked(client: OpenAI, say: Say) -> None:
    say("Hi.")
    chunks = list(client.chat.completions.create(model="default", messages=HELLO, stream=True))
    assert [chunk.usage for chunk in chunks] == [None] * len(chunks)
    assert all(len(chunk.choices) == 1 for chunk in chunks)


def test_a_call_comes_with_its_name_and_arguments(client: OpenAI, say: Say) -> None:
    say(said("get_weather", city="Tokyo"))
    response = client.chat.completions.create(model="default", messages=ASK, tools=[WEATHER])  # type: ignore[list-item]
    (choice,) = response.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert call.id.startswith("call_")
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Tokyo"})


def test_a_streamed_call_comes_as_openai_streams_it(client: OpenAI, say: Say) -> None:
    say(said("get_weather", city="Tokyo") + said("get_weather", city="Kyoto"))
    stream: Any = client.chat.completions.create(
        model="default",
        messages=ASK,
        tools=[WEATHER],  # type: ignore[list-item]
        stream=True,
    )
    deltas = [chunk.choices[0] for chunk in stream]
    assert deltas[-1].finish_reason == "tool_calls"
    pieces = [piece for choice in deltas for piece in choice.delta.tool_calls or []]
    for index, city in enumerate(("Tokyo", "Kyoto")):
        first, *rest = [piece for piece in pieces if piece.index == index]
        assert (first.type, first.function.name, first.function.arguments) == ("function", "get_weather", "")
        assert first.id
        assert all(piece.id is None and piece.function.name is None for piece in rest)
        assert json.loads("".join(piece.function.arguments for piece in rest)) == {"city": city}


def test_the_model_itself_must_call_where_a_call_is_required(real: OpenAI) -> None:
    ask: Any = real.chat.completions.create
    response = ask(
        model="default",
        messages=ASK,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        parallel_tool_calls=False,
        temperature=0,
        max_tokens=64,
    )
    (call,) = response.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert list(json.loads(call.function.arguments)) == ["city"]


def test_a_tool_loop_computes_only_what_is_new(client: OpenAI, quick: Host, say: Say) -> None:
    """No session is named, and nothing is told to the server but what any client tells."""
    say("I will look. " + said("get_weather", city="Tokyo"), "It is sunny.")
    messages: Any = [{"role": "user", "content": f"What is the weather in Tokyo, for {uuid4()}?"}]
    ask: Any = client.chat.completions.create
    first = ask(model="default", messages=messages, tools=[WEATHER])
    messages.append(first.choices[0].message)
    call = first.choices[0].message.tool_calls[0]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 C"})
    second = ask(model="default", messages=messages, tools=[WEATHER])
    assert second.choices[0].message.content == "It is sunny."
    assert cached(second) == first.usage.total_tokens - 1
    assert idle(quick), "the hold was taken over by the turn that it was meant for"


def test_a_changed_answer_is_read_as_it_now_stands(client: OpenAI, seen: Seen) -> None:
    ask: Any = client.chat.completions.create
    first = ask(model="default", messages=HELLO, temperature=0, max_tokens=4).choices[0].message.content
    for content in (first, f"{first}!"):
        history = [*HELLO, {"role": "assistant", "content": content}, {"role": "user", "content": "And again."}]
        ask(model="default", messages=history, max_tokens=1)
    same, other = (asked.messages[1] for asked in seen.asked[1:])
    assert len(same.tokens) == 4
    assert (other.text, other.tokens) == (f"{first}!", ())


def test_an_answer_cut_by_a_stop_string_is_read_as_text(client: OpenAI, say: Say, seen: Seen) -> None:
    """Its ids say more than what went out."""
    ask: Any = client.chat.completions.create
    long, stop = "Hello there, and be welcome.", "and"
    say(long, "Hi.")
    cut = ask(model="default", messages=HELLO, temperature=0, max_tokens=12, stop=stop).choices[0]
    assert (cut.message.content, cut.finish_reason) == (long.partition(stop)[0], "stop")
    ask(model="default", messages=[*HELLO, cut.message, *HELLO], max_tokens=1)
    assert seen.asked[-1].messages[1].tokens == ()


class City(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Literal["Tokyo", "Kyoto"]
    capital: bool


def test_an_answer_fits_its_schema(client: OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": City.model_json_schema()}}
    response = client.chat.completions.create(
        model="default", messages=ASK, response_format=form, temperature=0, max_tokens=40
    )
    assert response.choices[0].finish_reason == "stop"
    City.model_validate_json(response.choices[0].message.content or "")


def test_a_json_object_is_one(client: OpenAI) -> None:
    response = client.chat.completions.create(
        model="default", messages=ASK, response_format={"type": "json_object"}, temperature=0, max_tokens=4
    )
    assert (response.choices[0].message.content or "").startswith("{")


def test_the_clients_own_parser_of_objects_works(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(
        model="default", messages=ASK, response_format=City, temperature=0, max_tokens=40
    )
    assert isinstance(parsed.choices[0].message.parsed, City)


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_are_told_token_by_token(real: OpenAI, stream: bool) -> None:
    asked: Any = {"model": "default", "messages": HELLO, "temperature": 0, "max_tokens": 6}
    told: Any = real.chat.completions.create(**asked, logprobs=True, top_logprobs=2, stream=stream)
    choices = [chunk.choices[0] for chunk in told] if stream else [told.choices[0]]
    entries = [entry for choice in choices if choice.logprobs for entry in choice.logprobs.content]
    text = "".join((choice.delta if stream else choice.message).content or "" for choice in choices)
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == text
    assert len(entries) == 6
    for entry in entries:
        best, second = entry.top_logprobs
        assert second.logprob <= best.logprob == entry.logprob <= 0, "greedy"
        assert entry.token in (best.token, second.token), "of equals, whichever"
        assert math.exp(best.logprob) + math.exp(second.logprob) <= 1 + 1e-6


def test_several_answers_share_one_prompt(client: OpenAI, quick: Host, seen: Seen) -> None:
    asked: Any = {"model": "default", "messages": [{"role": "user", "content": f"A word for {uuid4()}?"}]}
    before = quick.engine.rows  # type: ignore[union-attr]
    response = client.chat.completions.create(**asked, n=3, seed=7, max_tokens=6, temperature=1.5)
    rows = quick.engine.rows - before  # type: ignore[union-attr]
    assert [choice.index for choice in response.choices] == [0, 1, 2]
    assert [ask.sampling.seed for ask in seen.asked] == [7, 8, 9]
    assert len({ask.branch for ask in seen.asked}) == 3
    assert response.usage is not None
    assert response.usage.completion_tokens == 18
    # The others compute the prompt's last token, whose logits they need, and each all it says but the last.
    assert rows == response.usage.prompt_tokens - cached(response) + 2 + 3 * 5
    alone = client.chat.completions.create(**asked, max_tokens=1)
    assert alone.usage is not None
    assert alone.usage.prompt_tokens == response.usage.prompt_tokens, "a prompt counts once"


def test_several_answers_stream_side_by_side(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="default", messages=HELLO, n=2, max_tokens=4, temperature=0, stream=True
    )
    texts = {0: "", 1: ""}
    for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts[0] == texts[1] != ""


async def test_the_async_client_works_eight_at_a_time(door: str, quick: Host) -> None:
    async with AsyncOpenAI(base_url=f"{door}/v1", api_key="none", max_retries=0) as client:

        async def one(stream: bool) -> str:
            asked: Any = {"model": "default", "messages": HELLO, "temperature": 0, "max_tokens": 8}
            if not stream:
                return (await client.chat.completions.create(**asked)).choices[0].message.content or ""
            chunks = await client.chat.completions.create(**asked, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

        texts = await asyncio.gather(*(one(index % 2 == 0) for index in range(8)))
    assert len(set(texts)) == 1
    assert idle(quick)


def test_eight_threads_get_an_answer_each(client: OpenAI) -> None:
    def one(index: int) -> str:
        messages: Any = [{"role": "user", "content": f"Count to {index}."}]
        response = client.chat.completions.create(model="default", messages=messages, temperature=0, max_tokens=8)
        return response.choices[0].message.content or ""

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(one, range(8)))
    assert together[3] == one(3), "whoever else is in the batch"


def test_a_session_keeps_its_place_and_its_end_lets_go(client: OpenAI, quick: Host, seen: Seen, say: Say) -> None:
    say(said("get_weather", city="Tokyo"), said("get_weather", city="Kyoto"))
    ask: Any = client.chat.completions.create
    asked = {"model": "default", "messages": ASK, "tools": [WEATHER]}
    ask(**asked, extra_body={"session_id": "s1"})
    assert not idle(quick), "its caller will come back with the tool's result"
    ask(**asked, extra_headers={"X-Session-ID": "s1"}, extra_body={"hints": {"close": True}})
    assert idle(quick), "over"


def test_a_session_is_let_go_by_name(client: OpenAI, raw: Any, quick: Host, say: Say) -> None:
    say(said("get_weather", city="Tokyo"))
    ask: Any = client.chat.completions.create
    ask(model="default", messages=ASK, tools=[WEATHER], extra_body={"session_id": "a/b c"})
    assert "default/a/b c" in quick.loop.kernel.books.programs
    assert raw.delete("/v1/sessions/a/b c").json() == {"id": "a/b c", "object": "session", "deleted": True}
    assert idle(quick)
    assert raw.delete("/v1/sessions/a/b c").status_code == 200, "twice is harmless"


def test_a_call_that_was_cut_off_ends_by_length_whole_as_streamed(client: OpenAI, say: Say) -> None:
    half = '<tool_call>{"name": "get_weather", "arguments": {"city": "To'
    say(half, half)
    ask: Any = client.chat.completions.create
    asked = {"model": "default", "messages": ASK, "tools": [WEATHER]}
    whole = ask(**asked).choices[0]
    told = [chunk.choices[0] for chunk in ask(**asked, stream=True)]
    pieces = [piece for choice in told for piece in choice.delta.tool_calls or []]
    assert "".join(piece.function.arguments for piece in pieces) == '{"city": "To'
    assert whole.message.tool_calls[0].function.arguments == '{"city": "To'
    assert whole.finish_reason == told[-1].finish_reason


def test_what_was_said_is_not_lost_when_no_call_can_be_read_in_it(client: OpenAI, say: Say) -> None:
    say("Look: <tool_call>nonsense</tool_call>", "Look: <tool_call>nonsense</tool_call>")
    ask: Any = client.chat.completions.create
    asked = {"model": "default", "messages": ASK, "tools": [WEATHER]}
    assert ask(**asked).choices[0].message.content == "Look: <tool_call>nonsense</tool_call>"
    chunks = list(ask(**asked, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Look: <tool_call>nonsense</tool_call>"
