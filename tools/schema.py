"""JSON Schema: is it one, and do these arguments fit it?"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias
from urllib.parse import unquote

from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from .errors import BadSchema, MalformedCall, Problem
from .patterns import why_unsafe

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
Node: TypeAlias = "dict[str, Any]"

MAX_DEPTH = 64
MAX_NODES = 20_000
MAX_TEXT = 1_000_000
"""Characters of one call's JSON; the far end is not trusted."""
MAX_MESSAGE = 160

_MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_ONES = (
    "items", "additionalProperties", "additionalItems", "contains", "not", "if", "then", "else",
    "propertyNames", "unevaluatedProperties", "unevaluatedItems", "contentSchema",
)  # fmt: skip
_DEFINITIONS = ("$defs", "definitions")
_VALUES = ("properties", "patternProperties", "items", "prefixItems", "additionalProperties")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Nothing if the schema can be used; raises BadSchema with the place, what was found and what to write.

    Refused: what is no JSON, what is no schema of its dialect (2020-12 unless it names another), too deep,
    too large, references that leave the document or lead nowhere, patterns whose matching may never end.
    """
    if not isinstance(schema, Mapping):
        raise BadSchema("", type(schema).__name__, "an object")
    _check_json(schema)
    root = dict(schema)
    anchors = {word for _, node in _places(root) for word in _anchors(node)}
    for path, node in _places(root):
        _check_references(root, path, node, anchors)
    cls = validator_for(root, default=Draft202012Validator)
    try:
        cls.check_schema(root)
    except SchemaError as error:
        raise BadSchema(_pointer(error.path), _short(error.message), "a valid JSON Schema") from error
    for path, node in _places(root):
        _check_patterns(path, node)


class Validator:
    """Checks values against one schema; built once, used often. Never fetches, asserts no formats."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        """Raises BadSchema."""
        check_schema(schema)
        cls = validator_for(dict(schema), default=Draft202012Validator)
        self._validator = cls(dict(schema), registry=Registry())

    def problems(self, arguments: Json) -> tuple[Problem, ...]:
        """What does not fit, by place; empty when everything fits."""
        try:
            errors = list(islice(self._validator.iter_errors(arguments), 32))
        except RecursionError:
            return (Problem("", "nested too deep"),)
        except Unresolvable as error:
            return (Problem("", _short(f"the schema refers to what is not there: {error}")),)
        found = [Problem(_pointer(e.absolute_path), _short((best_match([e]) or e).message)) for e in errors]
        return tuple(sorted(found, key=lambda problem: problem.path))


def loads(text: str, limit: int = MAX_TEXT) -> Json:
    """Strict JSON. Raises MalformedCall for anything RFC 8259 leaves to luck.

    That is: two equal keys, NaN and Infinity, numbers too large to be told from infinity, lone surrogates,
    text after the value, nesting beyond MAX_DEPTH, more than `limit` characters.
    """
    if len(text) > limit:
        raise MalformedCall(f"{len(text)} characters of JSON: expected at most {limit}; send less at once")
    try:
        value: Json = json.loads(text, object_pairs_hook=_no_twins, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text or not text.isascii():
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise MalformedCall(f"JSON is nested too deep: expected at most {MAX_DEPTH} levels") from None
    except UnicodeEncodeError:
        raise MalformedCall("a string holds half a surrogate pair: expected whole characters") from None
    except ValueError as error:
        raise MalformedCall(f"not JSON: {error}; expected one JSON value and nothing else") from None
    if _depth(value) > MAX_DEPTH:
        raise MalformedCall(f"JSON is nested too deep: expected at most {MAX_DEPTH} levels")
    return value


def closed(schema: Mapping[str, Any]) -> Node:
    """The schema, with objects that state their properties and say nothing of others closed to others.

    Most tools leave `additionalProperties` out, so an invented argument would be valid; for tool arguments it
    is not. Objects put together from several schemas (`allOf` and the like) stay as they are: there, closing
    one part would forbid the others.
    """
    root: Node = copy.deepcopy(dict(schema))
    shut: dict[str, bool] = {}
    agenda = [("", root, True, False)]
    seen: set[tuple[str, bool, bool]] = set()
    while agenda:
        path, node, close, frozen = agenda.pop()
        if not isinstance(node, dict) or (path, close, frozen) in seen:
            continue
        seen.add((path, close, frozen))
        shut[path] = shut.get(path, True) and close
        alone = sum(key in node for key in ("properties", "allOf", "anyOf", "oneOf", "$ref")) == 1
        for key, step, child in children(node):
            if key in _DEFINITIONS:
                continue
            single = key in ("anyOf", "oneOf") or (key == "allOf" and len(node[key]) == 1)
            through = close and alone and single
            ice = frozen or key in ("not", "if", "contains", "propertyNames")
            agenda.append((path + step, child, not ice and (key in _VALUES or through), ice))
        if (target := node.get("$ref", "")).startswith("#/"):
            place = unquote(target[1:])
            agenda.append((place, _resolve(root, place), close and alone, frozen))
    for path, close in shut.items():
        node = _resolve(root, path)
        if close and _states_all(node):
            node["additionalProperties"] = False
    return root


def children(node: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The schemas directly inside a schema, as (keyword, step of a JSON Pointer, schema)."""
    for key in _MAPS:
        if isinstance(inner := node.get(key), Mapping):
            for name, child in inner.items():
                if isinstance(child, (Mapping, bool)):
                    yield key, f"/{key}/{_escape(name)}", child
    for key in _LISTS:
        if isinstance(inner := node.get(key), list):
            for place, child in enumerate(inner):
                yield key, f"/{key}/{place}", child
    for key in _ONES:
        if isinstance(inner := node.get(key), (Mapping, bool)):
            yield key, f"/{key}", inner


