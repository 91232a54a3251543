"""Plain values as rules, for engines and dialects whose own reading of schemas is not enough."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import Any, Protocol

from ..bare import bare, bare_key
from ..places import Json, Node
from ..validate import Validator
from .turns import Spell
from .values import ANYWHERE, ASSERTING, HINTS, Nothing, literal


class Numbers(Protocol):
    """An engine's own rules for numbers."""

    residual: set[str]
    named: dict[str, str]

    def number(self, node: Node, kind: str) -> str:
        """Of this kind, `number` or `integer`. Raises Nothing."""
        ...


class Leaves(ABC):
    """What an object or a list is made of is told by Written, all else here; `residual` is what that leaves out."""

    def __init__(self) -> None:
        self.residual: set[str] = set()

    def __call__(self, node: Node) -> str | None:
        if "enum" in node or "const" in node:
            return " | ".join(self._literal(value) for value in self._listed(node))
        if not node:
            return self._anything()
        if {"$ref", "anyOf", "oneOf", "allOf"} & node.keys() and "type" not in node:
            return None
        kind = node.get("type") or next((kind for kind, words in HINTS.items() if words & node.keys()), None)
        if kind is None:
            self.residual |= ASSERTING & node.keys()
            return self._anything()
        if isinstance(kind, list) or kind in ("object", "array"):
            return None
        self.residual |= ANYWHERE & node.keys()
        if kind == "boolean":
            return '"true" | "false"'
        if kind == "null":
            return '"null"'
        return self._string(node) if kind == "string" else self.number(node, kind)

    def _listed(self, node: Node) -> list[Json]:
        """The values that are listed and fit what else is said of them."""
        values = node.get("enum", [node.get("const")])
        others = {key: value for key, value in node.items() if key not in ("$defs", "definitions")}
        if any(word in json.dumps(others) for word in ('"$ref"', '"$dynamicRef"', '"$recursiveRef"')):
            self.residual |= others.keys() & {"$ref", "$dynamicRef", "allOf", "anyOf", "oneOf", "not", "properties"}
            return list(values)
        check = Validator(others)
        if not (fitting := [value for value in values if check.problems(value) == ()]):
            raise Nothing
        return fitting

    def _anything(self) -> str:
        plain = f'{self._text(0, None)} | NUMBER | "true" | "false" | "null"'
        some = f"({plain})"
        entry = f"{self._text(0, None)} COLON {some}"
        return f'{plain} | "[" ({some} (COMMA {some}){{0,15}})? "]" | "{{" ({entry})? "}}"'

    def _literal(self, value: Json) -> str:
        return literal(value)

    @abstractmethod
    def _string(self, node: Node) -> str: ...

    @abstractmethod
    def _text(self, least: int, most: int | None) -> str: ...

    @abstractmethod
    def number(self, node: Node, kind: str) -> str:
        """Of this kind, `number` or `integer`. Raises Nothing."""


class Marked(Leaves):
    """Plain values where strings stand as they are between two marks; patterns and formats are left to the check."""

    def __init__(self, quote: str, spelled: Spell, numbers: Numbers, characters: int) -> None:
        """`characters`: of a string that states no limit."""
        super().__init__()
        self.residual = numbers.residual
        self._quote = quote
        self._spelled = spelled
        self._numbers = numbers
        self._characters = characters
        self._token = not spelled(quote).startswith('"')

    def key(self, name: str) -> str:
        """A key, as a rule writes it."""
        return self._spelled(bare_key(name, self._quote))

    def number(self, node: Node, kind: str) -> str:
        """See Leaves."""
        return self._numbers.number(node, kind)

    def _literal(self, value: Any) -> str:
        return self._spelled(bare(value, self._quote))

    def _string(self, node: Node) -> str:
        least, most = node.get("minLength", 0), node.get("maxLength")
        if most is not None and least > most:
            raise Nothing
        self.residual |= {"pattern", "format"} & node.keys()
        return self._text(least, most)

    def _text(self, least: int, most: int | None) -> str:
        """Text in which no mark can begin. Where a limit is stated, every character counts as one."""
        first, second = self._quote[0], self._quote[1]
        char = f"[^{first}]"
        if most is None:
            most = max(self._characters, least)
            char = char if least else f"({char}|{first}[^{first}{second}])"
        mark = self._spelled(self._quote)
        if self._token:  # it is no text, so nothing of it can be taken for text
            text = f"/{char}{{{max(1, least)},{most}}}/" if most else ""
            return f"{mark} {text} {mark}" if least or not text else f"{mark} ({text})? {mark}"
        end = "".join(f"\\{each}" if each == "|" else each for each in self._quote)
        return f"{mark} /{char}{{{least},{most}}}{end}/"
