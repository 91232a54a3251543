"""How many tokens a call takes at least: what every call of a tool is made of, cut as its tokenizer can cut it."""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .dialects import Dialect, render_calls
from .ids import followed
from .places import Node, resolve
from .schema import closed
from .spec import Tool

_BLANK, _GAP = "\x00", "\x01"
"""Where one blank may stand, and a place of which nothing is known: so many less one are so many characters."""
_DEEP = 16
_MUCH = 4_096
"""Characters to which a part is written out: more would only cost time."""
_FEW = 4
"""Blanks in a piece that may be a part of one word."""
_BLANKS = (b"", b" ", b"\n")
_NOTES = frozenset(["title", "description", "default", "examples", "$defs", "definitions", "$schema", "$id"])
_OBJECT = frozenset(["type", "properties", "required", "additionalProperties"])
_ARRAY = frozenset(["type", "items", "minItems", "maxItems", "uniqueItems"])


def skeleton(tool: Tool, dialect: Dialect) -> str:
    """What every call of the tool is made of, in its order: text, blanks that may be left out, and gaps."""
    before, after = render_calls(replace(dialect, quote=""), [(tool.name, _GAP)]).split(_GAP)
    if not dialect.head:
        before = before.replace(": ", f":{_BLANK}").replace(", ", f",{_BLANK}")
    if dialect.end and not (dialect.opening or dialect.head):
        edge = len(dialect.begin)
        before, after = before[:edge] + _BLANK + before[edge:], after.replace(dialect.end, _BLANK + dialect.end)
    root = {"type": "object", **closed(tool.parameters)}
    whole = _written(root, root, 0)
    known = not dialect.quote or whole == "{}"  # of what is no JSON, only where it ends
    return before + (whole if known else f"{{{_GAP}}}") + after


class Words:
    """A vocabulary, which can tell how few of its words a text takes."""

    def __init__(self, words: Sequence[bytes]) -> None:
        self._forward = sorted({word for word in words if word})
        self._backward = sorted(word[::-1] for word in self._forward)
        self._all = b"\n".join(self._forward)
        self._longest = max(map(len, self._forward), default=1)

    def least(self, skeleton: str) -> int:
        """Tokens below which there is no text that is made like this.

        Cuts between two tokens are counted: those inside of a known piece, at whose edges any word may go on into a
        gap, and those without which the characters of a gap would be one word that is too long. No cut is counted
        twice, so they add up.
        """
        pieces = [self._cuts(piece.encode()) for piece in re.split(f"{_GAP}+", skeleton)]
        gaps = [len(gap) // self._longest for gap in re.findall(f"{_GAP}+", skeleton)]
        return 1 + sum(pieces) + sum(gaps)

    def _cuts(self, piece: bytes) -> int:
        """The fewest cuts inside of a piece."""
        if len(piece) < 2 or any(variant in self._all for variant in self._variants(piece)):
            return 0
        size, mirrored = len(piece), piece[::-1]
        # What comes first may be the end of a word that began in the gap before.
        tails = {at for at in range(2, size) if size in self._walked(self._backward, mirrored, size - at)[1]}
        best = dict.fromkeys(tails | {1}, 1)
        found = size - 1
        for at in range(1, size):
            if at not in best:
                continue
            ends, reached = self._walked(self._forward, piece, at)
            if size in reached or at == size - 1:
                found = min(found, best[at])
            for place in ends | {at + 1}:  # a single byte can always be written
                best[place] = min(best.get(place, size), best[at] + 1)
        return found

    def _walked(self, words: Sequence[bytes], piece: bytes, start: int) -> tuple[set[int], set[int]]:
        """From here on: where words end that are whole, and how far words go that are not."""
        ends: set[int] = set()
        reached: set[int] = set()
        agenda = [(start, b"")]
        while agenda:
            at, text = agenda.pop()
            if at == len(piece):
                continue
            for letter in _BLANKS if piece[at] == 0 else (piece[at : at + 1],):
                longer = text + letter
                place = bisect_left(words, longer)
                if place == len(words) or not words[place].startswith(longer):
                    continue
                if longer:
                    reached.add(at + 1)
                    if words[place] == longer:
                        ends.add(at + 1)
                agenda.append((at + 1, longer))
        return ends, reached

    def _variants(self, piece: bytes) -> list[bytes]:
        """The piece with and without its blanks, where it may be a part of one word."""
        if len(piece) - piece.count(0) > self._longest or piece.count(0) > _FEW:
            return []
        found = [b""]
        for letter in piece:
            found = [each + more for each in found for more in (_BLANKS if letter == 0 else (bytes([letter]),))]
        return found


def _written(root: Node, node: Any, depth: int) -> str:
    """What every value of a schema is made of; of what is not plain to see, nothing is said."""
    unknown = 2 * _GAP
    if not isinstance(node, dict) or depth > _DEEP:
        return unknown
    reference = node.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        return _written(root, resolve(root, followed(reference)), depth + 1) if len(node) == 1 else unknown
    if "const" in node or "enum" in node:
        return _listed(node.get("enum", [node.get("const")]))
    keys = node.keys() - _NOTES
    kind = node.get("type")
    if kind == "string":
        least = node.get("minLength", 0)
        return f'"{_GAP * (min(int(least), _MUCH) + 1)}"'
    if kind == "null":
        return "null"
    if kind == "object" and keys <= _OBJECT:
        return _object(root, node, depth)
    if kind == "array" and keys <= _ARRAY:
        item = _written(root, node.get("items"), depth + 1)
        count = min(int(node.get("minItems", 0)), _MUCH // len(item))
        return f"[{f',{_BLANK}'.join([item] * count)}{_GAP}]"
    return unknown


def _listed(values: Sequence[Any]) -> str:
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    if len(texts) == 1 and isinstance(values[0], str | bool | None):
        return texts[0] if texts[0].isprintable() else 2 * _GAP
    return _GAP * (min(len(text.replace(" ", "")) for text in texts) + 1 if texts else 1)


def _object(root: Node, node: Node, depth: int) -> str:
    """Required properties stand in the order in which they are stated, and others before, between and behind them."""
    stated, required = node.get("properties", {}), set(node.get("required", ()))
    text, joined, first = "{", True, True
    for name, inner in stated.items():
        if name not in required:
            joined = False
            continue
        key = json.dumps(name, ensure_ascii=False)
        value = _written(root, inner, depth + 1)
        if not key.isprintable() or len(text) + len(value) > _MUCH:
            return text + _GAP + "}"
        between = _GAP if not joined else "" if first else f",{_BLANK}"
        text += f"{between}{key}:{_BLANK}{value}"
        joined, first = True, False
    whole = joined and required <= stated.keys() and node.get("additionalProperties") is False
    return text + ("}" if whole else _GAP + "}")
