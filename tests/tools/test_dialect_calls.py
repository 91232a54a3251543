"""Every dialect: what is rendered is read back, however it is split, and its grammar lets it through and no more."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.tools import (
    DEEPSEEK,
    DEEPSEEK_V31,
    DIALECTS,
    FUNCTIONGEMMA,
    GEMMA,
    HERMES,
    LLAMA,
    MISTRAL,
    MISTRAL_ARGS,
    SMOLLM,
    ArgumentsDelta,
    CallBegun,
    Choice,
    Delta,
    Dialect,
    Outcome,
    Parser,
    TextDelta,
    dialect_for,
    read_tools,
    render_call,
    render_calls,
)
from sostenuto.tools.grammars.compiling import Compiling

TOOLS = read_tools(
    [
        {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}, "required": ["a"]}},
        {"name": "f.2", "parameters": {"properties": {"n": {"type": "integer"}}}},
    ]
)
EVERY = pytest.mark.parametrize("dialect", list(DIALECTS.values()), ids=list(DIALECTS))
NASTY = st.text(st.sampled_from('{}[]",:\\ <>|\n`a;') | st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["</tool_call>", "[TOOL_CALLS]", "[ARGS]", DEEPSEEK.end, DEEPSEEK.closing, "\n```", "; ", '"}}', "]", "<esc", "<|"]
)
ARGUMENTS = st.dictionaries(NASTY, NASTY | st.integers() | st.lists(NASTY, max_size=2), max_size=3)


def read(dialect: Dialect, pieces: list[str], *, truncated: bool = False) -> tuple[list[Delta], Outcome]:
    parser = Parser(dialect, TOOLS)
    deltas = [delta for piece in pieces for delta in parser.feed(piece)]
    return deltas, parser.finish(truncated)


def joined(deltas: list[Delta], index: int) -> str:
    return "".join(d.text for d in deltas if isinstance(d, ArgumentsDelta) and d.index == index)


@EVERY
@given(given=st.lists(ARGUMENTS, min_size=1, max_size=3), cuts=st.lists(st.integers(0, 500)), raw=st.booleans())
def test_calls_come_back_as_they_were_rendered_however_they_are_split(
    dialect: Dialect, given: list[Any], cuts: list[int], raw: bool
) -> None:
    texts = [json.dumps(each, ensure_ascii=not raw) for each in given]
    text = render_calls(dialect, [("f" if n % 2 else "f.2", each) for n, each in enumerate(texts)])
    if dialect.quote:  # what is no JSON there becomes JSON, always spelled alike
        texts = [json.dumps(each, ensure_ascii=False) for each in given]
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for pieces in ([text[a:b] for a, b in pairwise(edges)], list(text)):
        deltas, outcome = read(dialect, pieces)
        assert (outcome.kind, outcome.text.strip(), outcome.problems) == ("called", "", ())
        assert [call.text for call in outcome.calls] == texts
        assert [call.arguments for call in outcome.calls] == given
        assert [call.name for call in outcome.calls] == ["f" if n % 2 else "f.2" for n in range(len(texts))]
        assert [joined(deltas, n) for n in range(len(texts))] == texts
        names = [delta.name for delta in deltas if isinstance(delta, CallBegun)]
        assert names == [call.name for call in outcome.calls]


@EVERY
def test_calls_come_back_however_their_tokens_are_handed_on(
    dialect: Dialect, encode: Callable[[str], list[int]], decode: Callable[[list[int]], str]
) -> None:
    calls = [("f", '{"a": "<x> \\"}] </tool_call> ü"}'), ("f.2", '{"n": -12}')]
    text = render_calls(dialect, calls)
    tokens = encode(text)
    # A character that several tokens spell comes with the last of them, as a detokenizer hands it on.
    told = [len(decode(tokens[:count]).rstrip("\ufffd")) for count in range(len(tokens) + 1)]
    assert told[-1] == len(text)
    for cut in range(len(tokens)):
        for pieces in ([text[: told[cut]], text[told[cut] :]], [text[a:b] for a, b in pairwise(told)]):
            deltas, outcome = read(dialect, pieces)
            assert outcome.kind == "called"
            assert [(call.name, call.text) for call in outcome.calls] == calls
            assert [joined(deltas, place) for place in (0, 1)] == [text for _, text in calls]


@EVERY
def test_text_may_come_first_but_where_only_the_first_character_tells(dialect: Dialect) -> None:
    call = render_call(dialect, "f", '{"a": "x"}')
    outcome = read(dialect, [*f"Let me see. {call}"])[1]
    if dialect.anchored:
        assert (outcome.kind, outcome.text) == ("text", f"Let me see. {call}")
    else:
        assert (outcome.kind, outcome.text, len(outcome.calls)) == ("called", "Let me see. ", 1)
    assert read(dialect, [*"\n" + call])[1].kind == "called"


@EVERY
@pytest.mark.parametrize("text", ["", "Hello!", " <tool [TOOL < ", "no {call} here"])
def test_text_is_text_in_every_dialect(dialect: Dialect, text: str) -> None:
    deltas, outcome = read(dialect, list(text))
    assert outcome == Outcome("text", text, ())
    assert all(isinstance(delta, TextDelta) for delta in deltas)


@EVERY
def test_a_call_cut_anywhere_is_truncated_and_no_call(dialect: Dialect) -> None:
    call = render_call(dialect, "f", '{"a": "x"}')
    for cut in range(len(call)):
        outcome = read(dialect, [call[:cut]], truncated=True)[1]
        assert outcome.kind == "truncated", call[:cut]
        whole = dialect.end == "" or dialect.opening != ""
        assert outcome.calls == () or whole, call[:cut]


@EVERY
@pytest.mark.parametrize("arguments", ["[1]", "nil", '{"a": NaN}', '{"a": 1, "a": 2}', '{"a" 1}'])
def test_arguments_that_are_no_strict_object_are_malformed(dialect: Dialect, arguments: str) -> None:
    outcome = read(dialect, [*render_call(dialect, "f", arguments)])[1]
    assert (outcome.kind, outcome.calls) == ("malformed", ())
    assert outcome.problems


@EVERY
def test_unknown_and_denied_tools_are_told_apart(dialect: Dialect) -> None:
    for name, kind in (("g", "unknown_tool"), ("f.2", "denied"), ("f", "called")):
        parser = Parser(dialect, TOOLS, allowed=["f"])
        parser.feed(render_call(dialect, name, "{}"))
        outcome = parser.finish(truncated=False)
        assert (outcome.kind, len(outcome.calls)) == (kind, 1)
        assert bool(outcome.problems) is (kind != "called")


@EVERY
@pytest.mark.parametrize("mode", ["auto", "any", "named"])
def test_the_grammar_takes_what_is_rendered_and_no_wrong_call(alone: Compiling, dialect: Dialect, mode: Any) -> None:
    choice = Choice(mode, "f" if mode == "named" else None)
    fresh = alone.tools(TOOLS, choice, dialect, parallel=True)
    assert fresh is not None

    def taken(text: str) -> bool:
        grammar = fresh.fork()
        return all(grammar.accept(byte) for byte in text.encode()) and grammar.accepting

    call = ("f", '{"a": "x"}')
    assert taken(render_calls(dialect, [call]))
    assert taken(render_calls(dialect, [call, call]))
    assert taken(render_calls(dialect, [("f.2", '{"n": 1}')])) is (mode != "named")
    assert taken("Hello.") is (mode == "auto")
    for name, text in (("f", '{"a": 1}'), ("f", "{}"), ("g", "{}"), ("f.2", '{"n": 1, "m": 2}')):
        assert not taken(render_calls(dialect, [(name, text)])), (name, text)
    assert not taken(render_calls(dialect, [call])[:-1])
    single = alone.tools(TOOLS, choice, dialect, parallel=False)
    assert single is not None
    assert all(single.accept(byte) for byte in render_calls(dialect, [call]).encode())
    assert single.done


@EVERY
def test_free_text_needs_no_mask(alone: Compiling, dialect: Dialect) -> None:
    grammar = alone.tools(TOOLS, Choice("auto"), dialect, parallel=True)
    assert grammar is not None
    for byte in b"Well, {that} [is] <so>.":
        assert grammar.accept(byte)
        assert grammar.mask() is None


def test_the_template_tells_which_dialect_a_model_speaks() -> None:
    for words, dialect in (
        ("{% if tools %}<tools></tools><tool_call>", HERMES),
        ("{{ '[TOOL_CALLS]' }}[{", MISTRAL),
        ("[TOOL_CALLS]{{ name }}[ARGS]", MISTRAL_ARGS),
        (DEEPSEEK.opening + "```json", DEEPSEEK),
        (DEEPSEEK.opening, DEEPSEEK_V31),
        ("{% if tools %}{{ '<start_function_call>call:' }}", FUNCTIONGEMMA),
        ("{% if tools %}{{ '<|tool_call>call:' }}<tool_call|>", GEMMA),
        ("<|start_header_id|>{% if tools %}" + '{"name": "x", "parameters": {}}', LLAMA),
    ):
        assert dialect_for("anything", words) is dialect
    named = {"Llama-3.1-8B-Instruct": LLAMA, "Mistral-7B-Instruct-v0.3": MISTRAL, "DeepSeek-V3": DEEPSEEK}
    named |= {"functiongemma-270m-it": FUNCTIONGEMMA, "gemma-4-E4B-it": GEMMA, "gemma-3-1b-it": SMOLLM}
    assert {name: dialect_for(name, None) for name in named} == named
