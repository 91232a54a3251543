"""Grammars, by every engine that is installed: what they let through, on a real tokenizer."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from sostenuto.tools import (
    HERMES,
    SMOLLM,
    Choice,
    Dispatch,
    GrammarRefused,
    Parser,
    Tool,
    decide,
    read_tool,
    render_call,
    validators,
)
from sostenuto.tools.grammars.compiling import Compiling
from sostenuto.tools.grammars.following import Following

EOS, VOCAB = 2, 49152
Encode = Callable[[str], list[int]]
CALL = render_call(SMOLLM, "get_weather", '{"city": "Tokyo"}')
AUTO, ANY = Choice("auto"), Choice("any")


def grammar(compiler: Compiling, tools: tuple[Tool, ...], choice: Choice, parallel: bool = True) -> Any:
    made = compiler.tools(tools, choice, SMOLLM, parallel=parallel)
    assert made is not None
    return made


def taken(state: Following, tokens: list[int]) -> int:
    """How many are accepted, each of them allowed by the mask before it."""
    for count, token in enumerate(tokens):
        allowed = bits(state.mask())
        if not state.accept(token):
            assert token not in allowed
            return count
        assert token in allowed
    return len(tokens)


def bits(mask: bytes | None) -> range | set[int]:
    if mask is None:
        return range(VOCAB)
    assert len(mask) == VOCAB // 8
    return {8 * place + bit for place, byte in enumerate(mask) if byte for bit in range(8) if byte >> bit & 1}


def ends(state: Following) -> bool:
    return state.fork().accept(EOS)


def fits(state: Following, tokens: list[int]) -> bool:
    return taken(state, tokens) == len(tokens) and ends(state)


def walk(state: Following, chance: random.Random, most: int) -> list[int]:
    """Random tokens the mask allows, until the end."""
    tokens: list[int] = []
    while len(tokens) < most:
        token = chance.choice(list(bits(state.mask())))
        assert state.accept(token)
        if token == EOS:
            break
        tokens.append(token)
    return tokens


def test_auto_permits_free_text_without_a_mask(compiler: Compiling, offered: tuple[Tool, ...], encode: Encode) -> None:
    state = grammar(compiler, offered, AUTO)
    assert state.mask() is None
    for token in encode('Hello, <b>{"braces"}</b> & 你好 🙂, no call.'):
        assert token in bits(state.mask())
        assert state.accept(token)
    assert state.mask() is None
    assert ends(state)


def test_what_needs_no_mask_is_accepted_and_taken_back(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    state = grammar(compiler, offered, AUTO)
    lone_byte, control = 130, 1
    assert [state.accept(token) for token in (lone_byte, control, *encode("Hi"))] == [True, True, True]
    state.rollback(3)
    assert state.mask() is None
    assert fits(state, encode("Hi " + CALL))


def test_a_call_once_begun_must_be_valid_and_closed(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    wrong = {
        '<tool_call>{"name": "get_snow"': "get_snow",
        '<tool_call>{"name": "get_weather", "arguments": {"city": 5': " 5",
        '<tool_call>{"name": "get_weather", "arguments": {"unit": "kelvin"': "kelvin",
        "<tool_call> hello": "hello",
    }
    for text in wrong:
        state = grammar(compiler, offered, AUTO)
        tokens = encode("Well. " + text)
        assert taken(state, tokens) < len(tokens), text
        assert not state.accepting
        assert not state.accept(EOS)


@pytest.mark.parametrize("text", [CALL, f"Let me see.\n{CALL}", f"{CALL}\n{CALL} And then text.", "<tool_cal"])
def test_auto_permits_text_and_calls_in_any_order(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode, text: str
) -> None:
    assert fits(grammar(compiler, offered, AUTO), encode(text))


def test_without_parallel_a_call_ends_the_answer(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    state = grammar(compiler, offered, AUTO, parallel=False)
    assert fits(state, encode("Let me see. " + CALL))
    assert state.done
    assert bits(state.mask()) == {EOS}


def test_compact_and_spaced_calls_both_pass_and_wide_ones_do_not(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    for text, passes in (('{"city":"Rome"}', True), ('{"city": "Rome"}', True), ('{"city":  "Rome"}', False)):
        state = grammar(compiler, offered, ANY)
        assert fits(state, encode(render_call(SMOLLM, "get_weather", text))) is passes


def test_any_requires_one_call_and_then_only_the_end(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    state = grammar(compiler, offered, ANY, parallel=False)
    assert taken(state.fork(), encode("Hello")) == 0
    assert not state.accepting
    assert not ends(state)
    assert taken(state, encode(CALL)) == len(encode(CALL))
    assert state.done
    assert state.accepting
    assert bits(state.mask()) == {EOS}


def test_parallel_permits_several_calls_and_the_end_after_each(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    state = grammar(compiler, offered, ANY)
    now = render_call(SMOLLM, "now", "{}")
    assert fits(state, encode(CALL))
    assert not state.done
    assert fits(state, encode("\n" + now))
    single = grammar(compiler, offered, ANY, parallel=False)
    assert not fits(single, encode(CALL + now))


def test_named_permits_that_tool_only(compiler: Compiling, offered: tuple[Tool, ...], encode: Encode) -> None:
    assert fits(grammar(compiler, offered, Choice("named", "now")), encode(render_call(SMOLLM, "now", "{}")))
    assert not fits(grammar(compiler, offered, Choice("named", "now")), encode(CALL))
    with pytest.raises(GrammarRefused, match="no such tool"):
        compiler.tools(offered, Choice("named", "later"), SMOLLM, parallel=False)


def test_none_and_no_tools_need_no_grammar(compiler: Compiling, offered: tuple[Tool, ...]) -> None:
    assert compiler.tools(offered, Choice("none"), SMOLLM, parallel=True) is None
    assert compiler.tools((), AUTO, SMOLLM, parallel=True) is None


def test_a_refused_token_leaves_the_state_as_it_was(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    state = grammar(compiler, offered, ANY)
    tokens = encode(CALL)
    for token in tokens:
        before = state.mask()
        assert not state.accept(1)  # a control token
        assert not state.accept(VOCAB + 7)
        assert not state.accept(-1)
        assert state.mask() == before
        assert state.accept(token)
    assert ends(state)


def test_a_rollback_crosses_the_end(compiler: Compiling, offered: tuple[Tool, ...], encode: Encode) -> None:
    for choice in (ANY, AUTO):
        state = grammar(compiler, offered, choice, parallel=False)
        tokens = [*encode(CALL), EOS]
        masks = []
        for token in tokens:
            masks.append(state.mask())
            assert state.accept(token)
        assert not state.accept(EOS)
        assert bits(state.mask()) == {EOS}
        for count in range(1, len(tokens) + 1):
            state.rollback(count)
            assert state.mask() == masks[-count]
            assert all(state.accept(token) for token in tokens[-count:])
            assert state.done


def test_rolling_back_beyond_the_start_is_an_error_and_changes_nothing(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    state = grammar(compiler, offered, ANY)
    taken(state, encode("<tool_call>"))
    with pytest.raises(ValueError, match="cannot take back"):
        state.rollback(len(encode("<tool_call>")) + 1)
    assert fits(state, encode(CALL)[len(encode("<tool_call>")) :])


@pytest.mark.parametrize("seed", range(6))
def test_forks_and_rollbacks_equal_a_fresh_walk(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode, seed: int
) -> None:
    chance = random.Random(seed)
    tokens = encode(f"Hm. {CALL} and {CALL}")
    state, past = grammar(compiler, offered, AUTO), 0
    for _ in range(25):
        match chance.randrange(3):
            case 0:
                steps = chance.randrange(len(tokens) - past + 1)
                assert taken(state, tokens[past : past + steps]) == steps
                past += steps
            case 1:
                steps = chance.randrange(past + 1)
                state.rollback(steps)
                past -= steps
            case _:
                left = state
                state = state.fork()
                taken(left, tokens[past : past + 3])
        fresh = grammar(compiler, offered, AUTO)
        taken(fresh, tokens[:past])
        assert (state.mask(), state.done, state.accepting) == (fresh.mask(), fresh.done, fresh.accepting)


@pytest.mark.parametrize("seed", range(8))
def test_random_walks_under_the_mask_parse_and_validate(
    narrow: Compiling, offered: tuple[Tool, ...], decode: Callable[[list[int]], str], seed: int
) -> None:
    chance = random.Random(seed)
    tool = chance.choice(offered)
    state = grammar(narrow, offered, Choice("named", tool.name), parallel=False)
    text = decode(walk(state, chance, 3000))
    assert state.done, "a required call must come to an end"
    parser = Parser(SMOLLM, offered)
    parser.feed(text)
    outcome = parser.finish(truncated=False)
    assert outcome.kind == "called", (outcome, text)
    verdict = decide(outcome.calls[0], offered, validators(offered))
    assert isinstance(verdict, Dispatch), (verdict, text)


def test_strings_lists_and_numbers_without_a_limit_get_one_in_the_grammar(narrow: Compiling, encode: Encode) -> None:
    tool = read_tool(
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {
                    "s": {"type": "string"},
                    "l": {"type": "array", "items": {"type": "integer"}},
                    "n": {"type": "number"},
                },
                "required": ["s", "l", "n"],
            },
        }
    )
    for arguments, passes in (
        ('{"s":"12345678","l":[1,2],"n":1.5}', True),
        ('{"s":"123456789","l":[1,2],"n":1.5}', False),
        ('{"s":"1","l":[1,2,3],"n":1.5}', False),
        ('{"s":"1","l":[],"n":0.333333333333333333}', False),
        ('{"s":"1","l":[],"n":8.854e-12}', True),
        ('{"s":"1","l":[],"n":-1E+289}', True),
        ('{"s":"1","l":[],"n":1e-1000}', False),
        ('{"s":"1","l":[],"n":1e400}', False),
    ):
        state = grammar(narrow, (tool,), ANY)
        assert fits(state, encode(render_call(SMOLLM, "f", arguments))) is passes, arguments


def test_unicode_escapes_and_markers_in_strings_pass(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    for city in ("你好啊集团", "São Paulo 🙂", 'a "b" \\ {c}', "</tool_call>", "line\nbreak"):
        text = json.dumps({"city": city}, ensure_ascii=False)
        assert fits(grammar(compiler, offered, ANY), encode(render_call(SMOLLM, "get_weather", text))), city


def test_a_local_reference_is_followed(compiler: Compiling, offered: tuple[Tool, ...], encode: Encode) -> None:
    rest = '"budget":1,"guests":2,"notes":null,"extra":{"k":1},"insured":true}'
    for leg, passes in (('{"from":"A","to":"B"}', True), ('{"from":"A"}', False)):
        call = render_call(SMOLLM, "book.trip", f'{{"legs":[{leg}],{rest}')
        assert fits(grammar(compiler, offered, ANY), encode(call)) is passes


def test_what_cannot_be_enforced_is_said_or_refused(compiler: Compiling, encode: Encode) -> None:
    loose = read_tool(
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {"u": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}},
            },
        }
    )
    state = grammar(compiler, (loose,), ANY)
    assert state.enforced.kind == "partial"
    assert state.enforced.residual == ("uniqueItems",)
    assert fits(state, encode(render_call(SMOLLM, "f", '{"u": [1, 1]}')))
    with pytest.raises(GrammarRefused, match="uniqueItems"):
        compiler.tools((replace(loose, strict=True),), ANY, SMOLLM, parallel=False)


def test_a_schema_nothing_fits_is_refused_rather_than_answered_with_nothing(compiler: Compiling) -> None:
    nothing = read_tool(
        {
            "name": "f",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer", "minimum": 5, "maximum": 1}},
                "required": ["a"],
            },
        }
    )
    with pytest.raises(GrammarRefused):
        compiler.tools((nothing,), ANY, SMOLLM, parallel=False)


def test_equal_content_is_compiled_once_and_shares_no_state(
    compiler: Compiling, offered: tuple[Tool, ...], encode: Encode
) -> None:
    before = compiler._compile.cache_info()
    first, second = (grammar(compiler, offered, Choice("named", "now")) for _ in range(2))
    after = compiler._compile.cache_info()
    assert after.misses - before.misses <= 1
    assert after.hits - before.hits >= 1
    taken(first, encode("<tool_call>"))
    assert fits(second, encode(render_call(SMOLLM, "now", "{}")))


def test_a_schema_grammar_is_one_value_and_the_end(compiler: Compiling, encode: Encode) -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
    state = compiler.schema(schema)
    assert state.enforced.kind == "full"
    assert taken(state, encode('{"ok": true')) == len(encode('{"ok": true'))
    assert not state.accepting
    state = compiler.schema({**schema, "additionalProperties": False})
    assert fits(state, encode('{"ok": true}'))
    assert state.done


def test_a_marker_that_is_a_special_token_begins_a_call(
    backend: Any, tokenizer_json: str, offered: tuple[Tool, ...], encode: Encode
) -> None:
    """As in tokenizers that have one token for the marker; here a control token plays it."""
    compiler = backend(tokenizer_json, eos=[EOS], vocab=VOCAB)
    dialect = replace(HERMES, begin="<|im_start|>", end="</tool_call>")
    state = compiler.tools(offered, AUTO, dialect, parallel=True)
    assert state is not None
    tokens = [*encode("Hi "), 1, *encode('{"name": "now", "arguments": {}}</tool_call>')]
    assert taken(state, tokens) == len(tokens)
    assert ends(state)
    state.rollback(len(encode('{"name": "now", "arguments": {}}</tool_call>')))
    assert not state.accepting
    assert not state.accept(encode("Hello")[0])


def test_more_rows_than_the_tokenizer_knows_and_several_end_tokens(
    backend: Any, tokenizer_json: str, offered: tuple[Tool, ...], encode: Encode
) -> None:
    compiler = backend(tokenizer_json, eos=[EOS, 0], vocab=VOCAB + 40)
    state = compiler.tools(offered, ANY, SMOLLM, parallel=False)
    assert state is not None
    mask = state.mask()
    assert mask is not None
    assert len(mask) == VOCAB // 8 + 8
    for token in encode(CALL):
        assert state.accept(token)
    mask = state.mask()
    assert mask is not None
    assert int.from_bytes(mask, "little") == (1 << EOS) | 1
    assert state.accept(0)
