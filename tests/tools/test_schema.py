"""Schemas, strict JSON, validation."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.tools import BadSchema, Json, MalformedCall, Validator, check_schema, closed, loads
from sostenuto.tools.bounds import Bounds, bounded
from sostenuto.tools.patterns import why_unsafe

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "strin"}, "strin"),
        ({"properties": {"a": {"minimum": "1"}}}, "/properties/a/minimum"),
        ({"$ref": "http://localhost/x.json"}, "none is fetched"),
        ({"properties": {"a": {"$ref": "other.json#/x"}}}, "none is fetched"),
        ({"$ref": "#/$defs/Missing"}, "leads nowhere"),
        ({"$ref": "#missing"}, "anchor"),
        (deep(70), "levels"),
        ({"enum": list(range(20_001))}, "smaller"),
        ({"maximum": math.inf}, "finite"),
        ({"enum": [{1, 2}]}, "set"),
        ({"properties": {5: {}}}, "keys that are text"),
        ({"pattern": "("}, "pattern"),
        ({"pattern": "^(a+)+$"}, "repeats"),
        ({"patternProperties": {"^(a|a)*$": {}}}, "repeats"),
        ({"$defs": {"x": {"pattern": "(a*)*"}}}, "repeats"),
        ({"$ref": "#/parts/x", "parts": {"x": {"pattern": "(a*)*"}}}, "repeats"),
    ],
)
def test_what_is_no_usable_schema_is_refused_with_its_place(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSchema) as refused:
        check_schema(schema)
    assert says in str(refused.value)


def test_properties_that_look_like_keywords_are_only_names() -> None:
    check_schema({"properties": {"$ref": {"type": "string"}, "pattern": {"type": "string"}}})
    check_schema({"const": {"$ref": "https://example.com"}, "default": {"pattern": "(a+)+"}})


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*b",
        "(?:x+y*)+",
        "((a+))+",
        "(a|aa)+",
        "((ab)*)*",
        "(a{1,9}){20}",
        "(?P<n>a?)*",
        r"([\]a]+)+",
    ],
)
def test_patterns_that_may_never_end_are_found(pattern: str) -> None:
    assert why_unsafe(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"^\d{4}-\d{2}$",
        r"^([0-9]{1,3}\.){3}[0-9]{1,3}$",
        "^[a-z]+$",
        r"\(a+\)+",
        "[(a+)]+",
        "^(foo|bar)*$",
        "(a+)?",
    ],
)
def test_patterns_that_end_are_let_through(pattern: str) -> None:
    assert why_unsafe(pattern) is None


def test_problems_name_their_place_and_stay_short() -> None:
    validator = Validator(
        {
            "type": "object",
            "properties": {
                "n": {"type": "integer"},
                "s": {"enum": ["a"]},
                "l": {"items": {"type": "string"}},
            },
            "required": ["n"],
        }
    )
    assert validator.problems({"n": 1, "s": "a"}) == ()
    found = validator.problems({"s": "x" * 5000, "l": ["a", 5]})
    assert [problem.path for problem in found] == ["", "/l/1", "/s"]
    assert "'n' is a required property" in found[0].message
    assert all(len(problem.message) <= 160 for problem in found)


def test_nothing_is_fetched_even_if_a_remote_reference_came_through(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[object] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *given, **_: fetched.append(given))
    monkeypatch.setattr("sostenuto.tools.validate.check_schema", lambda schema: None)
    found = Validator({"$ref": "http://localhost:9/s.json"}, fast=False).problems(1)
    assert "not there" in found[0].message
    assert fetched == []


def test_formats_are_not_asserted() -> None:
    assert Validator({"format": "email"}).problems("nobody") == ()


def test_a_deep_instance_of_a_recursive_schema_is_a_problem_and_no_crash() -> None:
    value: Any = {}
    for _ in range(20_000):
        value = {"c": value}
    schema = {"type": "object", "properties": {"c": {"$ref": "#"}}}
    assert "deep" in Validator(schema).problems(value)[0].message


@given(JSON)
def test_what_json_writes_is_read_back(value: Any) -> None:
    assert loads(json.dumps(value)) == value
    assert loads(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "twice"),
        ('{"x": [{"a": 1, "b": 1, "a": 1}]}', "twice"),
        ("NaN", "no JSON number"),
        ("[Infinity]", "no JSON number"),
        ("-Infinity", "no JSON number"),
        ("1e400", "too large"),
        ("1" * 5000, "not JSON"),
        ('{"a": 1} x', "not JSON"),
        ("{'a': 1}", "not JSON"),
        ("", "not JSON"),
        ('"\\ud800"', "surrogate"),
        ('"' + "a" * 1_000_000 + '"', "at most"),
        ("[" * 65 + "]" * 65, "nested"),
        ("[" * 100_000, "nested"),
        ('"a\nb"', "not JSON"),
    ],
)
def test_json_that_others_read_differently_is_malformed(text: str, says: str) -> None:
    with pytest.raises(MalformedCall) as refused:
        loads(text)
    assert says in str(refused.value)


def test_whole_surrogate_pairs_are_characters() -> None:
    assert loads('"\\ud83d\\ude42"') == "🙂"


def test_plain_objects_are_closed_and_composed_ones_are_not() -> None:
    plain = {"properties": {"a": {"properties": {"b": {}}}, "free": {"type": "object"}}}
    shut = closed(plain)
    assert shut["additionalProperties"] is False
    assert shut["properties"]["a"]["additionalProperties"] is False
    assert "additionalProperties" not in shut["properties"]["free"]
    assert "additionalProperties" not in plain
    stated = {"properties": {}, "additionalProperties": True}
    assert closed(stated) == stated
    composed: dict[str, Json] = {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}
    assert Validator(closed(composed)).problems({"a": 1, "b": 2}) == ()
    refused = {"properties": {"a": {}}, "not": {"properties": {"a": {"const": 1}}, "required": ["a"]}}
    assert Validator(closed(refused)).problems({"a": 2}) == ()
    assert Validator(closed(refused)).problems({"a": 1}) != ()
    alternatives = {"properties": {"a": {}, "b": {}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
    assert Validator(closed(alternatives)).problems({"a": 1}) == ()
    assert Validator(closed(alternatives)).problems({"a": 1, "c": 1}) != ()


def test_a_definition_is_closed_only_where_it_stands_alone() -> None:
    leg: dict[str, Json] = {"properties": {"x": {}}}
    alone = {"properties": {"l": {"$ref": "#/$defs/L"}}, "$defs": {"L": leg}}
    assert closed(alone)["$defs"]["L"]["additionalProperties"] is False
    also = {"allOf": [{"$ref": "#/$defs/L"}, {"properties": {"y": {}}}]}
    mixed = {"properties": {"l": {"$ref": "#/$defs/L"}, "m": also}, "$defs": {"L": leg}}
    assert Validator(closed(mixed)).problems({"m": {"x": 1, "y": 2}}) == ()


LOOSE = {
    "properties": {"s": {"type": "string"}, "n": {"minimum": 2e15}, "any": {}, "l": {"items": True}},
    "anyOf": [{"required": ["s"]}, {"maxProperties": 1}],
}
LOOSELY, TIGHTLY = Validator(LOOSE), Validator(bounded(LOOSE, Bounds(4, 2)))


@given(JSON)
def test_what_fits_the_bounded_schema_fits_the_schema(value: Any) -> None:
    for candidate in (value, {"s": value}, {"n": value}, {"any": value}, {"l": value}):
        if TIGHTLY.problems(candidate) == ():
            assert LOOSELY.problems(candidate) == ()


def test_the_bounded_schema_still_takes_what_is_within_bounds() -> None:
    within: list[Json] = [{"s": "abcd"}, {"any": [None, "a"]}, {"l": [True]}]
    for value in within:
        assert TIGHTLY.problems(value) == ()
    beyond: list[Json] = [{"s": "abcde"}, {"any": [True] * 3}, {"l": [None] * 17}, {"l": [None] * 3}]
    for value in beyond:
        assert TIGHTLY.problems(value) != ()
