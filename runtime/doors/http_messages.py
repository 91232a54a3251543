"""OpenAI's messages and ours: what was said comes back as the token ids it was sampled as."""

from __future__ import annotations

import json
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from ...tools import Call, MalformedCall, loads
from ..ask import Message
from ..errors import BadMessage
from .http_fields import Fields

ROOM = 1_000_000
"""Token ids that are remembered for a tenant: four megabytes."""
_ENTRY = 32
"""What an entry costs beside its tokens, counted in tokens."""


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of ours: its ids, and where it was said."""

    tokens: Sequence[int]
    program: str
    branch: str


Find = Callable[[Message], Said | None]


class Memory:
    """The ids of what we said, by tenant, session and digest; what was not used for longest is forgotten first.

    Tenants do not crowd each other out. `repr` shows how much is remembered.
    """

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._tenants: dict[str, OrderedDict[tuple[str, bytes], Said]] = {}
        self._used: dict[str, int] = {}

    def keep(self, tenant: str, session: str, message: Message, said: Said) -> None:
        """Remember the ids of an answer that goes out as `message`."""
        known = self._tenants.setdefault(tenant, OrderedDict())
        key = (session, digest_of(message))
        before = known.pop(key, None)
        known[key] = replace(said, tokens=array("I", said.tokens))
        used = self._used.get(tenant, 0) + _cost(said) - (_cost(before) if before is not None else 0)
        while used > self._room:
            _, oldest = known.popitem(last=False)
            used -= _cost(oldest)
        self._used[tenant] = used

    def find(self, tenant: str, session: str, message: Message) -> Said | None:
        """What was said as this very message; None if nobody remembers, or somebody changed it."""
        known = self._tenants.get(tenant)
        key = (session, digest_of(message))
        if known is None or key not in known:
            return None
        known.move_to_end(key)
        return known[key]

    def __repr__(self) -> str:
        return f"<Memory {sum(map(len, self._tenants.values()))} answers of {len(self._tenants)} tenants>"


def digest_of(message: Message) -> bytes:
    """A short hash of what an answer says and calls; how its arguments are spelled makes no difference."""
    calls = [[call.id, call.name, call.arguments or call.text] for call in message.calls]
    told = json.dumps([message.text, calls], sort_keys=True)
    return blake2b(told.encode(), digest_size=16).digest()


def read_messages(specs: Sequence[Mapping[str, Any]], find: Find) -> tuple[tuple[Message, ...], Said | None]:
    """OpenAI's messages as ours, and the last answer that called tools, if it was ours.

    Raises BadRequest for what is no message, BadMessage for content that the model cannot read.
    """
    if not specs:
        raise BadMessage("there are no messages: give at least one")
    names: dict[str, str] = {}
    read, last = [], None
    for index, spec in enumerate(specs):
        fields = Fields(spec, f"messages[{index}]")
        message = _read(fields, names)
        if message.role == "assistant":
            names.update({call.id: call.name for call in message.calls})
            said = find(message)
            if said is not None:
                message = replace(message, tokens=tuple(said.tokens))
                last = said if message.calls else last
        read.append(message)
    return tuple(read), last


def _read(fields: Fields, names: Mapping[str, str]) -> Message:
    role = fields.text("role")
    match role:
        case "system" | "developer":
            return Message("system", _text(fields))
        case "user":
            return Message("user", _text(fields))
        case "assistant":
            fields.refuse("function_call", "it was replaced by tool_calls")
            return Message("assistant", _text(fields), tuple(_calls(fields)))
        case "tool":
            answered = fields.text("tool_call_id")
            if not answered:
                raise fields.wrong("tool_call_id", "the id of the call that this answers")
            name = fields.text("name") or names.get(answered, "")
            return Message("tool", _text(fields), tool=name, call=answered)
    raise fields.wrong("role", "system, developer, user, assistant or tool")


def _text(fields: Fields) -> str:
    content = fields.raw("content")
    if content is None and fields.raw("role") == "assistant":
        return fields.text("refusal")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise fields.wrong("content", "text, or a list of parts of text")
    texts = []
    for index, part in enumerate(content):
        inner = Fields(part, f"{fields.place('content')}[{index}]")
        kind = inner.text("type")
        if kind not in ("text", "refusal"):
            raise BadMessage(f"{inner.where} is {kind!r}: the model reads text; leave it out or describe it in words")
        texts.append(inner.text(kind))
    return "".join(texts)


def _calls(fields: Fields) -> list[Call]:
    calls = []
    for index, spec in enumerate(fields.objects("tool_calls")):
        call = Fields(spec, f"{fields.place('tool_calls')}[{index}]")
        if call.text("type", "function") != "function":
            raise call.wrong("type", "'function'")
        function = call.inner("function")
        name = function.text("name")
        if not name:
            raise function.wrong("name", "the name of the tool that was called")
        text = function.text("arguments", "{}")
        calls.append(Call(call.text("id"), name, _arguments(text), text))
    return calls


def _arguments(text: str) -> dict[str, Any]:
    """What the text says; nothing for a call that was cut off or is no JSON, which stays as it was written."""
    try:
        value = loads(text)
    except MalformedCall:
        return {}
    return value if isinstance(value, dict) else {}


def _cost(said: Said) -> int:
    return len(said.tokens) + _ENTRY
