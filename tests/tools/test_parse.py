"""From text to calls."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.tools import (
    HERMES,
    SMOLLM,
    ArgumentsDelta,
    Call,
    CallBegun,
    Delta,
    Outcome,
    Parser,
    Prose,
    TextDelta,
    Tool,
    counted,
    render_call,
)

TOOLS = (Tool("get_weather", "", {}), Tool("now", "", {}))
TEXT = st.text(st.characters(codec="utf-8") | st.sampled_from('{}[]",:\\ </tool_call>'), max_size=20)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
MARKERS = TEXT | st.sampled_from(["</tool_call>", "<tool_call>", '{"name": "now"}', '\\"', "}}"])
ARGUMENTS = st.dictionaries(MARKERS, PLAIN | MARKERS, max_size=3)


def read(pieces: list[str], *, truncated: bool = False) -> tuple[list[Delta], Outcome]:
    parser = Parser(SMOLLM, TOOLS, ids=counted("t-"))
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return deltas, parser.finish(truncated)


def joined(deltas: list[Delta], index: int) -> str:
    return "".join(d.text for d in deltas if isinstance(d, ArgumentsDelta) and d.index == index)


@given(ARGUMENTS, st.sampled_from([None, 1, 3]), st.booleans())
def test_parsing_what_is_rendered_gives_the_call_back(arguments: Any, indent: Any, raw: bool) -> None:
    text = json.dumps(arguments, indent=indent, ensure_ascii=not raw)
    deltas, outcome = read([render_call(SMOLLM, "get_weather", text)])
    assert outcome == Outcome("called", "", (Call("t-0", "get_weather", arguments, text),))
    assert joined(deltas, 0) == text


@given(ARGUMENTS, st.lists(st.integers(0, 400)))
def test_any_split_gives_the_same(arguments: Any, cuts: list[int]) -> None:
    text = json.dumps(arguments)
    whole = f"Well <tool {render_call(SMOLLM, 'now', text)}\n{render_call(HERMES, 'get_weather', text)} end <"
    edges = [0, *sorted(cut % (len(whole) + 1) for cut in cuts), len(whole)]
    deltas, outcome = read([whole[a:b] for a, b in pairwise(edges)])
    assert outcome == read([whole])[1]
    assert [call.text for call in outcome.calls] == [joined(deltas, 0), joined(deltas, 1)] == [text, text]
    assert outcome.text == "Well <tool \n end <"


def test_one_call_split_at_every_position_and_letter_by_letter() -> None:
    call = render_call(SMOLLM, "get_weather", '{"city": "</tool_call> {\\"} 你好"}')
    text = f"a<b {call} c"
    expected = read([text])[1]
    assert expected.kind == "called"
    assert expected.calls[0].arguments == {"city": '</tool_call> {"} 你好'}
    for cut in range(len(text) + 1):
        assert read([text[:cut], text[cut:]])[1] == expected
    assert read(list(text))[1] == expected


def test_the_name_comes_first_and_then_the_arguments_as_they_arrive() -> None:
    parser = Parser(SMOLLM, TOOLS)
    assert parser.feed("Hi <tool") == [TextDelta("Hi ")]
    assert parser.feed('_call>{"name": "get_we') == []
    assert parser.feed('ather", "argum') == [CallBegun(0, "call_0", "get_weather")]
    assert parser.feed('ents": {"ci') == [ArgumentsDelta(0, "{"), ArgumentsDelta(0, '"ci')]
    assert parser.feed('ty": "Oslo"}}</tool_') == [ArgumentsDelta(0, 'ty": "Oslo"}')]
    assert parser.feed("call> bye") == [TextDelta(" bye")]


def test_text_is_text() -> None:
    for text in ("Hello!", "", "1 < 2 <tool", "</tool_call>", '{"name": "now"}'):
        deltas, outcome = read([text])
        assert outcome == Outcome("text", text, ())
        assert all(isinstance(delta, TextDelta) for delta in deltas)


@pytest.mark.parametrize(
    "inside", ['{"name": "now"}', '{"name": "now", "arguments": null}', '{"arguments":{},"name":"now"}']
)
def test_a_call_without_arguments_has_an_empty_object(inside: str) -> None:
    deltas, outcome = read([f"<tool_call>\n{inside}\n</tool_call>"])
    assert outcome.calls == (Call("t-0", "now", {}, "{}"),)
    assert deltas == [CallBegun(0, "t-0", "now"), ArgumentsDelta(0, "{}")]


def test_a_call_cut_anywhere_is_truncated_and_never_a_call() -> None:
    text = render_call(SMOLLM, "get_weather", '{"city": "Oslo"}')
    for cut in range(len(text)):
        outcome = read([text[:cut]], truncated=True)[1]
        assert (outcome.kind, outcome.calls) == ("truncated", ())


def test_a_cut_after_a_finished_call_keeps_that_call() -> None:
    first = render_call(SMOLLM, "now", "{}")
    outcome = read([first + first[:20]], truncated=True)[1]
    assert (outcome.kind, len(outcome.calls)) == ("truncated", 1)
    assert outcome.problems
    assert read([first + " and so"], truncated=True)[1].kind == "called"


def test_a_missing_end_marker_is_forgiven_only_when_the_model_ended_there() -> None:
    text = '<tool_call>{"name": "now", "arguments": {}}'
    assert read([text])[1].kind == "called"
    assert read([text + "</tool"])[1].kind == "called"
    assert read([text], truncated=True)[1].kind == "truncated"


@pytest.mark.parametrize(
    ("inside", "says"),
    [
        ("hello", "expected '{'"),
        ("", "expected '{'"),
        ("{}", 'no "name"'),
        ('{"name": 5, "arguments": {}}', "must be text"),
        ('{"name": "now", "arguments": []}', "must be an object"),
        ('{"name": "now", "arguments": "{}"}', "must be an object"),
        ('{"name": "now", "arguments": nil}', "must be an object"),
        ('{"name": "now", "arguments": {"a": 1, "a": 2}}', "twice"),
        ('{"name": "now", "arguments": {"a": NaN}}', "no JSON number"),
        ('{"name": "now", "arguments": {a: 1}}', "not JSON"),
        ('{"name": "now", "name": "get_weather"}', "twice"),
        ('{"name": "now", "argument": {}}', "does not belong"),
        ('{"name": "now" "arguments": {}}', "expected ','"),
        ('{"name": "now", "arguments": {}} and more', "stands 'and more'"),
        ('{"name": "now", "arguments": {}}}', "stands '}'"),
        ("{,}", "expected a key"),
        ('{"name": "now",}', "expected a key"),
    ],
)
def test_a_malformed_call_is_said_to_be_one_and_the_rest_goes_on(inside: str, says: str) -> None:
    good = render_call(SMOLLM, "now", "{}")
    text = f"a<tool_call>{inside}</tool_call>b{good}"
    outcome = read([text])[1]
    assert outcome.kind == "malformed"
    assert says in outcome.problems[0].message
    assert [call.name for call in outcome.calls] == ["now"]
    assert outcome.text == "ab"
    assert read(list(text))[1] == outcome


def test_an_object_the_model_left_open_is_malformed() -> None:
    assert read(['<tool_call>{"name": "now", "arg'])[1].kind == "malformed"


def test_a_call_of_an_unknown_tool_can_be_answered() -> None:
    outcome = read([render_call(SMOLLM, "get_snow", '{"a": 1}')])[1]
    assert outcome.kind == "unknown_tool"
    assert outcome.calls == (Call("t-0", "get_snow", {"a": 1}, '{"a": 1}'),)
    assert "get_snow" in outcome.problems[0].message


def test_where_no_tool_may_be_called_nothing_is_a_call() -> None:
    prose = Prose()
    text = render_call(SMOLLM, "now", "{}")
    assert prose.feed(text) == [TextDelta(text)]
    assert prose.finish(truncated=False) == Outcome("text", text, ())
    assert prose.finish(truncated=True).kind == "truncated"