def _states_all(node: Node) -> bool:
    if "properties" not in node or {"additionalProperties", "unevaluatedProperties", "$ref"} & node.keys():
        return False
    parts = [part for key in ("allOf", "anyOf", "oneOf") for part in node.get(key, ())]
    parts += [node[key] for key in ("then", "else", "dependentSchemas") if key in node]
    return not any(word in json.dumps(parts) for word in ('"properties"', '"$ref"', '"patternProperties"'))


def _places(root: Node) -> Iterator[tuple[str, Node]]:
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
            agenda.append((unquote(reference[1:]), _resolve(root, unquote(reference[1:]))))


def _check_json(schema: Mapping[str, Any]) -> None:
    agenda: list[tuple[Any, int]] = [(schema, 1)]
    nodes = 0
    while agenda:
        value, depth = agenda.pop()
        nodes += 1
        if depth > MAX_DEPTH:
            raise BadSchema("", f"more than {MAX_DEPTH} levels", "a flatter schema, or $defs with $ref")
        if nodes > MAX_NODES:
            raise BadSchema("", f"more than {MAX_NODES} values", "a smaller schema")
        if isinstance(value, Mapping):
            if odd := [key for key in value if not isinstance(key, str)]:
                raise BadSchema("", f"the key {odd[0]!r}", "keys that are text")
            agenda += [(inner, depth + 1) for inner in value.values()]
        elif isinstance(value, list):
            agenda += [(inner, depth + 1) for inner in value]
        elif isinstance(value, float) and not math.isfinite(value):
            raise BadSchema("", repr(value), "finite numbers")
        elif value is not None and not isinstance(value, (str, int, float)):
            raise BadSchema("", f"a {type(value).__name__}", "nothing but JSON")


def _check_references(root: Node, path: str, node: Node, anchors: set[str]) -> None:
    for key in ("$ref", "$dynamicRef", "$recursiveRef"):
        reference = node.get(key)
        if reference is None:
            continue
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise BadSchema(path, f"{key} {reference!r}", "a reference inside (#/$defs/...): none is fetched")
        if reference.startswith("#/"):
            if not isinstance(_resolve(root, unquote(reference[1:])), (Mapping, bool)):
                raise BadSchema(path, f"{key} {reference!r}, which leads nowhere", "a schema at that place")
        elif reference != "#" and reference[1:] not in anchors:
            raise BadSchema(path, f"{key} {reference!r} without its anchor", "an $anchor of that name")


def _anchors(node: Node) -> list[str]:
    return [word for key in ("$anchor", "$dynamicAnchor") if isinstance(word := node.get(key), str)]


def _check_patterns(path: str, node: Node) -> None:
    patterns = [node["pattern"]] if "pattern" in node else []
    for pattern in [*patterns, *node.get("patternProperties", {})]:
        if why := why_unsafe(pattern):
            raise BadSchema(path, f"the pattern {_short(pattern)!r}, {why}", "a pattern without that")


def _resolve(root: Node, path: str) -> Any:
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


def _pointer(path: Any) -> str:
    return "".join(f"/{_escape(str(step))}" for step in path)


def _escape(step: str) -> str:
    return step.replace("~", "~0").replace("/", "~1")


def _short(message: str) -> str:
    return message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 3] + "..."


def _no_twins(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r} stands there twice")
    return found


def _no_constant(word: str) -> Json:
    raise ValueError(f"{word} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:40]} is too large")
    return value


def _depth(value: Json) -> int:
    level: list[Json] = [value]
    depth = 0
    while level:
        depth += 1
        if depth > MAX_DEPTH + 1:
            break
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return depth
