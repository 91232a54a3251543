"""Chat completions: from OpenAI's JSON to a question, from answers to OpenAI's JSON."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from ...tools import ArgumentsDelta, Call, CallBegun, TextDelta, read_choice, read_tools
from ..answer import Answer
from ..ask import Ask, Message
from ..errors import BadRequest
from .http_answer import Part, Spelling, Stamp
from .http_fields import Fields
from .http_messages import Memory, read_messages
from .http_wanted import (
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

_KNOWN_AND_REFUSED = {
    "functions": "they were replaced by tools",
    "function_call": "it was replaced by tool_choice",
    "audio": "the model speaks text only",
    "web_search_options": "the server searches nothing: offer a tool that does",
    "return_token_ids": "chat completions tell none; /v1/completions does",
}


def read_chat(fields: Fields, caller: Caller, *, memory: Memory, longest: int) -> Wanted:
    """What a request for a chat completion wants.

    Without a limit of the caller's an answer may fill the context. Raises BadRequest, BadMessage, BadSampling,
    BadTool, BadChoice, BadSchema.
    """
    for name, why in _KNOWN_AND_REFUSED.items():
        fields.refuse(name, why, unless=([], False))
    fields.refuse("modalities", "the model speaks text only", unless=(["text"],))
    wanted = read_wanted(fields, caller, logprobs=fields.flag("logprobs"))
    messages, last = read_messages(
        fields.objects("messages"), lambda message: memory.find(caller.tenant, caller.session, message)
    )
    tools = read_tools(fields.objects("tools"))
    choice = read_choice(fields.raw("tool_choice"), tools)
    schema = read_schema(fields)
    if schema is not None and choice.mode != "none":
        raise fields.wrong("response_format", "none beside tools that may be called: an answer is JSON or a call")
    ask = Ask(
        messages=messages,
        tools=tools,
        choice=choice,
        parallel=fields.flag("parallel_tool_calls", True),
        returns=not wanted.close,
        schema=schema,
        sampling=read_sampling(fields, max_tokens=_limit(fields, longest), logprobs=_alternatives(fields)),
        tenant=caller.tenant,
        timeout=read_timeout(fields),
        **place(caller, last),
    )
    questions = several(Question(ask), read_count(fields))
    return replace(wanted, questions=questions, each=len(questions))


class ChatForm:
    """The answers of a request as chat completions: whole, or chunk by chunk."""

    def __init__(self, stamp: Stamp, wanted: Wanted, spelling: Spelling) -> None:
        self._stamp = stamp
        self._wanted = wanted
        self._spelling = spelling
        self._choices = [_Choice(index) for index in range(len(wanted.questions))]

    def message(self, choice: int) -> Message:
        """What went out as this choice, as it will come back in a history."""
        told = self._choices[choice]
        return Message("assistant", told.text, tuple(told.calls))

    def whole(self) -> dict[str, Any]:
        """The response, once everything was taken."""
        choices = [
            {
                "index": choice.index,
                "message": choice.message(),
                "logprobs": self._logprobs(choice.entries),
                "finish_reason": choice.reason,
            }
            for choice in self._choices
        ]
        usage = self._stamp.usage((choice.answer for choice in self._choices), self._wanted)
        return {**self._stamp.head("chat.completion"), "choices": choices, "usage": usage}

    def begin(self) -> list[dict[str, Any]]:
        """The chunks with which a stream begins."""
        head = {"role": "assistant", "content": ""}
        return [self._chunk(choice, head) for choice in self._choices]

    def take(self, part: Part) -> list[dict[str, Any]]:
        """What a part adds: the chunks of a stream, which may go unused."""
        choice = self._choices[part.choice]
        if self._wanted.logprobs and part.piece is not None and self._spelling.tells(part):
            entry = self._spelling.entry(part.piece, self._wanted.sampling.logprobs or 0)
            choice.entries.append(entry)
            choice.untold.append(entry)
        chunks = [self._chunk(choice, delta) for delta in choice.take(part)]
        if part.answer is not None:
            chunks.append(self._chunk(choice, {}, choice.finish(part.answer)))
        return chunks

    def end(self) -> list[dict[str, Any]]:
        """The chunks with which a stream ends."""
        return self._stamp.last("chat.completion.chunk", (choice.answer for choice in self._choices), self._wanted)

    def _chunk(self, choice: _Choice, delta: dict[str, Any], reason: str | None = None) -> dict[str, Any]:
        logprobs = self._logprobs(choice.untold) if choice.untold else None
        choice.untold = []
        told = {"index": choice.index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        usage = {"usage": None} if self._wanted.usage else {}
        return {**self._stamp.head("chat.completion.chunk"), "choices": [told], **usage}

    def _logprobs(self, entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        return {"content": list(entries), "refusal": None} if self._wanted.logprobs else None


@dataclass(slots=True)
class _Choice:
    """One answer as its reader sees it. Whole or streamed, it is put together from the same deltas."""

    index: int
    text: str = ""
    drafts: list[_Draft] = field(default_factory=list)
    entries: list[dict[str, Any]] = field(default_factory=list)
    untold: list[dict[str, Any]] = field(default_factory=list)
    reason: str | None = None
    answer: Answer | None = None

    def take(self, part: Part) -> list[dict[str, Any]]:
        """The deltas of a part, in OpenAI's form."""
        told: list[dict[str, Any]] = []
        for delta in part.deltas:
            match delta:
                case TextDelta(text=text):
                    self.text += text
                    told.append({"content": text})
                case CallBegun(index=index, id=name, name=tool):
                    self.drafts.append(_Draft(name, tool))
                    function = {"name": tool, "arguments": ""}
                    call = {"index": index, "id": name, "type": "function", "function": function}
                    told.append({"tool_calls": [call]})
                case ArgumentsDelta(index=index, text=text):
                    self.drafts[index].text += text
                    told.append({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
        if part.answer is not None and (lost := self._unreadable(part.answer)):
            self.text += lost
            told.append({"content": lost})
        return told

    def finish(self, answer: Answer) -> str:
        """Why it ended, as OpenAI says it: an answer that was cut off inside a call is `length`."""
        self.answer = answer
        cut = answer.outcome.kind == "truncated"
        self.reason = "tool_calls" if answer.calls and not cut else answer.reason
        return self.reason

    def message(self) -> dict[str, Any]:
        told: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.drafts:
            told["content"] = self.text or None
            told["tool_calls"] = [draft.json() for draft in self.drafts]
        return told

    @property
    def calls(self) -> list[Call]:
        read = {call.id: call for call in self.answer.calls} if self.answer is not None else {}
        return [read.get(draft.id, Call(draft.id, draft.name, {}, draft.text)) for draft in self.drafts]

    def _unreadable(self, answer: Answer) -> str:
        """A call of which not even the name could be read: its text, so that nothing that was said is lost."""
        if self.drafts or answer.outcome.kind not in ("malformed", "truncated"):
            return ""
        return answer.text.removeprefix(self.text) if answer.text.startswith(self.text) else ""


@dataclass(slots=True)
class _Draft:
    """A call as it went out so far."""

    id: str
    name: str
    text: str = ""

    def json(self) -> dict[str, Any]:
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": self.text}}


def _limit(fields: Fields, longest: int) -> int:
    """The one name is the other's successor."""
    older = fields.whole("max_tokens", longest, least=1)
    newer = fields.whole("max_completion_tokens", older, least=1)
    if fields.raw("max_tokens") is not None and newer != older:
        raise fields.wrong("max_completion_tokens", f"the same as max_tokens, {older}, or only one of them")
    return newer


def _alternatives(fields: Fields) -> int | None:
    wanted = fields.whole("top_logprobs", 0, least=0, most=20)
    if fields.raw("top_logprobs") is not None and not fields.flag("logprobs"):
        raise BadRequest("top_logprobs", wanted, "logprobs set beside it, or neither")
    return wanted if fields.flag("logprobs") else None
