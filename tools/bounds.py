"""Schemas made finite, for grammars: a model that runs on must not run to the end of its tokens."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .apart import joined, looked_at, weighed
from .places import Node, children

NUMBER = 10**15
"""Largest magnitude of a number that states no bounds: what a double still holds exactly."""
GRAIN = 1e-9
"""Smallest step of a number that states none, or its digits would never end."""

FORMATTED = 64
"""Characters that a date, an address or another format may need."""
FREE = "x-free"
"""Marks a number that states nothing: how large it gets is for grammars to say, and how it is written."""

_NOTES = {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$comment"}
_HINTS = (
    ("object", {"properties", "required", "additionalProperties", "patternProperties", "maxProperties"}),
    ("array", {"items", "prefixItems", "minItems", "maxItems", "contains"}),
    ("string", {"pattern", "minLength", "maxLength", "format"}),
    ("number", {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
)
_PARTS = {"allOf", "anyOf", "oneOf", "then", "else", "dependentSchemas"}
_PLACES = {"properties", "patternProperties", "items", "prefixItems", "additionalProperties"}


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a grammar allows where a schema sets no limit."""

    characters: int = 256
    items: int = 16


def bounded(schema: Mapping[str, Any], bounds: Bounds) -> Node:
    """A schema whose every value fits the given one, with an end to every string, number, array and object.

    Limits that are stated stay. A place that allows anything allows plain values and one level of them. What
    refers to itself may still nest without end, and so may what `allOf` puts together.
    """
    root: Node = copy.deepcopy(dict(schema))
    _Bounding(root, bounds).bound("", root)
    return root


class _Bounding:
    """Where a value may have to not fit, nothing is added: what is bounded away would count as not fitting."""

    def __init__(self, root: Node, bounds: Bounds) -> None:
        self._left = weighed(root)
        self._parts = joined(root)
        self._seen = looked_at(root)
        self._bounds = bounds

    def bound(self, path: str, node: Node) -> None:
        """Bounds a schema in place; one that adds to an object has no say in its size."""
        if path in self._left:
            return
        bounds = self._bounds
        for key, step, child in list(children(node)):
            if key in _PLACES and (child is True or (isinstance(child, dict) and not child.keys() - _NOTES)):
                _replace(node, key, step, _anything(bounds))
            elif isinstance(child, dict):
                self.bound(path + step, child)
        if "enum" in node or "const" in node:
            return
        if "type" not in node:
            named = next((name for name, words in _HINTS if words & node.keys()), None)
            if named is None:
                return
            node["type"] = named
        kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
        if "string" in kinds:
            least = FORMATTED if "format" in node else node.get("minLength", 0)
            node.setdefault("maxLength", max(bounds.characters, least))
        if "array" in kinds:
            node.setdefault("maxItems", max(bounds.items, node.get("minItems", 0)))
            if "prefixItems" not in node and path not in self._seen:
                node.setdefault("items", _anything(bounds))
        if (
            "object" in kinds
            and path not in self._parts
            and (path not in self._seen or "unevaluatedProperties" in node)
            and node.get("additionalProperties") is not False
            and _alone(node)
        ):
            _bound_object(node, bounds)
        if "integer" in kinds or "number" in kinds:
            _bound_number(node, whole="number" not in kinds)


def _bound_object(node: Node, bounds: Bounds) -> None:
    """At most so many properties; where some are optional, which engines cannot count, only those stated."""
    stated = node.get("properties", {})
    if stated.keys() - set(node.get("required", ())):
        node["additionalProperties"] = False
        return
    node.setdefault("additionalProperties", node.get("unevaluatedProperties", _anything(bounds)))
    node.setdefault("maxProperties", max(len(stated) + bounds.items, node.get("minProperties", 0)))


def _bound_number(node: Node, *, whole: bool) -> None:
    words = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf")
    if not whole and not any(word in node for word in words):
        node[FREE] = True
    least = node.get("minimum", node.get("exclusiveMinimum"))
    most = node.get("maximum", node.get("exclusiveMaximum"))
    if most is None:
        node["maximum"] = max(NUMBER, 10 * int(abs(least or 0)))
    if least is None:
        node["minimum"] = min(-NUMBER, -10 * int(abs(most or 0)))
    if not whole:
        node.setdefault("multipleOf", GRAIN)


def _alone(node: Node) -> bool:
    """Whether all of an object's properties are stated here, and not in schemas that add to this one."""
    parts = [inner for key, _, inner in children(node) if key in _PARTS]
    words = json.dumps(parts)
    return "$ref" not in node and not any(f'"{key}"' in words for key in ("properties", "$ref", "patternProperties"))


def _replace(node: Node, key: str, step: str, value: Node) -> None:
    inner = node[key]
    if isinstance(inner, list):
        inner[int(step.rsplit("/", 1)[1])] = value
    elif step == f"/{key}":
        node[key] = value
    else:
        inner[step.split("/", 2)[2].replace("~1", "/").replace("~0", "~")] = value


def _anything(bounds: Bounds) -> Node:
    number = {"type": "number", "minimum": -NUMBER, "maximum": NUMBER, "multipleOf": GRAIN}
    plain: list[Any] = [{"type": "string", "maxLength": bounds.characters}, number]
    plain += [{"type": "boolean"}, {"type": "null"}]
    array = {"type": "array", "items": {"anyOf": plain}, "maxItems": bounds.items}
    mapping = {"type": "object", "additionalProperties": {"anyOf": plain}, "maxProperties": bounds.items}
    return {"anyOf": [*plain, array, mapping]}
