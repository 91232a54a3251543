"""Where in a JSON Schema its schemas stand, and where its references lead."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias
from urllib.parse import unquote

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Node: TypeAlias = "dict[str, Any]"

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_ONES = (
    "items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else",
    "propertyNames", "unevaluatedProperties", "unevaluatedItems", "contentSchema",
)  # fmt: skip


def children(node: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The schemas directly inside a schema, as (keyword, step of a JSON Pointer, schema)."""
    for key in _MAPS:
        if key in node and isinstance(inner := node[key], Mapping):
            for name, child in inner.items():
                if isinstance(child, (Mapping, bool)):
                    yield key, f"/{key}/{escape(name)}", child
    for key in _LISTS:
        if key in node and isinstance(inner := node[key], list):
            for place, child in enumerate(inner):
                yield key, f"/{key}/{place}", child
    for key in _ONES:
        if key in node and isinstance(inner := node[key], (Mapping, bool)):
            yield key, f"/{key}", inner


def places(root: Node) -> Iterator[tuple[str, Node]]:
    """Every schema in the document, and what a local reference reaches outside the usual places."""
    agenda: list[tuple[str, Any]] = [("", root)]
    seen: set[str] = set()
    while agenda:
        path, node = agenda.pop()
        if path in seen or not isinstance(node, Mapping):
            continue
        seen.add(path)
        yield path, dict(node)
        agenda += [(path + step, child) for _, step, child in children(node)]
        reference = node.get("$ref")
        if isinstance(reference, str) and reference.startswith("#/"):
            agenda.append((unquote(reference[1:]), resolve(root, unquote(reference[1:]))))


def anchors(node: Node) -> list[str]:
    return [word for key in ("$anchor", "$dynamicAnchor") if isinstance(word := node.get(key), str)]


def resolve(root: Node, path: str) -> Any:
    """What a JSON Pointer points at; None when nothing is there."""
    value: Any = root
    for word in path.split("/")[1:]:
        key = word.replace("~1", "/").replace("~0", "~")
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")
