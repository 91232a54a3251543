"""JSON Schema: is it one that can be used? And JSON, read strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from jsonschema import FormatChecker
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for

from .apart import apart
from .errors import BadSchema, MalformedCall
from .ids import flattened, followed
from .patterns import why_unsafe
from .places import Json, Node, anchors, children, escape, places, resolve
from .work import MAX_DEPTH, measure, work

MAX_NODES = 20_000
MAX_TEXT = 1_000_000
"""Characters of one call's JSON; the far end is not trusted."""
MAX_MESSAGE = 160

_NO_DRAFT: Any = None
_DEFINITIONS = ("$defs", "definitions")
_VALUES = ("properties", "patternProperties", "items", "prefixItems", "additionalProperties")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Nothing if the schema can be used; raises BadSchema with the place, what was found and what to write.

    Refused: what is no JSON, what is no schema of its dialect (2020-12 unless it names another), too deep,
    too large, references that leave the document or lead nowhere, what unfolds without end, patterns whose
    matching may never end.
    """
    if not isinstance(schema, Mapping):
        raise BadSchema("", type(schema).__name__, "an object")
    _check_json(schema)
    named = schema.get("$schema")
    if named is not None and (not isinstance(named, str) or validator_for({"$schema": named}, _NO_DRAFT) is _NO_DRAFT):
        raise BadSchema("", f"$schema {named!r}", "a published draft of JSON Schema, or none")
    root = flattened(schema)
    found = list(places(root))
    known = {word for _, node in found for word in anchors(node)}
    for path, node in found:
        _check_references(root, path, node, known)
    work(root)
    cls: Any = validator_for(dict(schema), default=Draft202012Validator)
    try:
        cls.check_schema(dict(schema), FormatChecker(()))
    except SchemaError as error:
        raise BadSchema(pointer(error.path), short(error.message), "a valid JSON Schema") from error
    for path, node in found:
        _check_patterns(path, node)


def loads(text: str | bytes, limit: int = MAX_TEXT) -> Json:
    """Strict JSON. Raises MalformedCall for anything RFC 8259 leaves to luck.

    That is: two equal keys, NaN and Infinity, numbers too large to be told from infinity, lone surrogates,
    text after the value, nesting beyond MAX_DEPTH, more than `limit` characters, bytes that are no UTF-8.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise MalformedCall(f"byte {error.start} of {len(text)} is no UTF-8: expected JSON in UTF-8") from None
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
    if measure(value, MAX_TEXT).depth > MAX_DEPTH:
        raise MalformedCall(f"JSON is nested too deep: expected at most {MAX_DEPTH} levels")
    return value


def closed(schema: Mapping[str, Any]) -> Node:
    """The schema, with objects that state their properties and say nothing of others closed to others.

    Most tools leave `additionalProperties` out, so an invented argument would be valid; for tool arguments it
    is not. Objects put together from several schemas (`allOf` and the like) stay as they are: there, closing
    one part would forbid the others.
    """
    root = flattened(schema)
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
            single = key == "anyOf" or (key in ("allOf", "oneOf") and len(node[key]) == 1)
            single |= key == "oneOf" and apart(root, node[key])
            through = close and alone and single
            ice = frozen or key in ("not", "if", "contains", "propertyNames") or (key == "oneOf" and not single)
            agenda.append((path + step, child, not ice and (key in _VALUES or through), ice))
        if (target := node.get("$ref", "")).startswith("#/"):
            place = followed(target)
            agenda.append((place, resolve(root, place), close and alone, frozen))
    for path, close in shut.items():
        node = resolve(root, path)
        if close and _states_all(node):
            node["additionalProperties"] = False
    return root


def _states_all(node: Node) -> bool:
    if "properties" not in node or {"additionalProperties", "unevaluatedProperties", "$ref"} & node.keys():
        return False
    parts = [part for key in ("allOf", "anyOf", "oneOf") for part in node.get(key, ())]
    parts += [node[key] for key in ("then", "else", "dependentSchemas") if key in node]
    return not any(word in json.dumps(parts) for word in ('"properties"', '"$ref"', '"patternProperties"'))


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


def _check_references(root: Node, path: str, node: Node, known: set[str]) -> None:
    for key in ("$ref", "$dynamicRef", "$recursiveRef"):
        reference = node.get(key)
        if reference is None:
            continue
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise BadSchema(path, f"{key} {reference!r}", "a reference inside (#/$defs/...): none is fetched")
        if reference.startswith("#/"):
            if not isinstance(resolve(root, followed(reference)), (Mapping, bool)):
                raise BadSchema(path, f"{key} {reference!r}, which leads nowhere", "a schema at that place")
        elif reference != "#" and reference[1:] not in known:
            raise BadSchema(path, f"{key} {reference!r} without its anchor", "an $anchor of that name")


def _check_patterns(path: str, node: Node) -> None:
    patterns = [node["pattern"]] if "pattern" in node else []
    for pattern in [*patterns, *node.get("patternProperties", {})]:
        if why := why_unsafe(pattern):
            raise BadSchema(path, f"the pattern {short(pattern)!r}, {why}", "a pattern without that")


def pointer(path: Any) -> str:
    return "".join(f"/{escape(str(step))}" for step in path)


def short(message: str) -> str:
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
