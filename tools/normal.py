"""Schemas as grammar engines can read them: no notes, patterns that all read alike, nothing that no value ever fits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import GrammarRefused
from .ids import flattened, followed
from .patterns import plain
from .places import Node, children, places, resolve

FORMATS = frozenset(
    ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"],
)
"""Formats that a grammar may hold a model to. The validator takes all of them for notes."""
_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
_NOTES = frozenset(
    [
        "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment",
        "$schema", "contentEncoding", "contentMediaType", "contentSchema", "$anchor", "strict",
    ]
)  # fmt: skip


def normal(schema: Mapping[str, Any]) -> tuple[Node, tuple[str, ...]]:
    """A copy without what decides nothing, and the keywords that were left out though they might.

    Raises GrammarRefused for a schema that only a value without end would fit.
    """
    root = flattened(schema)
    if endless(root):
        raise GrammarRefused("this schema", "whatever fits it contains itself, so that no value ever comes to an end")
    residual: set[str] = set()
    found = [(path, resolve(root, path)) for path, _ in places(root)]
    for _, node in reversed(found):
        if not isinstance(node, dict):
            continue
        for key in _NOTES & node.keys():
            del node[key]
        for key in _COUNTS:
            if isinstance(node.get(key), float):
                node[key] = int(node[key])  # 2.0 is a count to JSON Schema, and none to engines
        if "format" in node and node["format"] not in FORMATS:
            residual.add("format")
            del node["format"]
        if isinstance(node.get("pattern"), str):
            node["pattern"] = plain(node["pattern"])
        if isinstance(named := node.get("patternProperties"), dict):
            node["patternProperties"] = {plain(name): inner for name, inner in named.items()}
        if "dependencies" in node:  # of older drafts; engines look past it without a word
            residual.add("dependencies")
            del node["dependencies"]
    return root, tuple(sorted(residual))


def endless(root: Node) -> bool:
    """Whether every value of the schema would have to contain another one of it, without end.

    Only what must be there counts: required properties, and items where there must be some. Found as the least set
    of places that have an end, so it takes as many rounds as the longest chain of requirements.
    """
    nodes = dict(places(root))
    ended: set[str] = set()
    waiting = list(nodes)
    while waiting:
        left = [path for path in waiting if not _ends(path, nodes[path], ended, nodes)]
        if len(left) == len(waiting):
            break
        ended.update(set(waiting) - set(left))
        waiting = left
    return "" not in ended


def _ends(path: str, node: Mapping[str, Any], ended: set[str], nodes: Mapping[str, Any]) -> bool:
    """Whether all that a value of this place must have comes to an end, as far as is known."""

    def known(place: str) -> bool:
        return place in ended or place not in nodes  # what is no object schema, true and false, has no inside

    for key in ("$ref", "$dynamicRef"):
        reference = node.get(key)
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            if not known(followed(reference)):
                return False
    inside: dict[str, list[str]] = {}
    for key, step, _ in children(node):
        inside.setdefault(key, []).append(path + step)
    if not all(known(place) for place in inside.get("allOf", ())):
        return False
    for key in ("anyOf", "oneOf"):
        if key in inside and not any(known(place) for place in inside[key]):
            return False
    kinds = node.get("type", "object" if "properties" in node else "array" if "minItems" in node else "any")
    if kinds == "object":
        required = node.get("required", ())
        stated = node.get("properties", {})
        escaped = {name: name.replace("~", "~0").replace("/", "~1") for name in required if name in stated}
        return all(known(f"{path}/properties/{name}") for name in escaped.values())
    if kinds == "array" and node.get("minItems", 0) > 0:
        places_of = inside.get("prefixItems", [])[: int(node["minItems"])]
        return all(known(place) for place in [*places_of, *inside.get("items", ())])
    return True
