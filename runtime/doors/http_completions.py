"""Completions of text or token ids: from OpenAI's JSON to questions, from answers to OpenAI's JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ...tools import Choice, TextDelta
from ..answer import Answer
from ..ask import Ask
from ..errors import BadRequest
from ..ticket import Piece
from .http_answer import Part, Spelling, Stamp
from .http_fields import Fields
from .http_wanted import (
    CHOICES,
    Caller,
    Question,
    Wanted,
    place,
    read_count,
    read_sampling,
    read_schema,
    read_timeout,
    read_wanted,
    several,
)

MAX_TOKENS = 16
"""What OpenAI says unless told otherwise."""


def read_completion(fields: Fields, caller: Caller, *, encode: Callable[[str], Sequence[int]], vocab: int) -> Wanted:
    """What a request for completions wants; several prompts are several choices. Raises BadRequest, BadSampling."""
    fields.refuse("echo", "a prompt is not said again", unless=(False,))
    fields.refuse("suffix", "text is written from left to right", unless=("",))
    count = read_count(fields)
    fields.refuse("best_of", "all that is said is told: ask for n", unless=(count,))
    logprobs = fields.whole("logprobs", 0, least=0, most=20) if fields.raw("logprobs") is not None else None
    wanted = read_wanted(fields, caller, logprobs=logprobs is not None, ids=fields.flag("return_token_ids"))
    max_tokens = fields.whole("max_tokens", MAX_TOKENS, least=1)
    ask = Ask(
        messages=(),
        choice=Choice("none"),
        returns=False,
        schema=read_schema(fields),
        sampling=read_sampling(fields, max_tokens=max_tokens, logprobs=logprobs),
        tenant=caller.tenant,
        timeout=read_timeout(fields),
        **place(caller, None),
    )
    prompts = _prompts(fields, encode, vocab)
    questions = [each for prompt in prompts for each in several(Question(ask, prompt), count)]
    if len(prompts) > 1:  # each is a line of its own
        lines = [f"main~{index}" for index in range(len(questions))]
        questions = [
            replace(each, ask=replace(each.ask, branch=line)) for each, line in zip(questions, lines, strict=True)
        ]
    return replace(wanted, questions=tuple(questions), each=count)


class CompletionForm:
    """The answers of a request as completions: whole, or chunk by chunk."""

    def __init__(self, stamp: Stamp, wanted: Wanted, spelling: Spelling) -> None:
        self._stamp = stamp
        self._wanted = wanted
        self._spelling = spelling
        self._choices = [_Choice(index) for index in range(len(wanted.questions))]

    def whole(self) -> dict[str, Any]:
        """The response, once everything was taken."""
        choices = [
            {
                "index": choice.index,
                "text": choice.text,
                "logprobs": self._logprobs(choice.pieces, 0),
                "finish_reason": choice.reason,
                **self._ids(choice, choice.tokens, first=True),
            }
            for choice in self._choices
        ]
        usage = self._stamp.usage((choice.answer for choice in self._choices), self._wanted)
        return {**self._stamp.head("text_completion"), "choices": choices, "usage": usage}

    def begin(self) -> list[dict[str, Any]]:
        """The chunks with which a stream begins."""
        return []

    def take(self, part: Part) -> list[dict[str, Any]]:
        """What a part adds: the chunks of a stream, which may go unused."""
        choice = self._choices[part.choice]
        text = "".join(delta.text for delta in part.deltas if isinstance(delta, TextDelta))
        offset = len(choice.text)
        choice.text += text
        if part.answer is not None:
            choice.answer, choice.reason = part.answer, part.answer.reason
        tokens = [] if part.token is None else [part.token]
        pieces = [part.piece] if self._spelling.tells(part) and part.piece is not None else []
        choice.tokens += tokens
        choice.pieces += pieces
        first, choice.begun = not choice.begun, True
        told = {
            "index": choice.index,
            "text": text,
            "logprobs": self._logprobs(pieces, offset),
            "finish_reason": choice.reason if part.answer is not None else None,
            **self._ids(choice, tokens, first=first),
        }
        usage = {"usage": None} if self._wanted.usage else {}
        return [{**self._stamp.head("text_completion"), "choices": [told], **usage}]

    def end(self) -> list[dict[str, Any]]:
        """The chunks with which a stream ends."""
        return self._stamp.last("text_completion", (choice.answer for choice in self._choices), self._wanted)

    def _ids(self, choice: _Choice, tokens: list[int], *, first: bool) -> dict[str, Any]:
        if not self._wanted.ids:
            return {}
        prompt = self._wanted.questions[choice.index].tokens or ()
        return {"token_ids": tokens, "prompt_token_ids": list(prompt) if first else None}

    def _logprobs(self, pieces: list[Piece], offset: int) -> dict[str, Any] | None:
        if not self._wanted.logprobs:
            return None
        words = [self._spelling.text(piece.token) for piece in pieces]
        offsets = []
        for word in words:
            offsets.append(offset)
            offset += len(word)
        tops = [{self._spelling.text(token): logprob for token, logprob in piece.top} for piece in pieces]
        return {
            "tokens": words,
            "token_logprobs": [piece.logprob for piece in pieces],
            "top_logprobs": tops if self._wanted.sampling.logprobs else None,
            "text_offset": offsets,
        }


@dataclass(slots=True)
class _Choice:
    """One answer as its reader sees it."""

    index: int
    text: str = ""
    tokens: list[int] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    begun: bool = False
    reason: str | None = None
    answer: Answer | None = None


def _prompts(fields: Fields, encode: Callable[[str], Sequence[int]], vocab: int) -> list[tuple[int, ...]]:
    """Text, a list of texts, ids, or a list of lists of ids."""
    value = fields.raw("prompt")
    if isinstance(value, str):
        return [tuple(encode(value))]
    if not isinstance(value, list) or not value:
        raise fields.wrong("prompt", "text, a list of texts, token ids, or a list of lists of token ids")
    if len(value) > CHOICES and not isinstance(value[0], int):
        raise BadRequest("prompt", f"{len(value)} prompts", f"at most {CHOICES}")
    if all(isinstance(each, str) for each in value):
        return [tuple(encode(each)) for each in value]
    several = value if all(isinstance(each, list) for each in value) else [value]
    for ids in several:
        for token in ids:
            if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < vocab:
                raise BadRequest("prompt", token, f"token ids from 0 to {vocab - 1}")
    return [tuple(ids) for ids in several]
