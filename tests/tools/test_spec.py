"""Reading tools and choices."""

from __future__ import annotations

from typing import Any

import pytest

from sostenuto.tools import BadChoice, BadTool, Choice, Json, read_choice, read_tool, read_tools

SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}


def test_both_forms_give_the_same_tool() -> None:
    bare = {"name": "f", "description": "d", "parameters": SCHEMA, "strict": True}
    assert read_tool(bare) == read_tool({"type": "function", "function": bare})
    assert read_tool(bare).strict


def test_a_tool_without_parameters_takes_an_empty_object() -> None:
    empty: tuple[dict[str, Json] | None, ...] = (None, {})
    for parameters in empty:
        assert read_tool({"name": "now", "parameters": parameters}).parameters["type"] == "object"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"description": "no name"}, "name None"),
        ({"name": ""}, "not empty"),
        ({"type": "function", "function": {"description": "x"}}, "name None"),
        ({"name": "two words"}, "A-Z"),
        ({"name": "x" * 129}, "1 to 128"),
        ({"name": "f", "description": 5}, "description as int"),
        ({"name": "f", "parameters": [1]}, "parameters as list"),
        ({"name": "f", "parameters": {"type": "string"}}, "type 'string'"),
        ({"name": "f", "parameters": {"type": "object", "properties": 5}}, "properties"),
        ({"name": "f", "parameters": {"properties": {"a": {"type": "text"}}}}, "/properties/a/type"),
        ({"name": "f", "parameters": {"$ref": "https://example.com/s.json"}}, "none is fetched"),
        ({"name": "f", "parameters": {"properties": {"a": {"pattern": "(a+)+$"}}}}, "repeats"),
        ({"type": "function", "function": 5}, "'function' as int"),
        (5, "int"),
    ],
)
def test_what_is_no_tool_is_refused_with_what_was_found(spec: Any, says: str) -> None:
    with pytest.raises(BadTool) as refused:
        read_tool(spec)
    assert says in str(refused.value)
    assert "expected" in str(refused.value)


def test_two_tools_of_one_name_are_refused() -> None:
    with pytest.raises(BadTool, match="two tools"):
        read_tools([{"name": "f"}, {"name": "f"}])


@pytest.mark.parametrize(
    ("value", "choice"),
    [
        (None, Choice("auto")),
        ("auto", Choice("auto")),
        ("any", Choice("any")),
        ("required", Choice("any")),
        (True, Choice("any")),
        ("none", Choice("none")),
        (False, Choice("none")),
        ("f", Choice("named", "f")),
        ({"type": "function", "function": {"name": "f"}}, Choice("named", "f")),
        ({"type": "tool", "name": "f"}, Choice("named", "f")),
        ({"type": "any"}, Choice("any")),
    ],
)
def test_a_choice_is_read_from_every_form(value: object, choice: Choice) -> None:
    assert read_choice(value, read_tools([{"name": "f"}, {"name": "g"}])) == choice


@pytest.mark.parametrize("value", ["h", 5, 1, {"type": "function", "function": {"name": "h"}}, {"name": "f"}])
def test_an_unknown_choice_is_an_error_that_names_the_tools(value: object) -> None:
    with pytest.raises(BadChoice, match=r"f, g"):
        read_choice(value, read_tools([{"name": "g"}, {"name": "f"}]))


def test_without_tools_auto_is_none_and_a_demand_is_an_error() -> None:
    assert read_choice(None, ()) == Choice("none")
    with pytest.raises(BadChoice, match="no tool at all"):
        read_choice("any", ())
