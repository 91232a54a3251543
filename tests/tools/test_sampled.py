"""Tokens drawn from random logits under the mask: whatever a model wants, a call it ends is valid as it was drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from sostenuto.tools import (
    FUNCTIONGEMMA,
    GEMMA,
    HERMES,
    Bounds,
    Choice,
    Dialect,
    Dispatch,
    GrammarRefused,
    Parser,
    Tool,
    decide,
    read_tools,
    validators,
)
from sostenuto.tools.grammars.compiling import Compiling

from .conftest import BOOK, EOS, NOW, VOCAB, WEATHER
from .test_real_schemas import rows

Encode = Callable[[str], list[int]]
Decode = Callable[[list[int]], str]
MOST = 256
PROPERTIES: dict[str, dict[str, Any]] = {
    "find": {"word": {"type": "string", "pattern": "^[a-z]{2,6}$"}, "most": {"type": "integer", "minimum": 1}},
    "plan": {"day": {"type": "string", "format": "date"}, "kind": {"enum": ["a", 1, None, "ü"]}},
    "rate": {"score": {"type": "number", "minimum": 0, "maximum": 5}, "why": {"type": ["string", "null"]}},
    "move": {"to": {"oneOf": [{"type": "integer"}, {"type": "string"}]}, "fast": {"type": "boolean"}},
    "tag": {"tags": {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 3}},
}
TOOLS = (
    WEATHER,
    NOW,
    BOOK,
    *read_tools(
        {"name": name, "parameters": {"type": "object", "properties": stated, "required": [*stated][:2]}}
        for name, stated in PROPERTIES.items()
    ),
)


def drawn(
    grammar: Any, chance: np.random.Generator, temperature: float, begun: Sequence[int]
) -> tuple[list[int], bool]:
    """Tokens, and whether they came to an end."""
    tokens = []
    for token in begun:
        assert grammar.accept(token)
        tokens.append(token)
    while len(tokens) < MOST:
        mask = grammar.mask()
        allowed = np.arange(VOCAB) if mask is None else np.flatnonzero(_bits(mask))
        wished = chance.normal(scale=4, size=len(allowed)) / temperature + chance.gumbel(size=len(allowed))
        token = int(allowed[wished.argmax()])
        assert grammar.accept(token)
        if token == EOS:
            return tokens, True
        tokens.append(token)
    return tokens, False


def _bits(mask: bytes) -> Any:
    return np.unpackbits(np.frombuffer(mask, dtype=np.uint8), bitorder="little")[:VOCAB]


def judged(text: str, tools: Sequence[Tool], ended: bool, dialect: Dialect = HERMES) -> str:
    """`valid`, `truncated` or `text`; anything else is a fault and says which."""
    parser = Parser(dialect, tools)
    parser.feed(text)
    outcome = parser.finish(truncated=not ended)
    if outcome.kind != "called":
        return outcome.kind if outcome.kind in ("truncated", "text") else f"{outcome.kind}: {text}"
    checks = validators(tools)
    wrong = [call for call in outcome.calls if not isinstance(decide(call, tools, checks), Dispatch)]
    return f"invalid: {text}" if wrong else "valid"


def sampled(
    compiler: Compiling, tool: Tool, others: Sequence[Tool], mode: Any, seed: int, *, encode: Encode, decode: Decode
) -> str:
    """What becomes of one answer. In `auto`, where random tokens would never come to it, the call is begun."""
    tools = [tool, *others]
    grammar = compiler.tools(tools, Choice(mode, tool.name if mode == "named" else None), HERMES, parallel=False)
    assert grammar is not None
    chance = np.random.default_rng(seed)
    begun = encode("Well. <tool_call>") if mode == "auto" else []
    tokens, ended = drawn(grammar, chance, 2.0 if seed % 2 else 0.5, begun)
    return judged(decode(tokens), tools, ended)


def test_every_call_that_is_drawn_from_random_logits_is_valid(
    narrow: Compiling, encode: Encode, decode: Decode
) -> None:
    counts: Counter[str] = Counter()
    for number in range(160):
        tool, mode = TOOLS[number % len(TOOLS)], ("auto", "any", "named")[number % 3]
        others = [TOOLS[(number + 1) % len(TOOLS)]]
        counts[sampled(narrow, tool, others, mode, number, encode=encode, decode=decode)] += 1
    assert counts.keys() <= {"valid", "truncated"}, counts
    assert counts["valid"] >= 132, counts


@pytest.mark.parametrize("dialect", [FUNCTIONGEMMA, GEMMA], ids=["functiongemma", "gemma"])
def test_so_is_every_call_that_is_not_json_but_for_what_is_left_to_the_check(
    narrow: Compiling, decode: Decode, dialect: Dialect
) -> None:
    counts: Counter[str] = Counter()
    for number, tool in enumerate(TOOLS * 4):
        grammar = narrow.tools([tool], Choice("any"), dialect, parallel=False)
        assert grammar is not None
        tokens, ended = drawn(grammar, np.random.default_rng(number), 1.0, [])
        found = judged(decode(tokens), [tool], ended, dialect)
        left = tool.name in ("find", "plan")
        assert (grammar.enforced.residual != ()) is left
        counts["left to the check" if left and found.startswith("invalid") else found] += 1
    assert counts.keys() <= {"valid", "truncated", "left to the check"}, counts
    assert counts["valid"] >= 20, counts


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.shared_data
def test_so_is_every_call_of_every_published_tool(
    backend: Any, tokenizer_json: str, encode: Encode, decode: Decode
) -> None:
    compiler = backend(tokenizer_json, eos=[EOS], vocab=VOCAB, bounds=Bounds(characters=24, items=3))
    counts: Counter[str] = Counter()
    for number, row in enumerate(rows("tool_schemas.jsonl")):
        name = "".join(char if char.isalnum() else "_" for char in row["id"])
        (tool,) = read_tools([{"name": name, "parameters": row["input_schema"]}])
        try:
            partly = compiler.check(tool).residual
        except GrammarRefused:
            counts["refused"] += 1
            continue
        for seed in range(12):
            mode = ("auto", "any", "named")[seed % 3]
            found = sampled(compiler, tool, [NOW], mode, 1000 * number + seed, encode=encode, decode=decode)
            counts["left to the check" if partly and found.startswith("invalid") else found] += 1

    assert counts.keys() <= {"valid", "truncated", "refused", "left to the check"}, counts
    assert counts["valid"] >= 2000, counts
