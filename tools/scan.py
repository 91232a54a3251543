"""The object of a call, character by character: its name, and where its arguments begin and end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from .errors import MalformedCall
from .schema import loads

_BLANK = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Named:
    """The name is known."""

    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More raw text of the arguments object."""

    text: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The whole object is closed."""


Piece: TypeAlias = Named | Argued | Closed


class ObjectScanner:
    """Reads `{"name": ..., "arguments": {...}}`, keys in any order, and reports raw spans as they come.

    It finds boundaries and knows strings, so that braces and markers inside them mean nothing; whether the
    spans are JSON is for `loads` to say. The state is `inside`, then `closed` or `broken` (see `fault`).
    """

    def __init__(self, name_key: str, arguments_key: str, *, bare: bool = False) -> None:
        """`bare`: only the arguments are written, the name stood before them."""
        self._name_key = name_key
        self._arguments_key = arguments_key
        self.state: Literal["inside", "closed", "broken"] = "inside"
        self.fault = ""
        self._expect: Literal["{", "key", ":", "value", "in value", ","] = "value" if bare else "{"
        self._first = True
        self._bare = bare
        self._key: str | None = arguments_key if bare else None
        self._seen: set[str] = set()
        self._span: list[str] = []
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, text: str) -> tuple[int, list[Piece]]:
        """How many characters were used (all, unless the state changed), and what they held."""
        pieces: list[Piece] = []
        place = 0
        while place < len(text) and self.state == "inside":
            place = self._advance(text, place, pieces)
        return place, pieces

    def _advance(self, text: str, place: int, pieces: list[Piece]) -> int:
        if self._expect in ("key", "in value") and self._span:
            return self._within(text, place, pieces)
        char = text[place]
        if char in _BLANK:
            return place + 1
        match self._expect, char:
            case "{", "{":
                self._expect = "key"
            case "key", "}" if self._first:
                self._end(pieces)
            case "key", '"':
                self._open(char)
            case ":", ":":
                self._expect = "value"
            case "value", _:
                return self._value(text, place, pieces)
            case ",", ",":
                self._expect, self._first = "key", False
            case ",", "}":
                self._end(pieces)
            case _:
                wanted = {"{": "'{'", "key": "a key", ":": "':'", ",": "',' or '}'"}[self._expect]
                return self._break(place, f"expected {wanted}, found {char!r}")
        return place + 1

    def _value(self, text: str, place: int, pieces: list[Piece]) -> int:
        char = text[place]
        if self._key == self._name_key and char != '"':
            return self._break(place, f"{self._name_key!r} must be text, found {char!r}")
        if self._key == self._arguments_key and char not in "{n":
            return self._break(place, f"{self._arguments_key!r} must be an object, found {char!r}")
        self._expect = "in value"
        self._open(char)
        if self._streams:
            pieces.append(Argued(char))
        return place + 1

    def _open(self, char: str) -> None:
        self._span = [char]
        self._in_string = char == '"'
        self._escaped = False
        self._depth = int(char in "{[")

    @property
    def _streams(self) -> bool:
        return self._expect == "in value" and self._key == self._arguments_key and self._span[0] == "{"

    def _within(self, text: str, place: int, pieces: list[Piece]) -> int:
        """Over the inside of a key or a value, to its end or to the end of the text."""
        start = place
        scalar = self._span[0] not in '"{['
        done = False
        while place < len(text) and not done:
            char = text[place]
            if scalar and (char in ",}" or char in _BLANK):
                done = True
                break
            place += 1
            if self._in_string:
                done = self._string(char)
            elif char == '"':
                self._in_string = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                done = self._depth == 0
        self._span.append(text[start:place])
        if self._streams and place > start:
            pieces.append(Argued(text[start:place]))
        if done:
            self._finish("".join(self._span), pieces)
        return place

    def _string(self, char: str) -> bool:
        """One character inside a string; True when it ends a span that is this string."""
        if self._escaped:
            self._escaped = False
        elif char == "\\":
            self._escaped = True
        elif char == '"':
            self._in_string = False
            return self._depth == 0
        return False

    def _finish(self, span: str, pieces: list[Piece]) -> None:
        self._span = []
        if self._expect == "key":
            key = self._text_of(span)
            if key in self._seen:
                self._break(0, f"the key {key!r} stands there twice")
            elif key is not None:
                self._seen.add(key)
                self._key, self._expect = key, ":"
            return
        self._expect = ","
        if self._key == self._name_key:
            name = self._text_of(span)
            if name is not None:
                pieces.append(Named(name))
        elif self._key == self._arguments_key:
            if not span.startswith("{") and span != "null":
                self._break(0, f"{self._arguments_key!r} must be an object, found {span[:20]!r}")
            elif self._bare:
                self._end(pieces)
        else:
            self._break(0, f"the key {self._key!r} does not belong to a call")

    def _text_of(self, span: str) -> str | None:
        try:
            value = loads(span)
        except MalformedCall as fault:
            self._break(0, str(fault))
            return None
        assert isinstance(value, str)  # it began with a quote
        return value

    def _end(self, pieces: list[Piece]) -> None:
        self.state = "closed"
        pieces.append(Closed())

    def _break(self, place: int, fault: str) -> int:
        self.state, self.fault = "broken", fault
        return place
