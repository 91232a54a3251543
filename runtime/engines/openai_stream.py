"""A server's stream, read as what a model of the Hermes dialect would have written."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Mapping
from typing import Any

from ...tools import HERMES, MalformedCall, loads, render_call
from ...tools.scan import ObjectScanner
from ..errors import EngineFailed
from . import End, Usage

Fail = Callable[[str, str], EngineFailed]
"""Makes the error that says what a server did, what it sent there, and who it is."""

DONE = "[DONE]"

_BROKEN = frozenset({"abort", "cancelled", "content_filter", "error", "insufficient_system_resource"})
"""Reasons that are no end: what was said so far must not be taken for an answer."""


class Events:
    """The data of server-sent events, from bytes that may be split anywhere (WHATWG HTML, section 9.2).

    Lines end with CR, LF or both, and with nothing else: JSON text may hold any other character that Python takes for
    the end of a line. An event without its empty line at the end of the stream is none.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("replace").decode
        self._rest = ""
        self._after_cr = False
        self._data: list[str] = []

    @property
    def held(self) -> int:
        """Characters of an event that has not ended."""
        return len(self._rest) + sum(map(len, self._data))

    def feed(self, data: bytes) -> list[str]:
        """The data of the events that end with these bytes."""
        text = self._decode(data)
        if not text:
            return []
        if self._after_cr:
            text = text.removeprefix("\n")
        self._after_cr = text.endswith("\r")
        *lines, self._rest = (self._rest + text.replace("\r\n", "\n").replace("\r", "\n")).split("\n")
        ended = []
        for line in lines:
            field, _, value = line.partition(":")
            if field == "data":
                self._data.append(value.removeprefix(" "))
            elif not line and self._data:
                ended.append("\n".join(self._data))
                self._data = []
        return ended


class Reading:
    """An answer as its events come: what each adds to the text, and at last why it ended and what was counted.

    Thoughts that a server tells beside the answer are left out: they are not said.
    """

    def __init__(self, fail: Fail, *, calls: bool = True) -> None:
        """`calls`: whether the text will be searched for calls; then what only looks like one is broken up."""
        self._fail = fail
        self._scribe = Scribe(fail, calls=calls)
        self.end: End | None = None
        self.usage: Usage | None = None
        self.logprob = 0.0
        """Of what the last event said, under the model's own distribution; 0 where the server does not tell."""
        self.over = False
        """Nothing more will come."""

    def take(self, data: str) -> str:
        """The text that an event adds. Raises EngineFailed for what is no event, and for an error the server tells."""
        self.logprob = 0.0
        if self.over or data.strip() == DONE:
            self.over = True
            return ""
        event = self._event(data)
        if isinstance(usage := event.get("usage"), dict):
            self.usage = _usage(usage)
        choices = event.get("choices") or []
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise self._fail("it sent choices of a form that is not OpenAI's", data)
        return "".join(self._choice(choice) for choice in choices if not choice.get("index"))

    def close(self) -> str:
        """The rest of the text: whatever was waiting for the end."""
        return self._scribe.close(cut=self.end == "length")

    def _event(self, data: str) -> dict[str, Any]:
        try:
            event = json.loads(data)
        except (ValueError, RecursionError):
            raise self._fail("it sent what is not JSON", data) from None
        match event:
            case {"error": error} if error:
                raise self._fail("it broke off", told(error))
            case {"object": "error"}:
                raise self._fail("it broke off", told(event))
            case dict():
                return event
        raise self._fail("it sent JSON that is no object", data)

    def _choice(self, choice: Mapping[str, Any]) -> str:
        delta = choice.get("delta") or choice.get("message") or {}  # the latter from servers that do not stream
        if not isinstance(delta, dict):
            raise self._fail("it sent a delta of a form that is not OpenAI's", told(delta))
        said = [self._scribe.text(self._text(delta.get(key))) for key in ("content", "refusal")]
        calls = delta.get("tool_calls") or []
        if not isinstance(calls, list):
            raise self._fail("it sent tool calls that are no list", told(calls))
        said += map(self._call, calls)
        self.logprob += _logprob(choice.get("logprobs"))
        if reason := str(choice.get("finish_reason") or ""):
            if reason in _BROKEN:
                raise self._fail("it broke off, so that what it said is no answer, for the reason", reason)
            self.end = "length" if reason in ("length", "max_tokens") else "stop"
        return "".join(said)

    def _call(self, entry: Any) -> str:
        match entry:
            case {"function": {**function}}:
                name, arguments = function.get("name") or "", function.get("arguments") or ""
                if isinstance(arguments, dict):
                    arguments = json.dumps(arguments, ensure_ascii=False)
                if isinstance(name, str) and isinstance(arguments, str):
                    index, key = entry.get("index"), entry.get("id") or ""
                    place = index if isinstance(index, int) else None
                    return self._scribe.call(place, str(key), _sound(name), _sound(arguments))
        raise self._fail("it sent a tool call of a form that is not OpenAI's", told(entry))

    def _text(self, content: Any) -> str:
        match content:
            case None:
                return ""
            case str():
                return _sound(content)
            case list():  # parts, of which thoughts are some
                return "".join(self._text(part.get("text")) for part in content if isinstance(part, dict))
        raise self._fail("it sent content that is no text", told(content))


