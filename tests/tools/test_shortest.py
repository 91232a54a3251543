"""How many tokens a call takes at least: never more than any call takes, and hardly less than the shortest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sostenuto.tools import DIALECTS, HERMES, Choice, Dialect, read_tool, render_call
from sostenuto.tools.grammars.compiling import Compiling
from sostenuto.tools.shortest import Words, skeleton

from .conftest import NOW, WEATHER
from .test_sampled import TOOLS, drawn

ANY = Choice("any")
EVERY = pytest.mark.parametrize("dialect", list(DIALECTS.values()), ids=list(DIALECTS))


def without_blanks(dialect: Dialect, name: str, arguments: str) -> str:
    text = render_call(dialect, name, arguments)
    return text if dialect.head else text.replace(": ", ":").replace(", ", ",")


@EVERY
def test_of_single_bytes_a_call_takes_as_many_as_its_shortest_text_has(alone: Compiling, dialect: Dialect) -> None:
    assert alone.least([NOW], ANY, dialect, enough=1) == len(without_blanks(dialect, "now", "{}").encode())


@EVERY
def test_of_real_tokens_it_takes_hardly_fewer_than_its_text_is_spelled_with(
    compiler: Compiling, dialect: Dialect, encode: Callable[[str], list[int]]
) -> None:
    for tool, arguments in ((NOW, "{}"), (WEATHER, '{"city":""}')):
        spelled = len(encode(without_blanks(dialect, tool.name, arguments)))
        assert spelled - (20 if dialect.quote else 5) <= compiler.least([tool], ANY, dialect, enough=1) <= spelled


def test_no_call_that_is_drawn_takes_fewer(narrow: Compiling) -> None:
    for number, tool in enumerate(TOOLS * 3):
        grammar = narrow.tools([tool], ANY, HERMES, parallel=False)
        tokens, ended = drawn(grammar, np.random.default_rng(number), 0.5, [])
        assert not ended or len(tokens) >= narrow.least([tool], ANY, HERMES, enough=1) > 10


def test_of_several_tools_the_shortest_counts_and_of_a_named_one_only_that(compiler: Compiling) -> None:
    now, weather = (compiler.least([tool], ANY, HERMES, enough=1) for tool in (NOW, WEATHER))
    assert now < weather
    assert compiler.least([WEATHER, NOW], ANY, HERMES, enough=1) == now
    assert compiler.least([WEATHER, NOW], Choice("named", "get_weather"), HERMES, enough=1) == weather


def test_nothing_is_counted_where_no_call_must_come_or_all_are_sure_to_fit(compiler: Compiling) -> None:
    for choice in (Choice("auto"), Choice("none")):
        assert compiler.least([NOW], choice, HERMES, enough=1) == 0
    assert compiler.least([], ANY, HERMES, enough=1) == 0
    assert compiler.least([NOW], ANY, HERMES, enough=200) == 0


@pytest.mark.parametrize(
    ("properties", "required", "shortest"),
    [
        ({"a": {"type": "string", "minLength": 40}}, ["a"], '{"a":"' + "x" * 40 + '"}'),
        ({"a": {"type": "string"}, "b": {"type": "null"}}, ["b"], '{"b":null}'),
        ({"a": {"const": "only"}, "b": {"enum": [1, "two"]}}, ["a", "b"], '{"a":"only","b":1}'),
        ({"a": {"type": "array", "items": {"const": "x"}, "minItems": 3}}, ["a"], '{"a":["x","x","x"]}'),
        ({"a": {"anyOf": [{"type": "integer"}, {"type": "string"}]}}, ["a"], '{"a":1}'),
        ({"a": {"$ref": "#/$defs/pair"}}, ["a"], '{"a":{"left":"","right":""}}'),
        ({"a": {"type": "object"}, "b": {"type": "integer"}}, [], "{}"),
    ],
)
def test_what_a_schema_wants_is_counted_and_never_more(
    alone: Compiling, properties: dict[str, Any], required: list[str], shortest: str
) -> None:
    text = {"type": "string"}
    pair = {"type": "object", "properties": {"left": text, "right": text}, "required": ["left", "right"]}
    schema = {"type": "object", "properties": properties, "required": required, "$defs": {"pair": pair}}
    tool = read_tool({"name": "f", "parameters": schema})
    call = without_blanks(HERMES, "f", shortest)
    grammar = alone.tools([tool], ANY, HERMES, parallel=False)
    assert grammar is not None
    assert all(map(grammar.accept, call.encode()))
    assert 10 < alone.least([tool], ANY, HERMES, enough=1) <= len(call)
    assert len(call) - 2 <= Words([bytes([letter]) for letter in range(256)]).least(skeleton(tool, HERMES)) <= len(call)


def test_a_word_may_reach_over_the_edges_of_what_is_known() -> None:
    words = Words([b"a", b"b", b"xab", b"bx", b"abab"])
    assert words.least("ab\x01ab") == 1  # one word could hold both, for all that is known of the gap
    assert words.least("abb") == 2
    assert words.least("aa\x00b") == 2
    assert words.least("\x01" * 10) == 3
