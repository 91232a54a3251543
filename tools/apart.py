"""Are the alternatives of a schema such that no value fits two of them?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from .ids import followed
from .places import Node, children, resolve
from .work import Graph

_MANY = 64
_OBJECT = {"type", "properties", "additionalProperties", "patternProperties"}
_BESIDE = ("anyOf", "oneOf", "$ref", "$dynamicRef", "then", "else", "dependentSchemas")


def apart(root: Node, alternatives: Sequence[Any]) -> bool:
    """Whether that is plain to see: other types, or a property that all must have, of other values in each.

    Only then may something be added to one of them under `oneOf`: what no longer fits one would else begin to be right
    because it still fits another.
    """
    found = [_followed(root, each) for each in alternatives]
    if len(found) > _MANY or not all(isinstance(each, Mapping) for each in found):
        return False
    return all(_differ(one, other) for one, other in combinations(found, 2))


def weighed(root: Node) -> set[str]:
    """Places whose values may also have to not fit: what stands under `not`, `if` and alternatives that overlap.

    A schema that is made narrower there lets more through at the root.
    """
    graph = Graph(root)
    found: set[str] = set()
    for path, node in graph.nodes.items():
        mixed = "oneOf" in node and not apart(root, node["oneOf"])
        for key, step, _ in children(node):
            if key in ("not", "if", "contains") or (key == "oneOf" and mixed):
                found |= graph.reached(path + step)
    return found


def joined(root: Node) -> set[str]:
    """Places whose objects are put together with others, and so do not say alone what properties there are."""
    graph = Graph(root)
    found: set[str] = set()
    for path, node in graph.nodes.items():
        own = not _OBJECT.isdisjoint(node)
        parts = len(node.get("allOf", ())) + sum(key in node for key in _BESIDE)
        if own + parts > 1:
            agenda = graph.in_place(path)
            while agenda:
                if (inner := agenda.pop()) not in found:
                    found.add(inner)
                    agenda += graph.in_place(inner)
    return found


def looked_at(root: Node) -> set[str]:
    """Places where `unevaluatedProperties` or `unevaluatedItems` look: to state more there lets more through."""
    graph = Graph(root)
    found: set[str] = set()
    agenda = [path for path, node in graph.nodes.items() if {"unevaluatedProperties", "unevaluatedItems"} & node.keys()]
    while agenda:
        if (path := agenda.pop()) not in found:
            found.add(path)
            agenda += graph.in_place(path)
    return found


def _followed(root: Node, node: Any) -> Any:
    for _ in range(8):
        reference = node.get("$ref") if isinstance(node, Mapping) else None
        if not isinstance(reference, str) or not reference.startswith("#/"):
            return node
        node = resolve(root, followed(reference))
    return None


def _differ(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    kinds = [_kinds(each) for each in (one, other)]
    if kinds[0].isdisjoint(kinds[1]):
        return True
    if kinds != [{"object"}, {"object"}]:
        values = [_values(each) for each in (one, other)]
        return all(values) and values[0].isdisjoint(values[1])
    shared = set(one.get("required", ())) & set(other.get("required", ()))
    stated = [each.get("properties", {}) for each in (one, other)]
    for name in sorted(shared & stated[0].keys() & stated[1].keys()):
        values = [_values(each[name]) for each in stated]
        if all(values) and values[0].isdisjoint(values[1]):
            return True
    return False


def _kinds(node: Mapping[str, Any]) -> set[str]:
    named = node.get("type", ["object", "array", "string", "number", "boolean", "null"])
    return {"number" if kind == "integer" else kind for kind in ([named] if isinstance(named, str) else named)}


def _values(node: Any) -> set[str]:
    """What a schema allows, one by one; nothing where it does not say."""
    if not isinstance(node, Mapping):
        return set()
    listed = [node["const"]] if "const" in node else node.get("enum", [])
    return {json.dumps(value, sort_keys=True) for value in listed}