class Scribe:
    """Writes text and calls one after the other, though a server may send several calls at once.

    The first call is written as it comes; what comes behind it waits until its arguments are whole, or the answer
    ends. Arguments stay byte for byte what the server sent. Whatever it sends, the text holds no call but these: text
    that looks like one is broken up, and arguments that are no object are left as a call that cannot be read.
    """

    def __init__(self, fail: Fail, *, calls: bool = True) -> None:
        self._fail = fail
        self._breaks = HERMES.begin if calls else ""
        self._tail = ""
        self._open: list[_Draft] = []
        self._by_index: dict[int, _Draft] = {}
        self._last: _Draft | None = None
        self._later: list[str] = []

    def text(self, text: str) -> str:
        """Text of the answer."""
        if not text:
            return ""
        self._later.append(text)
        return self._write(None) + self._rest()

    def call(self, index: int | None, key: str, name: str, arguments: str) -> str:
        """A piece of a call. Servers leave out `index`, or give all calls the same: the id and name then tell."""
        draft = self._last if index is None else self._by_index.get(index)
        if draft is None or draft.another(key, name, arguments):
            draft = _Draft(key)
            self._open.append(draft)
        if index is not None:
            self._by_index[index] = draft
        self._last = draft
        if draft not in self._open and arguments.strip():
            raise self._fail("it went on with the arguments of a call after they were whole", arguments)
        draft.take(name, arguments)
        return self._write(draft)

    def close(self, *, cut: bool) -> str:
        """The end of all that is open. Where the answer was cut, its last call stays open: who knows what it lacks."""
        written = []
        for draft in self._open:
            written.append(draft.write(now=True))
            if cut and draft is self._last:
                return "".join(written)
            written.append(draft.close())
        self._open = []
        return "".join(written) + self._rest()

    def _write(self, going_on: _Draft | None) -> str:
        """What can be written by now. A call is closed when it is whole and something else has come behind it."""
        written = []
        while self._open:
            first = self._open[0]
            written.append(first.write())
            if self._open == [going_on] or not first.whole:
                break
            written += first.write(now=True), first.close()
            self._open.pop(0)
        return "".join(written)

    def _rest(self) -> str:
        """Text, as soon as no call stands before it."""
        if self._open:
            return ""
        later, self._later = self._later, []
        return self._harmless("".join(later))

    def _harmless(self, text: str) -> str:
        """The text, each begin marker in it broken up: before its last character, so that nothing need wait."""
        if not self._breaks:
            return text
        joined = self._tail + text
        kept = len(self._tail)
        self._tail = joined[-(len(self._breaks) - 1) :]
        return joined.replace(self._breaks, f"{self._breaks[:-1]} {self._breaks[-1]}")[kept:]


class _Draft:
    """A call that a server is sending."""

    def __init__(self, key: str) -> None:
        self.name = ""
        self._key = key
        self._arguments: list[str] = []
        self._pending = ""
        self._after = ""
        self._scanner = ObjectScanner(HERMES.name_key, HERMES.arguments_key)

    def another(self, key: str, name: str, arguments: str) -> bool:
        """Whether a piece begins another call: it brings a name, and an id or arguments that cannot be this one's."""
        if not name:
            return False
        if key and self._key:
            return key != self._key
        return bool(arguments.strip()) and self.whole

    def take(self, name: str, arguments: str) -> None:
        if not self._after and name != self.name:  # some servers say the name with every piece
            self.name += name
        self._arguments.append(arguments)
        self._pending += arguments

    @property
    def whole(self) -> bool:
        """Whether the arguments are an object that has ended. Costs as much as reading it."""
        if not self._pending.strip() and not self._after:
            return False
        text = "".join(self._arguments)
        self._arguments = [text]
        if not text.rstrip().endswith("}"):
            return False
        try:
            return isinstance(loads(text), dict)
        except MalformedCall:
            return False

    def write(self, *, now: bool = False) -> str:
        """What has come and is not written. A call begins when its name is known to be whole, or must be, `now`."""
        if not self._after and not now and not (self.name and self._pending.strip()):
            return ""
        begun = "" if self._after else self._begin()
        text, self._pending = self._pending, ""
        if self._scanner.state != "inside":
            return begun
        used, _ = self._scanner.feed(text)
        # Behind an object that is broken, or closed too early, more text might be read as markers: it ends there.
        return begun + (text if self._scanner.state == "inside" else text[: used + 1])

    def close(self) -> str:
        blank = not "".join(self._arguments).strip()
        return ("{}" if blank else "") + self._after

    def _begin(self) -> str:
        hole = "\0"  # which no JSON holds
        before, _, self._after = render_call(HERMES, self.name, hole).partition(hole)
        self._scanner.feed(before.removeprefix(HERMES.begin))
        return before


def told(what: Any) -> str:
    """What a server said of its fault, as short as it can be found."""
    match what:
        case str():
            return what
        case {"message": str(message)} | {"error": {"message": str(message)}} | {"error": str(message)}:
            return message
    return json.dumps(what, ensure_ascii=False)


def _sound(text: str) -> str:
    """The text without halves of surrogate pairs, which nobody after us could write down."""
    return text if text.isascii() else text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _usage(usage: Mapping[str, Any]) -> Usage:
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Usage(_count(usage.get("prompt_tokens")), _count(cached), _count(usage.get("completion_tokens")))


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _logprob(logprobs: Any) -> float:
    match logprobs:
        case {"content": [*tokens]}:
            each = (token.get("logprob") for token in tokens if isinstance(token, dict))
            return float(sum(value for value in each if isinstance(value, int | float)))
    return 0.0
