"""The room's seams: what others may put in their place, and what they may catch."""

from __future__ import annotations

import pytest

from sostenuto.tools import (
    SMOLLM,
    BadChoice,
    BadSchema,
    BadTool,
    Call,
    Choice,
    Compiler,
    Dispatch,
    Grammar,
    GrammarRefused,
    MalformedCall,
    Reject,
    Tool,
    ToolError,
    Verdict,
    decide,
    validators,
)
from sostenuto.tools.grammars.compiling import Compiling

TOOL = Tool("now", "The time.", {"type": "object", "properties": {}, "additionalProperties": False})


def test_llguidance_is_a_compiler_and_what_it_gives_is_a_grammar(compiler: Compiling) -> None:
    seam: Compiler = compiler
    grammar: Grammar | None = seam.tools([TOOL], Choice("any"), SMOLLM, parallel=False)
    assert grammar is not None
    twin: Grammar = grammar.fork()
    assert (twin.done, twin.accepting, twin.mask()) == (False, False, grammar.mask())


@pytest.mark.parametrize("kind", [BadTool, BadSchema, BadChoice, MalformedCall, GrammarRefused])
def test_one_class_catches_every_fault_of_the_room(kind: type[Exception]) -> None:
    assert issubclass(kind, ToolError)


@pytest.mark.parametrize(("text", "arguments", "kind"), [("{}", {}, Dispatch), ('{"x": 1}', {"x": 1}, Reject)])
def test_a_verdict_is_one_of_two(text: str, arguments: dict[str, int], kind: type[object]) -> None:
    verdict: Verdict = decide(Call("c", "now", {**arguments}, text), [TOOL], validators([TOOL]))
    assert isinstance(verdict, kind)
