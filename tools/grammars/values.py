"""Schemas as rules that both engines read: objects, lists and choices written out, plain values left to the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

from ..apart import apart
from ..errors import GrammarRefused
from ..ids import followed
from ..places import Node, escape, resolve

Leaf: TypeAlias = Callable[[Node], "str | None"]
"""The body of the rule for a schema that an engine takes as it is; None for one that is to be written out.

Raises Nothing for one that no value fits."""

PLACE = "§"
"""Stands in the names of rules for what tells one tool's from another's."""
NUMBER = (
    r"NUMBER: /-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,17})?"
    r"([eE]([+-]?[0-9]{1,2}|-[0-9]{3}|\+?(1[0-9]{2}|2[0-8][0-9])))?/"
)
"""A number that states no bounds: as long as a double is written, and never too large for one."""
NOTHING_FITS = "no value fits it"

_CHOICES = ("anyOf", "oneOf")
HINTS = {
    "object": frozenset(
        [
            "properties", "required", "additionalProperties", "patternProperties", "minProperties", "maxProperties",
            "propertyNames", "dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties",
        ]
    ),
    "array": frozenset(
        [
            "items", "prefixItems", "additionalItems", "minItems", "maxItems", "contains", "uniqueItems",
            "minContains", "maxContains", "unevaluatedItems",
        ]
    ),
    "string": frozenset(["pattern", "minLength", "maxLength", "format"]),
    "number": frozenset(["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"]),
}  # fmt: skip
"""What is said of values of one type."""
ANYWHERE = frozenset(["not", "if", "then", "else", "allOf", "anyOf", "oneOf", "$ref", "$dynamicRef", "$recursiveRef"])
"""What is said of values of every type, and no plain list of them."""
ASSERTING = ANYWHERE.union(["enum", "const", "type"], *HINTS.values())
_WRITTEN = {
    "object": frozenset(["properties", "required", "additionalProperties", "minProperties", "maxProperties"]),
    "array": frozenset(["items", "prefixItems", "additionalItems", "minItems", "maxItems"]),
}


class Nothing(Exception):
    """No value fits this part of a schema."""


class Written:
    """The rules of one schema. `residual` are the keywords that they leave out."""

    def __init__(self, root: Node, leaf: Leaf, *, items: int, key: Callable[[str], str] | None = None) -> None:
        """`items`: how many a list or a mapping holds at most that states no limit; `key` writes a key, as JSON unless
        given. Raises GrammarRefused."""
        self._root = root
        self._leaf = leaf
        self._items = items
        self._key = key or literal
        self._names: dict[str, str] = {}
        self.rules: list[str] = []
        self.residual: set[str] = set()
        try:
            self.start = self._rule("")
        except Nothing:
            raise GrammarRefused("the schema", NOTHING_FITS) from None
        except RecursionError:
            raise GrammarRefused("the schema", "its references lead too deep") from None

    def _rule(self, path: str) -> str:
        if path in self._names:
            return self._names[path]
        kept = len(self.rules), dict(self._names)
        name = self._names[path] = f"v{PLACE}_{len(self._names)}"
        try:
            self.rules.append(f"{name}: {self._body(path, resolve(self._root, path))}")
        except Nothing:
            del self.rules[kept[0] :]
            self._names = kept[1]
            raise
        return name

    def _body(self, path: str, node: Any) -> str:
        if node is False:
            raise Nothing
        if node is True:
            node = {}
        found = self._leaf(node)
        if found is not None:
            return found
        if isinstance(reference := node.get("$ref"), str):
            self.residual |= (ASSERTING & node.keys()) - {"$ref"}
            return self._rule(followed(reference))
        if {"properties", "items", "prefixItems"}.isdisjoint(node):
            for key in (*_CHOICES, "allOf"):
                if key in node:
                    return self._choice(path, node, key)
        kind = node.get("type") or next((kind for kind in ("object", "array") if HINTS[kind] & node.keys()), "object")
        if isinstance(kind, list):
            return self._kinds(path, node, kind)
        return self._object(path, node) if kind == "object" else self._array(path, node)

    def _choice(self, path: str, node: Node, key: str) -> str:
        """One of several. Of what all must fit, the first: a rule takes no two."""
        listed = node[key]
        whole = key == "anyOf" or len(listed) == 1 or (key == "oneOf" and apart(self._root, listed))
        done = {key} if whole else set()
        if "type" in node and all(_states(self._root, each, node["type"]) for each in listed):
            done.add("type")
        self.residual |= (ASSERTING & node.keys()) - done
        return self._one_of([f"{path}/{key}/{place}" for place in range(1 if key == "allOf" else len(listed))])

    def _kinds(self, path: str, node: Node, kinds: Sequence[str]) -> str:
        """A node of several types is one of each: they stand beside it, where a pointer leads nowhere else."""
        places = []
        for kind in kinds:
            word = f"as {kind}"
            node[word] = {key: value for key, value in node.items() if not key.startswith("as ")} | {"type": kind}
            places.append(f"{path}/{word}")
        return self._one_of(places)

    def _one_of(self, paths: Sequence[str]) -> str:
        names = []
        for path in paths:
            with suppress(Nothing):
                names.append(self._rule(path))
        if not names:
            raise Nothing
        return " | ".join(names)

    def _object(self, path: str, node: Node) -> str:
        """Stated properties in their order, and no others; a mapping where none is stated."""
        stated, required = node.get("properties", {}), node.get("required", ())
        others = "additionalProperties" if "additionalProperties" in node else "unevaluatedProperties"
        extra = node.get(others, True)
        self._leave(node, "object", others)
        members: list[tuple[str, bool]] = []
        for name in [*stated, *(name for name in required if name not in stated)]:
            where = f"{path}/properties/{escape(name)}" if name in stated else f"{path}/{others}"
            try:
                if name not in stated and extra is False:
                    raise Nothing
                rule = self._rule(where) if name in stated or others in node else self._shared("any", {})
            except Nothing:
                if name in required:
                    raise
                continue
            members.append((f"{self._key(name)} COLON {rule}", name in required))
        least, most = node.get("minProperties", 0), node.get("maxProperties", len(members))
        if members:
            if least > sum(needed for _, needed in members):
                self.residual.add("minProperties")
            if most < len(members):
                self.residual.add("maxProperties")
            return f'"{{" {self._ordered(members)} "}}"'
        if extra is False:
            return '"{" "}"'
        value = self._shared("any", {}) if extra is True else self._rule(f"{path}/{others}")
        entry = f"{self._shared('key', {'type': 'string'})} COLON {value}"
        return self._repeated("{}", entry, node.get("minProperties", 0), node.get("maxProperties"))

    def _ordered(self, members: Sequence[tuple[str, bool]]) -> str:
        """Each after a comma but the first that is there."""
        if all(needed for _, needed in members):
            return " COMMA ".join(member for member, _ in members)
        tail = ""
        starts: list[str] = []
        for member, needed in reversed(members):
            starts = [f"{member} {tail}", *([] if needed else starts)]
            name = f"t{PLACE}_{len(self.rules)}"
            self.rules.append(f"{name}: {'' if needed else '('}COMMA {member}{'' if needed else ')?'} {tail}")
            tail = name
        some = any(needed for _, needed in members)
        return f"({' | '.join(starts)}){'' if some else '?'}"

    def _array(self, path: str, node: Node) -> str:
        self._leave(node, "array")
        old = isinstance(node.get("items"), list)  # before 2020-12, places stood there
        places, others = ("items", "additionalItems") if old else ("prefixItems", "items")
        first = [f"{path}/{places}/{place}" for place in range(len(node.get(places, ())))]
        least, most = node.get("minItems", 0), node.get("maxItems")
        try:
            rule = f"{path}/{others}"
            value = self._shared("any", {}) if node.get(others, True) is True else self._rule(rule)
        except Nothing:
            value, most = "", len(first) if most is None else min(len(first), most)
        elements = []
        for each in first[:most]:
            try:
                elements.append(self._rule(each))
            except Nothing:  # so that the list must end before it
                value, most = "", len(elements)
                break
        if most is not None and most < least:
            raise Nothing
        if not elements:
            return self._repeated("[]", value, least, most)
        rest = least - len(elements), (max(self._items, least) if most is None else most) - len(elements)
        tail = f"(COMMA {value}){{{max(0, rest[0])},{rest[1]}}}" if value and rest[1] > 0 else ""
        for place in range(len(elements) - 1, 0, -1):
            tail = f"COMMA {elements[place]} {tail}" if place < least else f"(COMMA {elements[place]} {tail})?"
        inner = f"{elements[0]} {tail}" if elements else ""
        return f'"[" {inner} "]"' if least or not inner else f'"[" ({inner})? "]"'

    def _leave(self, node: Node, kind: str, *done: str) -> None:
        """Takes down what these rules leave out of an object or a list."""
        self.residual |= ((ANYWHERE | HINTS[kind]) & node.keys()) - _WRITTEN[kind] - set(done)

    def _repeated(self, around: str, value: str, least: int, most: int | None) -> str:
        most = max(self._items, least) if most is None else most
        if most < least:
            raise Nothing
        before, after = (f'"{each}"' for each in around)
        if most == 0:
            return f"{before} {after}"
        inner = f"{value} (COMMA {value}){{{max(0, least - 1)},{most - 1}}}"
        return f"{before} {inner} {after}" if least else f"{before} ({inner})? {after}"

    def _shared(self, name: str, node: Node) -> str:
        """What many places have in common."""
        if name not in self._names:
            found = self._leaf(node)
            assert found is not None  # engines have something for all values and for all strings
            self._names[name] = f"{name}{PLACE}"
            self.rules.append(f"{name}{PLACE}: {found}")
        return self._names[name]


def literal(value: Any) -> str:
    """Exactly this JSON, as a rule writes it."""
    text = json.dumps(json.dumps(value, ensure_ascii=False), ensure_ascii=False)
    return text.replace("\x7f", "\\u007f")


def _states(root: Node, node: Any, kind: Any) -> bool:
    """Whether a schema has no values but of these types."""
    for _ in range(8):
        if isinstance(node, Mapping) and isinstance(reference := node.get("$ref"), str) and reference.startswith("#/"):
            node = resolve(root, followed(reference))
    if not isinstance(node, Mapping):
        return False
    wanted = {kind} if isinstance(kind, str) else set(kind)
    own = node.get("type", [])
    found = {own} if isinstance(own, str) else set(own)
    return bool(found) and found <= wanted
