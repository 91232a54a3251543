"""Values written without JSON: keys bare, strings as they are between two marks. Here they are written and read."""

from __future__ import annotations

import json
import re
from typing import Literal, TypeAlias

from .places import Json
from .scan import Argued, Closed, Piece

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.$-]*")
_BLANK = " \t\r\n"
_SIGNS = "{}[],:"

_Expect: TypeAlias = Literal["{", "key", ":", "value", ","]


def bare(value: Json, quote: str) -> str:
    """A value as it is written; a mark inside of a string is broken up, since nothing could escape it."""
    if isinstance(value, str):
        return quote + broken(value, quote) + quote
    if isinstance(value, dict):
        return "{" + ",".join(f"{bare_key(key, quote)}:{bare(inner, quote)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(bare(inner, quote) for inner in value) + "]"
    return json.dumps(value)


def bare_key(key: str, quote: str) -> str:
    """A key as it is written: between marks only where it would not be read as one word."""
    return key if _NAME.fullmatch(key) else quote + broken(key, quote) + quote


def broken(text: str, mark: str) -> str:
    """The text with a blank inside of every such mark, which is then none."""
    return text.replace(mark, mark[:1] + " " + mark[1:])


class BareScanner:
    """Reads such an object and reports it as JSON while it comes, as `json.dumps` spaces it.

    As with ObjectScanner, the state is `inside`, then `closed` or `broken`, and whether numbers and words are JSON is
    for `loads` to say.
    """

    def __init__(self, quote: str) -> None:
        self._quote = quote
        self.state: Literal["inside", "closed", "broken"] = "inside"
        self.fault = ""
        self._expect: _Expect = "{"
        self._open: list[str] = []
        self._first = True
        self._word = ""
        self._in_string = False

    def feed(self, text: str) -> tuple[int, list[Piece]]:
        """How many characters were used, and what they held; what may be the beginning of a mark is not used yet."""
        out: list[str] = []
        place: int | None = 0
        used = 0
        while place is not None and place < len(text) and self.state == "inside":
            place = self._string(text, place, out) if self._in_string else self._step(text, place, out)
            used = used if place is None else place
        pieces: list[Piece] = [Argued("".join(out))] if out else []
        return used, [*pieces, Closed()] if self.state == "closed" else pieces

    def _string(self, text: str, place: int, out: list[str]) -> int | None:
        """Over the inside of a string, as far as no mark can begin; None where all that is left may be one."""
        end = text.find(self._quote, place)
        if end >= 0:
            out.append(_escaped(text[place:end]) + '"')
            self._in_string = False
            self._told()
            return end + len(self._quote)
        held = next((n for n in range(len(self._quote) - 1, 0, -1) if text.endswith(self._quote[:n], place)), 0)
        out.append(_escaped(text[place : len(text) - held]))
        return len(text) - held if len(text) - held > place else None

    def _step(self, text: str, place: int, out: list[str]) -> int | None:
        char = text[place]
        if char not in _SIGNS + _BLANK and not char == self._quote[0]:
            if self._expect not in ("key", "value"):
                return self._break(place, char)
            self._word += char
            return place + 1
        if self._word:
            out.append(json.dumps(self._word, ensure_ascii=False) if self._expect == "key" else self._word)
            self._word = ""
            self._told()
            return place
        if char in _BLANK:
            return place + 1
        if char in _SIGNS:
            return self._sign(char, place, out)
        if not text.startswith(self._quote, place):
            return None if self._quote.startswith(text[place:]) else self._break(place, char)
        if self._expect not in ("key", "value"):
            return self._break(place, self._quote)
        out.append('"')
        self._in_string = True
        return place + len(self._quote)

    def _sign(self, char: str, place: int, out: list[str]) -> int:
        inside = self._open[-1] if self._open else ""
        match self._expect, char:
            case (("{" | "value"), "{"):
                self._expect = "key"
            case "value", "[":
                pass
            case ("key", "}") | ("value", "]") if self._first and inside + char in ("{}", "[]"):
                return self._close(char, place, out)
            case ",", "}" | "]" if inside + char in ("{}", "[]"):
                return self._close(char, place, out)
            case (",", ",") | (":", ":"):
                self._expect = "key" if char == "," and inside == "{" else "value"
                self._first = False
                out.append(char + " ")
                return place + 1
            case _:
                return self._break(place, char)
        self._open.append(char)
        self._first = True
        out.append(char)
        return place + 1

    def _close(self, char: str, place: int, out: list[str]) -> int:
        out.append(char)
        self._open.pop()
        self._expect = ","
        if not self._open:
            self.state = "closed"
        return place + 1

    def _told(self) -> None:
        """A key or a value came to its end."""
        self._expect = ":" if self._expect == "key" else ","

    def _break(self, place: int, found: str) -> int:
        wanted = {"{": "'{'", "key": "a key", "value": "a value", ":": "':'", ",": "',' or an end"}[self._expect]
        self.state, self.fault = "broken", f"expected {wanted}, found {found!r}"
        return place


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
