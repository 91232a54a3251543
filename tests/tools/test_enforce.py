"""What becomes of a schema before a grammar is made of it: what is left out, what is refused, what is put together."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given

from sostenuto.tools import (
    SMOLLM,
    BadSchema,
    Bounds,
    Call,
    Choice,
    Enforced,
    GrammarRefused,
    Reject,
    Validator,
    check_schema,
    closed,
    decide,
    intersect,
    narrowed,
    read_tool,
    render_call,
    validators,
)
from sostenuto.tools.apart import apart, looked_at, weighed
from sostenuto.tools.bounds import bounded
from sostenuto.tools.grammars.compiling import Compiling
from sostenuto.tools.normal import endless, normal

from .test_validate import SCHEMAS, VALUES


def tool(properties: dict[str, Any], **more: Any) -> Any:
    parameters = {"type": "object", "properties": properties, "required": [*properties], **more}
    return read_tool({"name": "f", "parameters": parameters})


def accepts(compiler: Compiling, made: Any, text: str) -> bool:
    grammar = compiler.tools([made], Choice("any"), SMOLLM, parallel=False)
    assert grammar is not None
    return all(grammar.accept(byte) for byte in render_call(SMOLLM, "f", text).encode()) and grammar.done


@pytest.mark.parametrize(
    ("schema", "residual"),
    [
        ({"type": "string", "format": "date"}, ()),
        ({"type": "string", "format": "semver"}, ("format",)),
        ({"type": "array", "uniqueItems": True}, ("uniqueItems",)),
        ({"type": "string", "pattern": "^(?!x)"}, ("pattern",)),
        ({"type": "object", "propertyNames": {"maxLength": 3}}, ("propertyNames",)),
        ({"type": "object", "dependencies": {"a": ["b"]}}, ("dependencies",)),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, ("oneOf",)),
        ({"type": "integer", "not": {"const": 3}, "description": "odd"}, ("not",)),
        ({"if": {"type": "string"}, "then": {"minLength": 1}, "else": False}, ("else", "if", "then")),
    ],
)
def test_what_a_grammar_leaves_out_is_named_and_a_strict_tool_refused(
    alone: Compiling, schema: dict[str, Any], residual: tuple[str, ...]
) -> None:
    made = tool({"x": schema})
    assert alone.check(made) == Enforced(residual)
    assert alone.check(made).kind == ("partial" if residual else "full")
    strict = replace(made, strict=True)
    if residual:
        with pytest.raises(GrammarRefused, match=residual[0]):
            alone.check(strict)
    else:
        assert alone.check(strict).residual == ()


def test_a_pattern_that_looks_around_is_left_to_the_check_and_the_rest_enforced(alone: Compiling) -> None:
    made = tool({"x": {"type": "string", "pattern": "^(?!x)", "maxLength": 2}})
    assert accepts(alone, made, '{"x":"xy"}')
    assert not accepts(alone, made, '{"x":"xyz"}')
    assert Validator(made.parameters).problems({"x": "xy"}) != ()


def test_one_tool_that_cannot_be_enforced_takes_nothing_from_the_others(alone: Compiling) -> None:
    loose = tool({"x": {"oneOf": [{"type": "integer"}, {"minimum": 2}]}})
    firm = replace(tool({"n": {"type": "integer", "minimum": 3}}), name="g")
    grammar = alone.tools([loose, firm], Choice("any"), SMOLLM, parallel=False)
    assert grammar is not None
    assert grammar.enforced.residual == ("oneOf",)
    call = render_call(SMOLLM, "g", '{"n": 2').encode()
    assert sum(map(grammar.accept, call)) < len(call)


def test_patterns_are_read_as_javascript_reads_them(alone: Compiling) -> None:
    made = tool({"x": {"type": "string", "pattern": "^.$"}})
    assert accepts(alone, made, '{"x":"a"}')
    assert not accepts(alone, made, '{"x":"\u2028"}')


@pytest.mark.parametrize(
    ("schema", "found"),
    [
        ({"type": "object", "properties": {"c": {"$ref": "#"}}, "required": ["c"]}, True),
        ({"type": "object", "properties": {"c": {"$ref": "#"}}}, False),
        ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, True),
        ({"type": "array", "items": {"$ref": "#"}}, False),
        ({"anyOf": [{"type": "null"}, {"type": "array", "items": {"$ref": "#"}, "minItems": 2}]}, False),
        ({"allOf": [{}, {"type": "object", "properties": {"c": {"$ref": "#"}}, "required": ["c"]}]}, True),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"b": {"$ref": "#/$defs/b"}}, "required": ["b"]},
                                        "b": {"properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}}, True),
    ],
)  # fmt: skip
def test_a_schema_of_which_no_value_ends_is_refused(alone: Compiling, schema: dict[str, Any], found: bool) -> None:
    assert endless(schema) is found
    if found:
        with pytest.raises(GrammarRefused, match="comes to an end"):
            alone.check(tool({"x": {"$ref": "#/$defs/x"}}, **{"$defs": {"x": relocated(schema)}}))


def relocated(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: relocated(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [relocated(value) for value in schema]
    return schema.replace("#", "#/$defs/x") if isinstance(schema, str) and schema.startswith("#") else schema


@given(SCHEMAS, VALUES)
def test_a_normal_schema_takes_what_the_schema_takes(schema: Any, value: Any) -> None:
    made, residual = normal(schema)
    assume(not residual)
    assert (Validator(made).problems(value) == ()) is (Validator(schema).problems(value) == ())


@given(SCHEMAS, SCHEMAS, VALUES)
def test_an_intersection_takes_what_both_take(one: Any, other: Any, value: Any) -> None:
    for schema in (one, other):
        try:
            check_schema(schema)
        except BadSchema:
            assume(False)
    both = Validator(one).problems(value) == () and Validator(other).problems(value) == ()
    assert (Validator(intersect(one, other)).problems(value) == ()) is both


LEAF: dict[str, Any] = {"type": "string", "maxLength": 4}
TREE: dict[str, Any] = {
    "type": "object",
    "properties": {"name": LEAF, "kids": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name"],
}


@pytest.mark.parametrize(
    ("one", "other", "fits", "fails"),
    [
        ({"$ref": "#/$defs/s", "$defs": {"s": LEAF}}, {"minLength": 2}, "ab", "a"),
        ({"minLength": 2}, {"$ref": "#/$defs/s", "$defs": {"s": LEAF}}, "ab", "abcde"),
        (
            TREE,
            {"properties": {"name": {"enum": ["r"]}}},
            {"name": "r", "kids": [{"name": "x"}]},
            {"name": "x", "kids": []},
        ),
        (TREE, TREE, {"name": "a", "kids": [{"name": "b"}]}, {"name": "a", "kids": [{}]}),
        ({"properties": {"a": {}}, "additionalProperties": False}, {"required": ["b"]}, 5, {"b": 1}),
    ],
)
def test_references_mean_the_same_in_an_intersection(one: Any, other: Any, fits: Any, fails: Any) -> None:
    for schema in (intersect(one, other), intersect(other, one)):
        check_schema(schema)
        assert Validator(schema).problems(fits) == ()
        assert Validator(schema).problems(fails) != ()


def test_a_narrowed_tool_can_write_only_what_is_granted(alone: Compiling) -> None:
    wide = tool({"path": {"type": "string"}, "lines": {"type": "integer", "minimum": 1}})
    grant = {"properties": {"path": {"pattern": "^/tmp/[a-z]+$"}, "lines": {"maximum": 10}}}
    granted = narrowed(wide, grant)
    assert "allOf" not in granted.parameters, "plain schemas become one plain schema"
    assert accepts(alone, granted, '{"path":"/tmp/a","lines":5}')
    assert accepts(alone, wide, '{"path":"/etc/a","lines":50}')
    for refused in ('{"path":"/etc/a","lines":5}', '{"path":"/tmp/a","lines":50}'):
        assert not accepts(alone, granted, refused)
    assert alone.check(granted).residual == ()
    with pytest.raises(BadSchema):
        narrowed(wide, {"$ref": "https://example.com"})


OVERLAPPING: dict[str, Any] = {
    "oneOf": [
        {"properties": {"a": {}, "b": {}}, "required": ["a"]},
        {"$ref": "#/$defs/other"},
    ],
    "$defs": {"other": {"properties": {"c": {}, "d": {"properties": {"e": {}}}}, "required": ["c"]}},
}
TAGGED: dict[str, Any] = {
    "oneOf": [
        {"properties": {"kind": {"const": "a"}, "x": {"type": "string"}}, "required": ["kind"], "type": "object"},
        {"$ref": "#/$defs/other"},
    ],
    "$defs": {"other": {"properties": {"kind": {"enum": ["b", "c"]}}, "required": ["kind"], "type": "object"}},
}


def test_alternatives_that_overlap_are_neither_closed_nor_bounded(alone: Compiling) -> None:
    assert not apart(OVERLAPPING, OVERLAPPING["oneOf"])
    assert closed(OVERLAPPING) == OVERLAPPING
    assert bounded(OVERLAPPING, Bounds()) == OVERLAPPING
    assert weighed(OVERLAPPING) >= {"/oneOf/0", "/oneOf/1", "/$defs/other", "/$defs/other/properties/d"}
    made = tool({"x": OVERLAPPING | {"$defs": {}}, "y": {}}, **{"$defs": OVERLAPPING["$defs"]})
    assert alone.check(made).residual == ("oneOf",)
    both: dict[str, Any] = {"x": {"a": 1, "c": 2}, "y": 1}
    assert isinstance(decide(Call("c", "f", both, json.dumps(both)), [made], validators([made])), Reject)


def test_alternatives_that_say_which_they_are_are_closed(alone: Compiling) -> None:
    assert apart(TAGGED, TAGGED["oneOf"])
    shut = closed(TAGGED)
    assert shut["oneOf"][0]["additionalProperties"] is False
    assert shut["$defs"]["other"]["additionalProperties"] is False
    assert weighed(TAGGED) == set()


@given(SCHEMAS, VALUES)
def test_whatever_fits_a_schema_that_was_closed_or_bounded_fits_the_schema(schema: Any, value: Any) -> None:
    try:
        made = normal(schema)[0]
    except GrammarRefused:
        assume(False)
    for narrower in (bounded(made, Bounds(2, 2)), closed(schema), bounded(closed(made), Bounds(2, 2))):
        if Validator(narrower).problems(value) == ():
            assert Validator(schema).problems(value) == ()


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {}, "unevaluatedProperties": False}, {"b": []}),
        ({"patternProperties": {"a": {}}, "unevaluatedProperties": False}, {"b": 1}),
        ({"required": ["b"], "unevaluatedProperties": {"type": "null"}}, {"b": 1}),
        ({"anyOf": [{"required": ["a"]}], "unevaluatedProperties": False}, {"a": 1}),
        ({"if": {"required": ["a"]}, "then": {"minProperties": 1}, "unevaluatedProperties": False}, {"a": 1}),
        ({"dependentSchemas": {"a": {"required": ["a"]}}, "unevaluatedProperties": False}, {"a": 1}),
        ({"$ref": "#/$defs/x", "unevaluatedProperties": False, "$defs": {"x": {"required": ["a"]}}}, {"a": 1}),
        ({"anyOf": [{"minItems": 1}], "unevaluatedItems": False}, [1, 2]),
        ({"type": "array", "unevaluatedItems": {"type": "null"}}, [1]),
    ],
)
def test_a_limit_does_not_state_what_is_forbidden_because_nobody_states_it(schema: Any, value: Any) -> None:
    assert Validator(schema).problems(value) != ()
    for narrower in (bounded(schema, Bounds(2, 2)), closed(schema), bounded(closed(schema), Bounds(2, 2))):
        assert Validator(narrower).problems(value) != ()
        assert looked_at(narrower) >= {""}


def test_equal_tools_are_compiled_once_and_share_no_state(alone: Compiling) -> None:
    first, second = (alone.tools([tool({"x": LEAF})], Choice("any"), SMOLLM, parallel=True) for _ in range(2))
    assert first is not None
    assert second is not None
    before = second.mask()
    assert first.accept(ord("<"))
    assert second.mask() == before
    assert alone._compile.cache_info().hits >= 1
