"""A tool is called with arguments that fit or not at all, and what it raises for its caller's sake is told."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from sostenuto.runtime.rollout import Result, Tally, Toolbox
from sostenuto.tools import BadTool, Call

from .rollouts import ADD, adder


def call(**arguments: Any) -> Call:
    return Call("c1", "add", arguments, json.dumps(arguments))


async def test_a_call_that_fits_is_run_and_its_result_says_what_it_answers() -> None:
    result: Result = await adder().run(call(a=1, b=3))
    assert (result.fate, result.message.text) == ("ran", "4")
    assert (result.message.role, result.message.tool, result.message.call) == ("tool", "add", "c1")


@pytest.mark.parametrize(
    "wrong",
    [
        call(a=1),
        call(a=1, b=9),
        call(a=1, b="2"),
        call(a=1, b=2, c=3),
        Call("c1", "add", {"a": 1, "b": 2}, '{"a": 1, "b": 3}'),
        Call("c1", "add", {}, "{"),
        Call("c1", "subtract", {"a": 1, "b": 2}, '{"a": 1, "b": 2}'),
    ],
)
async def test_a_call_that_does_not_fit_is_answered_and_never_run(wrong: Call) -> None:
    ran: list[tuple[int, int]] = []
    result = await Toolbox([ADD], {"add": lambda a, b: ran.append((a, b))}).run(wrong)
    assert (result.fate, result.seconds, ran) == ("rejected", 0.0, [])
    assert result.message.text
    assert result.message.call == "c1"


async def test_functions_run_in_threads_and_coroutines_do_not() -> None:
    async def here(a: int, b: int) -> str:
        return threading.current_thread().name

    def there(a: int, b: int) -> str:
        return threading.current_thread().name

    own = threading.current_thread().name
    assert (await Toolbox([ADD], {"add": here}).run(call(a=1, b=1))).message.text == own
    assert (await Toolbox([ADD], {"add": there}).run(call(a=1, b=1))).message.text != own


@pytest.mark.parametrize(
    ("value", "text"),
    [("as it is", "as it is"), (3, "3"), ({"city": "Köln"}, '{"city": "Köln"}'), (None, "null"), ({1}, '"{1}"')],
)
async def test_what_is_no_text_is_written_as_json(value: object, text: str) -> None:
    assert (await Toolbox([ADD], {"add": lambda a, b: value}).run(call(a=1, b=1))).message.text == text


async def test_an_excused_error_is_told_and_any_other_is_raised() -> None:
    def divide(a: int, b: int) -> float:
        return a / (b - 1)

    result = await Toolbox([ADD], {"add": divide}).run(call(a=1, b=1))
    assert result.fate == "failed"
    assert "ZeroDivisionError: division by zero" in result.message.text
    with pytest.raises(ZeroDivisionError):
        await Toolbox([ADD], {"add": divide}, excused=(KeyError,)).run(call(a=1, b=1))


async def test_a_tool_that_does_not_come_back_is_given_up() -> None:
    never = threading.Event()
    try:
        result = await Toolbox([ADD], {"add": lambda a, b: never.wait()}, timeout=0.01).run(call(a=1, b=1))
    finally:
        never.set()
    assert result.fate == "failed"
    assert "did not answer within 0.01 s" in result.message.text


def test_functions_and_their_specifications_must_match() -> None:
    with pytest.raises(BadTool, match="'add': found a specification and no function"):
        Toolbox([ADD])
    with pytest.raises(BadTool, match="'sub': found a function and no specification"):
        Toolbox([ADD], {"add": max, "sub": min})


def test_tallies_add_up_and_say_which_part_of_the_time_was_waiting() -> None:
    whole = Tally(asked=5, computed=3, calls=1, speaking_s=3.0) + Tally(asked=1, stale=2, waiting_s=1.0)
    assert whole == Tally(asked=6, computed=3, stale=2, calls=1, speaking_s=3.0, waiting_s=1.0)
    assert whole.wait_share == 0.25
    assert Tally().wait_share == 0.0


class Later:
    """Callable and awaitable, and no coroutine function."""

    async def __call__(self, **given: Any) -> str:
        return "later"


@pytest.mark.parametrize(
    ("function", "fate", "text"),
    [
        (Later(), "ran", "later"),
        (lambda **given: {(1, 2): "no key of JSON"}, "failed", "cannot be written as JSON"),
        (lambda **given: "half \ud800", "failed", "surrogates"),
    ],
)
async def test_whatever_a_tool_returns_becomes_text_or_is_told(function: Any, fate: str, text: str) -> None:
    spec = {"type": "function", "function": {"name": "odd", "description": "", "parameters": {"type": "object"}}}
    result = await Toolbox([spec], {"odd": function}).run(Call("c", "odd", {}, "{}"))
    assert result.fate == fate
    assert text in result.message.text
