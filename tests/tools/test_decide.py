"""The check before anything runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sostenuto.tools import Call, Dispatch, Problem, Reject, compact, decide, read_tools, shape, validators

TOOLS = read_tools(
    [
        {
            "name": "book",
            "parameters": {
                "type": "object",
                "properties": {"n": {"type": "integer", "minimum": 1}, "unit": {"enum": ["c", "f"]}},
                "required": ["n"],
            },
        },
        {"name": "now"},
    ]
)
CHECKS = validators(TOOLS)


def call(name: str, arguments: Any, text: str | None = None) -> Call:
    return Call("c-0", name, arguments, json.dumps(arguments) if text is None else text)


def test_a_call_that_fits_is_dispatched() -> None:
    good = call("book", {"n": 2, "unit": "c"})
    assert decide(good, TOOLS, CHECKS) == Dispatch(good, TOOLS[0])
    assert isinstance(decide(call("now", {}), TOOLS, CHECKS), Dispatch)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (call("brook", {"n": 2}), "no tool 'brook'"),
        (call("book", {}), "'n' is a required property"),
        (call("book", {"n": "2"}), "/n: '2' is not of type 'integer'"),
        (call("book", {"n": 0}), "minimum"),
        (call("book", {"n": 1, "unit": "k"}), "/unit"),
        (call("book", {"n": 1, "more": 1}), "more"),
        (call("now", {"more": 1}), "more"),
        (call("book", {"n": 1}, '{"n": 1, "n": 2}'), "twice"),
        (call("book", {"n": 1}, '{"n": 2}'), "not those the model wrote"),
        (call("book", {"n": 1}, '{"n": true}'), "not those the model wrote"),
        (call("book", {"n": 1}, '{"n": 1'), "not JSON"),
        (call("book", {}, "[]"), "must be an object"),
    ],
)
def test_everything_else_is_rejected_with_a_short_message(bad: Call, says: str) -> None:
    verdict = decide(bad, TOOLS, CHECKS)
    assert isinstance(verdict, Reject)
    assert says in verdict.message
    assert len(verdict.message) < 600


def test_a_tool_without_a_validator_is_never_called() -> None:
    assert isinstance(decide(call("now", {}), TOOLS, {}), Reject)


def test_the_message_shows_what_was_expected() -> None:
    verdict = decide(call("book", {}), TOOLS, CHECKS)
    assert isinstance(verdict, Reject)
    assert verdict.message.split("\n")[1] == 'Expected arguments: {"n": integer, "unit"?: "c" | "f"}'
    unknown = decide(call("x", {}), TOOLS, CHECKS)
    assert isinstance(unknown, Reject)
    assert unknown.message.split("\n")[1] == "Tools: book, now"


def test_few_problems_are_shown_and_the_rest_counted() -> None:
    said = compact([Problem(f"/{n}", "is wrong") for n in range(5)])
    assert said == "The tool was not called. /0: is wrong; /1: is wrong; /2: is wrong; and 2 more."


def test_a_shape_is_short_and_nests() -> None:
    schema = {"properties": {"l": {"type": "array", "items": {"type": "string"}}, "o": {"properties": {"x": {}}}}}
    assert shape(schema) == '{"l"?: [string], "o"?: {"x"?: any}}'
