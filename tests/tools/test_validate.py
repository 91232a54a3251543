"""The check of values: the same verdict whichever library gives it, and never a long wait."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.tools import (
    BadSchema,
    MalformedCall,
    Validator,
    check_schema,
    judge_result,
    loads,
    read_tool,
    read_tools,
)
from sostenuto.tools.contracts import checker
from sostenuto.tools.ids import flattened
from sostenuto.tools.patterns import compiled, plain, reach, why_unsafe
from sostenuto.tools.work import MAX_DEPTH, Size, measure, work

TREE = {
    "$id": "https://example.com/tree",
    "type": "object",
    "properties": {"kids": {"type": "array", "items": {"$ref": "https://example.com/tree"}}, "name": {"$ref": "name"}},
    "$defs": {"any": {"$id": "name", "$ref": "#short", "$defs": {"s": {"$anchor": "short", "maxLength": 3}}}},
}


def doubling(levels: int) -> dict[str, Any]:
    """Each definition asks for the next one twice."""
    definitions: dict[str, Any] = {
        f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(levels)
    }
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "string"}}}


@pytest.mark.parametrize("fast", [True, False])
def test_references_by_name_stay_inside_the_document(fast: bool) -> None:
    check = Validator(TREE, fast=fast)
    assert check.problems({"name": "abc", "kids": [{"kids": []}]}) == ()
    assert [problem.path for problem in check.problems({"kids": [{"name": "abcd"}]})] == ["/kids/0/name"]
    flat = flattened(TREE)
    assert flat["properties"]["kids"]["items"]["$ref"] == "#"
    assert flat["properties"]["name"]["$ref"] == "#/$defs/any"
    assert "$id" not in json.dumps(flat)
    assert TREE["$id"] == "https://example.com/tree"


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "none is fetched"),
        ({"$id": "https://example.com/a/b", "$ref": "c"}, "none is fetched"),
        ({"$schema": "https://example.com/mine"}, "published draft"),
        ({"$schema": {}}, "published draft"),
        ({"anyOf": [{"type": "string"}, {"$ref": "#"}]}, "itself for the same value"),
        (doubling(40), "unfolds"),
        ({"anyOf": [True] * 10_001}, "unfolds"),
        ({"pattern": "a?" * 40 + "a" * 40}, "too many ways"),
        ({"pattern": "(ab)?" * 40}, "too many ways"),
        ({"pattern": "^" + ".*" * 8 + "$"}, "too many ways"),
        ({"pattern": r"\p{L}"}, "no regular expression"),
    ],
)
def test_schemas_that_leave_or_unfold_or_explode_are_refused(schema: dict[str, Any], says: str) -> None:
    with pytest.raises(BadSchema) as refused:
        check_schema(schema)
    assert says in str(refused.value)


def test_what_refers_to_itself_once_is_cheap_and_what_does_so_twice_is_watched() -> None:
    assert not work(flattened(TREE)).forks
    twice = {"anyOf": [{"properties": {"c": {"$ref": "#"}}, "required": ["x"]} for _ in range(2)]}
    assert work(twice).forks
    deep: Any = 1
    for _ in range(30):
        deep = {"c": deep, "x": 1}
    assert Validator(twice).problems({"c": {"x": 1}, "x": 1}) == ()
    deep["c"]["c"]["c"]["c"].pop("x")
    assert Validator(twice).problems(deep) != ()
    hopeless: Any = {}
    for _ in range(40):
        hopeless = {"c": hopeless, "x": 1}
    assert "nested too deep" in Validator(twice).problems(hopeless)[0].message


def test_a_value_too_large_for_its_schema_is_a_problem_at_once() -> None:
    check = Validator({"items": {"anyOf": [{"const": str(n)} for n in range(500)]}})
    assert check.problems(["499"] * 10) == ()
    assert "too much at once" in check.problems(["499"] * 2000)[0].message


def test_a_value_is_measured_no_further_than_wanted() -> None:
    assert measure({"ab": ["abc", {"k": 1}]}) == Size(values=5, text=3, key=2, depth=4)
    assert measure([[[0] * 100] * 100], 10).values == 102
    deep: Any = []
    for _ in range(MAX_DEPTH * 2):
        deep = [deep]
    assert measure(deep).depth == MAX_DEPTH + 1


def test_a_text_too_long_for_its_pattern_is_refused_and_others_may_be_long() -> None:
    check = Validator({"properties": {"slow": {"pattern": "a.*b.*c"}, "text": {"type": "string"}}})
    assert check.problems({"slow": "a-b-c", "text": "x" * 500_000}) == ()
    assert "too many to look for" in check.problems({"slow": "a" * 500_000})[0].message
    names = Validator({"patternProperties": {"a.*b.*c": {}}})
    assert "a key of" in names.problems({"a" * 5000: 1})[0].message


@pytest.mark.parametrize(
    ("pattern", "at_least", "below"),
    [
        ("^[a-z]+$", 10**7, None),
        (r"^[\w.+-]+@[a-z0-9-]+\.[a-z]{2,}$", 10**7, None),
        (r"^https?://[a-z0-9.-]+(:[0-9]+)?(/[^?]*)?(\?.*)?$", 10**7, None),
        (r"^([0-9]{1,3}\.){3}[0-9]{1,3}$", 10**7, None),
        ("^(red|green)+ x*$", 10**7, None),
        ("a+b", 5000, 20_000),
        ("^(ab)+(ab)+$", 5000, 20_000),
        ("^.*,.*$", 5000, 20_000),
        (".*a.*", 300, 500),
        ("^(x+|y+)x+$", 5000, 20_000),
    ],
)
def test_how_long_a_text_may_be_follows_from_the_pattern(pattern: str, at_least: int, below: int | None) -> None:
    assert why_unsafe(pattern) is None
    assert reach(pattern) >= at_least
    assert below is None or reach(pattern) < below


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        ("^a$", "a\n", False),
        (r"^\d$", "\u0663", False),
        (r"^\w$", "\xe9", False),
        (r"^\W$", "\xe9", True),
        (r"^[\s]$", "\ufeff", True),
        (r"^\S$", "\ufeff", False),
        ("^.$", "\u2028", False),
        ("^[.$]$", "$", True),
        (r"^\$$", "$", True),
        ("^(?<year>[0-9]{4})$", "2026", True),
        ("^[[a]+$", "[a", True),
        (r"a\/b", "a/b", True),
    ],
)
def test_patterns_mean_what_they_mean_to_javascript(pattern: str, text: str, found: bool) -> None:
    assert bool(compiled(pattern).search(text)) is found
    assert plain(plain(pattern)).startswith("^") is pattern.startswith("^")
    for fast in (True, False):
        assert (Validator({"pattern": pattern}, fast=fast).problems(text) == ()) is found


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from([0.0, 1.0, -1.5, 1e300])
    | st.text("ab1", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_equal_items_are_found_as_json_says(value: Any) -> None:
    others: list[Any] = [1, 1.0, True, None, "1", [1], {"a": 1}]
    for other in others:
        alone = Validator({"uniqueItems": True}, fast=False).problems([value, other]) == ()
        assert alone is (Validator({"const": other}, fast=False).problems(value) != ())


KEYWORDS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "array", "string", "integer", "number", ["null", "boolean"]]),
        "enum": st.lists(VALUES, min_size=1, max_size=3),
        "const": VALUES,
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "multipleOf": st.sampled_from([1, 2, 0.5]),
        "maxLength": st.integers(0, 2),
        "pattern": st.sampled_from(["a", "^a?b$", r"^\d"]),
        "uniqueItems": st.booleans(),
        "minItems": st.integers(0, 2),
        "required": st.lists(st.sampled_from("ab"), max_size=2, unique=True),
        "propertyNames": st.sampled_from([{"maxLength": 1}, {"pattern": "a"}]),
    },
)
SCHEMAS = st.recursive(
    KEYWORDS,
    lambda inner: st.builds(
        lambda base, more: {**base, **more},
        KEYWORDS,
        st.fixed_dictionaries(
            {},
            optional={
                "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
                "patternProperties": st.dictionaries(st.sampled_from(["a", "^b$"]), inner, max_size=2),
                "additionalProperties": st.booleans() | inner,
                "items": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "contains": inner,
                "not": inner,
                "anyOf": st.lists(inner, min_size=1, max_size=2),
                "oneOf": st.lists(inner, min_size=1, max_size=2),
                "allOf": st.lists(inner, min_size=1, max_size=2),
                "if": inner,
                "then": inner,
                "unevaluatedProperties": st.just(False),
            },
        ),
    ),
    max_leaves=4,
)


@given(SCHEMAS, VALUES)
def test_both_libraries_come_to_the_same_verdict_in_the_same_words(schema: Any, value: Any) -> None:
    pytest.importorskip("jsonschema_rs")
    assert Validator(schema).problems(value) == Validator(schema, fast=False).problems(value)


def test_bytes_must_be_utf8() -> None:
    assert loads('{"a": "é"}'.encode()) == {"a": "é"}
    with pytest.raises(MalformedCall, match="byte 6 of 9 is no UTF-8"):
        loads(b'{"a":"\xe9"}')


def test_ten_megabytes_and_five_thousand_levels_are_stopped_before_they_are_read() -> None:
    for text, says in (('"' + "x" * 10_000_000 + '"', "at most"), ("[" * 5000 + "]" * 5000, "nested")):
        with pytest.raises(MalformedCall, match=says):
            loads(text)


RETURNS: Any = {
    "name": "now",
    "inputSchema": {"type": "object", "properties": {}},
    "outputSchema": {"type": "object", "properties": {"hour": {"type": "integer"}}, "required": ["hour"]},
}


def test_a_result_is_checked_against_what_its_tool_says_it_returns() -> None:
    tools = read_tools([RETURNS, {"name": "later"}])
    assert [tool.returns for tool in tools] == [RETURNS["outputSchema"], None]
    check = checker(RETURNS["outputSchema"])
    assert check is checker(dict(RETURNS["outputSchema"])), "made once"
    assert judge_result({"hour": 5, "more": 1}, check) == ()
    assert judge_result({"hour": "5"}, check)[0].path == "/hour"
    assert "required" in judge_result({}, check)[0].message


@pytest.mark.parametrize("result", [float("nan"), {1, 2}, b"x", ["x" * 1_000_001], {"a": "\ud800"}])
def test_a_result_that_is_no_json_is_a_problem(result: object) -> None:
    assert judge_result(result, None) != ()
    assert judge_result({"text": ["fine", 1.5, None]}, None) == ()


def test_a_tool_with_a_bad_result_schema_is_refused() -> None:
    with pytest.raises(Exception, match="of its result"):
        read_tool({"name": "f", "outputSchema": {"type": "hour"}})
