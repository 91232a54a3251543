"""The shape of calls' arguments: equal for calls that are alike, and silent about what was in them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.tools import Call, Tool, alike
from sostenuto.tools.alike import LONGEST

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def call(name: str = "run", **arguments: object) -> Call:
    return Call("c", name, arguments, "")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (None, "null"), (True, "true"), (0, "0"), (7, "1e0"), (99, "1e1"), (-0.02, "-1e-2"), (10**400, "huge"),
        (float("nan"), "huge"), ("", "text0"), ("a", "text1"), ("abcde", "text16"), ([1, 2], "list4"), ({}, "object0"),
    ],
)  # fmt: skip
def test_values_are_told_by_their_kind_and_their_size(value: object, told: str) -> None:
    assert alike([call(x=value)]) == f"run(x:{told})"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("pytest -q tests", "pytest"),
        ("cd /repo && PYTHONPATH=. /usr/bin/python3 -m pytest", "python3"),
        ("ls -la | wc", "ls"),
        ("$(curl secret)", "text16"),
        ("cd somewhere", "text16"),
        ("'quoted secret' x", "text64"),
    ],
)
def test_a_command_is_told_by_the_program_that_it_runs(command: str, told: str) -> None:
    assert alike([call(command=command)]) == f"run(command:{told})"
    assert alike([call(text=command)]) == f"run(text:text{4**2 if len(command) <= 16 else 64})"


def test_what_a_schema_enumerates_stands_as_it_is_and_nothing_else_does() -> None:
    tool = Tool("run", "", {"type": "object", "properties": {"how": {"enum": ["fast", "slow"]}, "who": True}})
    assert alike([call(how="slow", who="me")], [tool]) == "run(how:slow who:text4)"
    assert alike([call(how="other")], [tool]) == "run(how:text16)"


def test_several_calls_are_alike_in_whatever_order_they_come() -> None:
    one, other = call("a", x=1), call("b", y="z")
    assert alike([one, other]) == alike([other, one, one]) == "a(x:1e0) b(y:text1)"


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_a_shape_is_short_whatever_was_given(arguments: dict[str, object]) -> None:
    told = alike([Call("c", "run", arguments, "")])  # type: ignore[arg-type]
    assert len(told) <= LONGEST
    assert told == alike([Call("d", "run", dict(reversed(arguments.items())), "")])  # type: ignore[arg-type]
