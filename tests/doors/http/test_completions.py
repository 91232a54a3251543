"""Completions of text and of token ids."""

from __future__ import annotations

from typing import Any

import pytest
from openai import BadRequestError, OpenAI

from sostenuto.runtime.host import Host

TEXT = "The capital of France is"


def ask(client: OpenAI, **given: Any) -> Any:
    return client.completions.create(**{"model": "default", "prompt": TEXT, "temperature": 0, "max_tokens": 5, **given})


def test_text_is_completed(real: OpenAI) -> None:
    response = ask(real)
    assert response.object == "text_completion"
    assert response.choices[0].text.startswith(" Paris")
    assert response.choices[0].finish_reason == "length"
    assert response.usage.completion_tokens == 5


def test_ids_are_completed_as_the_text_they_spell(client: OpenAI, quick: Host) -> None:
    ids = quick.engine.tokenizer.encode(TEXT)  # type: ignore[union-attr]
    by_ids, by_text = ask(client, prompt=ids), ask(client)
    assert by_ids.choices[0].text == by_text.choices[0].text
    assert by_ids.usage.prompt_tokens == len(ids)


def test_ids_are_told_on_request(client: OpenAI, quick: Host) -> None:
    ids = quick.engine.tokenizer.encode(TEXT)  # type: ignore[union-attr]
    (choice,) = ask(client, prompt=ids, extra_body={"return_token_ids": True}).choices
    assert choice.prompt_token_ids == ids
    assert quick.engine.tokenizer.decode(choice.token_ids) == choice.text  # type: ignore[union-attr]
    chunks = list(ask(client, prompt=ids, stream=True, extra_body={"return_token_ids": True}))
    assert [token for chunk in chunks for token in chunk.choices[0].token_ids] == choice.token_ids
    assert [chunk.choices[0].prompt_token_ids for chunk in chunks] == [ids] + [None] * (len(chunks) - 1)


def test_what_was_said_is_the_next_prompts_beginning(client: OpenAI, quick: Host) -> None:
    """As a rollout goes on: ids in, ids out, nothing is spelled anew."""
    ids = quick.engine.tokenizer.encode(TEXT)  # type: ignore[union-attr]
    (first,) = ask(client, prompt=ids, extra_body={"return_token_ids": True}).choices
    second = ask(client, prompt=[*ids, *first.token_ids], max_tokens=3)
    assert second.usage.prompt_tokens_details.cached_tokens == len(ids) + len(first.token_ids) - 1


def test_a_stream_adds_up_to_the_whole(client: OpenAI) -> None:
    *told, last = ask(client, stream=True, stream_options={"include_usage": True})
    assert "".join(chunk.choices[0].text for chunk in told) == ask(client).choices[0].text
    assert told[-1].choices[0].finish_reason == "length"
    assert (last.choices, last.usage.completion_tokens) == ([], 5)


def test_several_prompts_and_several_answers_are_choices_in_order(client: OpenAI) -> None:
    prompts = [TEXT, "One, two, three,"]
    both = ask(client, prompt=prompts, n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = [ask(client, prompt=prompt) for prompt in prompts]
    assert [choice.text for choice in both.choices] == [each.choices[0].text for each in alone for _ in range(2)]
    assert both.usage.prompt_tokens == sum(each.usage.prompt_tokens for each in alone)
    assert both.usage.completion_tokens == 20


def test_logprobs_stand_beside_each_token(real: OpenAI) -> None:
    whole = ask(real, logprobs=2).choices[0]
    told = whole.logprobs
    assert "".join(told.tokens) == whole.text
    assert [whole.text[at : at + len(word)] for at, word in zip(told.text_offset, told.tokens, strict=True)] == (
        told.tokens
    )
    assert all(
        logprob == max(top.values()) for logprob, top in zip(told.token_logprobs, told.top_logprobs, strict=True)
    )
    assert [len(top) for top in told.top_logprobs] == [2] * 5
    streamed = [chunk.choices[0].logprobs for chunk in ask(real, logprobs=2, stream=True)]
    assert [word for each in streamed for word in each.tokens] == told.tokens
    assert [at for each in streamed for at in each.text_offset] == told.text_offset


def test_the_limit_is_openais_unless_said(client: OpenAI) -> None:
    assert client.completions.create(model="default", prompt=TEXT).usage.completion_tokens <= 16  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"echo": True}, "echo"),
        ({"suffix": "the end"}, "suffix"),
        ({"best_of": 4}, "best_of"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[1, 2], "three"]}, "prompt"),
        ({"prompt": [1, -1]}, "-1"),
        ({"prompt": [1, 10**9]}, "1000000000"),
        ({"prompt": [1, True]}, "True"),
        ({"prompt": {"text": "x"}}, "prompt"),
        ({"prompt": ["x"] * 129}, "129 prompts"),
        ({"logprobs": 99}, "logprobs"),
        ({"prompt": ""}, "token"),
    ],
)
def test_what_cannot_be_done_is_said(client: OpenAI, given: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRequestError, match=told):
        ask(client, **given)
