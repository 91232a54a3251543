"""LangChain's messages and ours: what was said keeps its token ids through any checkpointer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    HumanMessage,
    InvalidToolCall,
    SystemMessage,
    ToolCall,
    ToolMessage,
)
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata

from ...tools import Call
from ..answer import Answer
from ..ask import Message
from ..errors import BadMessage
from ..ticket import Facts

KEY = "sostenuto"
"""Where an answer's token ids stand in its `response_metadata`. They are JSON, so every checkpointer keeps them."""


_LEFT_OUT = frozenset({"tool_use", "tool_call", "thinking", "redacted_thinking", "reasoning"})
"""What other providers put among the text: calls, which stand in `tool_calls` too, and thoughts, which are not said."""


def read_messages(messages: Sequence[BaseMessage], *, model: str) -> tuple[Message, ...]:
    """LangChain's messages as ours. Raises BadMessage for content that is no text and for unknown roles.

    An answer that the model of this fingerprint gave brings its ids along, unless somebody changed its text or calls
    since: then, like an answer of any other model, it is rendered.
    """
    names: dict[str, str] = {}
    read = []
    for message in messages:
        text = _text(message)
        match message:
            case SystemMessage():
                read.append(Message("system", text))
            case HumanMessage():
                read.append(Message("user", text))
            case AIMessage():
                names.update({str(call["id"]): call["name"] for call in message.tool_calls})
                calls = tuple(_call(call) for call in message.tool_calls)
                read.append(Message("assistant", text, calls, _said(message, model)))
            case ToolMessage():
                name = message.name or names.get(message.tool_call_id, "")
                read.append(Message("tool", text, tool=name, call=message.tool_call_id))
            case ChatMessage(role=("system" | "user" | "assistant") as role):
                read.append(Message(role, text))
            case _:
                raise BadMessage(
                    f"a {type(message).__name__} cannot be put before the model: use system, human, AI or tool"
                )
    return tuple(read)


def write_message(answer: Answer, *, model: str, fingerprint: str) -> AIMessage:
    """An answer as LangChain's message, with usage, its ids, and the facts about its context."""
    outcome = answer.outcome
    content = outcome.text
    calls = [ToolCall(name=call.name, args=call.arguments, id=call.id, type="tool_call") for call in outcome.calls]
    invalid = []
    # A call of an unknown tool is a call: whoever runs tools answers it. What could not be read is none.
    if outcome.kind in ("malformed", "truncated") and outcome.problems:
        told = "; ".join(map(str, outcome.problems))
        invalid.append(InvalidToolCall(name=None, args=answer.text, id=None, error=told, type="invalid_tool_call"))
    message = AIMessage(content=content, tool_calls=calls, invalid_tool_calls=invalid)
    message.usage_metadata = usage_of(answer.facts)
    message.response_metadata = _metadata(answer, model)
    message.response_metadata[KEY] |= {"model": fingerprint, "digest": digest_of(message)}
    return message


def usage_of(facts: Facts) -> UsageMetadata:
    """Token counts by LangChain's names; `cache_read` are the tokens that were not computed again."""
    return UsageMetadata(
        input_tokens=facts.prompt_tokens,
        output_tokens=facts.said_tokens,
        total_tokens=facts.prompt_tokens + facts.said_tokens,
        input_token_details=InputTokenDetails(cache_read=facts.reused_tokens, cache_creation=facts.computed_tokens),
    )


def facts_of(facts: Facts) -> dict[str, Any]:
    """A turn's facts as JSON."""
    return {name: getattr(facts, name) for name in Facts.__slots__}


def digest_of(message: AIMessage) -> str:
    """A short hash of what an answer says and calls, to see whether it was edited."""
    told = [_text(message), [[call["name"], call["args"]] for call in message.tool_calls]]
    return blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()


def _metadata(answer: Answer, model: str) -> dict[str, Any]:
    """The standard names, and under our key the ids and the facts."""
    facts = answer.facts
    reason = "tool_calls" if answer.calls else answer.reason
    ours = {
        "tokens": list(answer.tokens),
        "program": facts.program,
        "outcome": answer.outcome.kind,
        "turn": facts_of(facts),
    }
    told: dict[str, Any] = {"model_name": model, "model_provider": KEY, "finish_reason": reason, KEY: ours}
    if any(answer.top):
        told["logprobs"] = {"content": [list(top) for top in answer.top]}
    return told


def _said(message: AIMessage, model: str) -> tuple[int, ...]:
    ours = message.response_metadata.get(KEY)
    if not isinstance(ours, dict) or (ours.get("model"), ours.get("digest")) != (model, digest_of(message)):
        return ()
    return tuple(ours["tokens"])


def _call(call: ToolCall) -> Call:
    args: dict[str, Any] = dict(call["args"])
    return Call(str(call["id"]), call["name"], args, json.dumps(args, ensure_ascii=False, separators=(", ", ": ")))


def _text(message: BaseMessage) -> str:
    content = message.content
    if isinstance(content, str):
        return content
    parts = []
    for part in content:
        kind = "text" if isinstance(part, str) else part.get("type")
        if kind == "text":
            parts.append(part if isinstance(part, str) else str(part["text"]))
        elif kind not in _LEFT_OUT:
            raise BadMessage(
                f"the model reads text, and a message holds {kind!r}: leave it out or describe it in words"
            )
    return "".join(parts)
