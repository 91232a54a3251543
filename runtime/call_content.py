"""Questions and answers as the content of a span: roles and parts, as the GenAI conventions have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any

from ..tools import Call
from ..tracing import names
from .answer import Answer
from .ask import Ask, Message


def asked(ask: Ask) -> dict[str, object]:
    """What is asked: instructions are the system messages at the head; a prompt of mere ids has no messages."""
    head = list(takewhile(lambda message: message.role == "system", ask.messages))
    rest = ask.messages[len(head) :]
    found: dict[str, object] = {}
    if head:
        found[names.SYSTEM_INSTRUCTIONS] = [_text(message.text) for message in head]
    if rest:
        found[names.INPUT_MESSAGES] = [{"role": message.role, "parts": _parts(message)} for message in rest]
    if ask.tools:
        found[names.TOOL_DEFINITIONS] = [
            {
                "type": "function",
                "name": tool.name,
                "description": tool.description,
                "parameters": dict(tool.parameters),
            }
            for tool in ask.tools
        ]
    return found


def answered(answer: Answer) -> dict[str, object]:
    """What was answered; of a call that nobody can read, its text."""
    text = answer.outcome.text or ("" if answer.calls else answer.text)
    why = "tool_call" if answer.calls else answer.reason
    told = {"role": "assistant", "parts": [*_said(text), *_calls(answer.calls)], "finish_reason": why}
    return {names.OUTPUT_MESSAGES: [told]}


def _parts(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [{"type": "tool_call_response", "id": message.call, "response": message.text}]
    return [*_said(message.text), *_calls(message.calls)]


def _said(text: str) -> list[dict[str, Any]]:
    return [_text(text)] if text else []


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "content": text}


def _calls(calls: Sequence[Call]) -> Iterable[dict[str, Any]]:
    return [{"type": "tool_call", "id": call.id, "name": call.name, "arguments": call.arguments} for call in calls]
