"""What two schemas both allow, as one schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .ids import flattened
from .places import Node, children, places
from .schema import check_schema, closed
from .spec import Tool
from .validate import same

HOME = "granted"
"""Where the definitions of a constraint stand in the schema that it narrows."""

_LEAST = {"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"}
_MOST = {"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"}
_NOTES = {"title", "description", "default", "examples", "$comment", "$defs"}


def narrowed(tool: Tool, constraint: Mapping[str, Any]) -> Tool:
    """The tool with arguments that fit its own schema and the constraint; a prompt should show the tool as it was.

    Raises BadSchema for a constraint that cannot be used.
    """
    check_schema(constraint)
    return replace(tool, parameters=intersect(closed(tool.parameters), constraint))


def intersect(schema: Mapping[str, Any], constraint: Mapping[str, Any]) -> Node:
    """A schema that exactly those values fit which fit both.

    Where both are plain they become one plain schema, which grammar engines read best; else `allOf` joins them.
    """
    ours, theirs = flattened(schema), moved(flattened(constraint), f"#/$defs/{HOME}")
    if any(map(_refers_home, (node for _, node in places(ours)))) or HOME in ours.get("$defs", {}):
        whole = moved(ours, "#/$defs/whole")  # what refers to the root means the schema without the constraint
        return {
            "allOf": [{"$ref": "#/$defs/whole"}, {"$ref": f"#/$defs/{HOME}"}],
            "$defs": {"whole": whole, HOME: theirs},
        }
    definitions = dict(ours.pop("$defs", {}))
    both = _both(ours, theirs)
    if f"#/$defs/{HOME}" in json.dumps(theirs):
        definitions[HOME] = theirs
    return {**both, "$defs": definitions} if definitions else both


def moved(schema: Node, home: str) -> Node:
    """A copy whose references follow it to its new place."""
    root: Node = json.loads(json.dumps(schema))
    agenda: list[Any] = [root]
    while agenda:
        node = agenda.pop()
        if not isinstance(node, dict):
            continue
        reference = node.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            node["$ref"] = home + reference[1:]
        node.pop("$schema", None)
        agenda += [child for _, _, child in children(node)]
    return root


def _refers_home(node: Mapping[str, Any]) -> bool:
    reference = node.get("$ref")
    return isinstance(reference, str) and not reference.startswith("#/$defs/")


def _both(a: Node, b: Node) -> Node:
    """One schema where nothing in one changes what the other means, else both side by side."""
    if not (_plain(a) and _plain(b)):
        return {"allOf": [a, {key: value for key, value in b.items() if key != "$defs"}]}
    out: Node = {key: value for key, value in b.items() if key != "$defs"} | a
    for key in a.keys() & b.keys() - _NOTES:
        if key in _LEAST:
            out[key] = max(a[key], b[key])
        elif key in _MOST:
            out[key] = min(a[key], b[key])
        elif key == "type":
            out[key] = _types(a[key], b[key])
        elif key == "enum":
            out[key] = [value for value in a[key] if same(value) in map(same, b[key])]
        elif key == "required":
            out[key] = [*a[key], *(name for name in b[key] if name not in a[key])]
        elif key in ("const", "properties", "additionalProperties"):
            continue
        elif same(a[key]) != same(b[key]):
            return {"allOf": [a, {key: value for key, value in b.items() if key != "$defs"}]}
    if not _joined(out, a, b):
        return {"allOf": [a, {key: value for key, value in b.items() if key != "$defs"}]}
    if any("properties" in one or "additionalProperties" in one for one in (a, b)):
        _properties(out, a, b)
    return out


def _plain(node: Node) -> bool:
    return not {"$ref", "$dynamicRef", "unevaluatedProperties", "unevaluatedItems", "patternProperties"} & node.keys()


def _joined(out: Node, a: Node, b: Node) -> bool:
    """Whether what is left may stand in one schema. An empty choice, which no value fits, may not be written."""
    if "const" in a and "const" in b and same(a["const"]) != same(b["const"]):
        return False
    if out.get("enum") == [] or out.get("type") == []:
        return False
    words = {"items", "prefixItems", "contains", "minContains", "maxContains", "if", "then", "else"}
    return not (words & a.keys() and words & b.keys())


def _properties(out: Node, a: Node, b: Node) -> None:
    """Each property as both want it; what one of them does not name is what its `additionalProperties` says."""
    ours, theirs = a.get("properties", {}), b.get("properties", {})
    merged = {}
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        merged[name] = _each(
            ours.get(name, a.get("additionalProperties", True)), theirs.get(name, b.get("additionalProperties", True))
        )
    out["properties"] = merged
    others = _each(a.get("additionalProperties", True), b.get("additionalProperties", True))
    out.pop("additionalProperties", None)
    if others is not True:
        out["additionalProperties"] = others


def _each(a: Any, b: Any) -> Any:
    if a is False or b is False:
        return False
    if a is True or b is True:
        return b if a is True else a
    return _both(a, b)


def _types(a: Any, b: Any) -> Any:
    """The kinds that both take; every integer is a number."""
    ours, theirs = (set([value] if isinstance(value, str) else value) for value in (a, b))
    kinds = ours & theirs
    if ("integer" in ours and "number" in theirs) or ("integer" in theirs and "number" in ours):
        kinds |= set() if "number" in kinds else {"integer"}
    found = sorted(kinds)
    return found[0] if len(found) == 1 else found
