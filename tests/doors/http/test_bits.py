"""The parts of the HTTP door that need no server: what it remembers, how it spells, what it counts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sostenuto.runtime.ask import Message
from sostenuto.runtime.doors.http_answer import Spelling, usage_of
from sostenuto.runtime.doors.http_errors import fault_of
from sostenuto.runtime.doors.http_fields import Fields
from sostenuto.runtime.doors.http_messages import Memory, Said, read_messages
from sostenuto.runtime.doors.http_wanted import Caller, Wanted
from sostenuto.runtime.errors import (
    BadRequest,
    BadRollout,
    EngineFailed,
    HostClosed,
    Refused,
    SostenutoError,
    TooLate,
    Unable,
)
from sostenuto.runtime.host import Host
from sostenuto.runtime.ticket import Facts
from sostenuto.tools import BadChoice, Call


def answer(text: str) -> Message:
    return Message("assistant", text)


def said(*tokens: int) -> Said:
    return Said(tokens, "p", "main")


def test_an_answer_is_found_by_what_it_says_in_its_session_only() -> None:
    memory = Memory()
    memory.keep("anna", "s", answer("yes"), said(1, 2))
    found = memory.find("anna", "s", answer("yes"))
    assert found is not None
    assert tuple(found.tokens) == (1, 2)
    for tenant, session, text in (("bert", "s", "yes"), ("anna", "t", "yes"), ("anna", "s", "yes!")):
        assert memory.find(tenant, session, answer(text)) is None


def test_how_arguments_are_spelled_makes_no_difference_and_what_they_say_does() -> None:
    memory = Memory()
    memory.keep("a", "", Message("assistant", "", (Call("c1", "f", {"x": 1, "y": "z"}, '{"x":1,"y":"z"}'),)), said(5))

    def find(name: str, arguments: str) -> Said | None:
        call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": arguments}}
        _, last = read_messages(
            [{"role": "assistant", "content": None, "tool_calls": [call]}],
            lambda message: memory.find("a", "", message),
        )
        return last

    assert find("f", '{"y": "z",   "x": 1}') is not None
    assert find("f", '{"x": 1.0, "y": "z"}') is None
    assert find("g", '{"x": 1, "y": "z"}') is None
    assert find("f", "{") is None


def test_what_was_not_used_for_longest_is_forgotten_first_and_tenants_do_not_crowd_each_other_out() -> None:
    memory = Memory(room=3 * (10 + 32))
    memory.keep("bert", "", answer("old"), said(*range(10)))
    for text in ("one", "two", "three"):
        memory.keep("anna", "", answer(text), said(*range(10)))
    assert memory.find("anna", "", answer("one")) is not None
    memory.keep("anna", "", answer("four"), said(*range(10)))
    known = [text for text in ("one", "two", "three", "four") if memory.find("anna", "", answer(text))]
    assert known == ["one", "three", "four"]
    assert memory.find("bert", "", answer("old")) is not None
    for _ in range(5):
        memory.keep("anna", "", answer("four"), said(*range(10)))
    assert repr(memory) == "<Memory 4 answers of 2 tenants>", "the same answer takes its room once"


def test_what_is_larger_than_the_memory_is_not_remembered() -> None:
    memory = Memory(room=100)
    memory.keep("a", "", answer("long"), said(*range(200)))
    assert memory.find("a", "", answer("long")) is None
    assert repr(memory) == "<Memory 0 answers of 1 tenants>"


def test_the_name_of_a_results_tool_is_that_of_its_call() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    messages, _ = read_messages(
        [
            {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "brief."}]},
            {"role": "user", "content": "Look!", "name": "anna"},
            {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
        ],
        lambda message: None,
    )
    assert messages == (
        Message("system", "Be brief."),
        Message("user", "Look!"),
        Message("assistant", "", (Call("c1", "look", {}, "{}"),)),
        Message("tool", "seen", tool="look", call="c1"),
    )


@pytest.mark.parametrize("text", ["plain", " spaced  out\n", "naïve café", "🎹 piano", "日本語", "a\ttab"])
def test_tokens_spell_bytes_also_where_they_are_parts_of_a_character(quick: Host, text: str) -> None:
    tokenizer = quick.engine.tokenizer  # type: ignore[union-attr]
    spelling = Spelling(tokenizer, quick.engine.eos)  # type: ignore[union-attr]
    assert b"".join(spelling.bytes(token) for token in tokenizer.encode(text)).decode() == text


def test_a_special_token_spells_itself(quick: Host) -> None:
    (eos, *_) = quick.engine.eos  # type: ignore[union-attr]
    spelling = Spelling(quick.engine.tokenizer, (eos,))  # type: ignore[union-attr]
    assert spelling.text(eos) == quick.engine.tokenizer.convert_ids_to_tokens(eos)  # type: ignore[union-attr]


FACTS = Facts(
    turn="t1",
    program="p",
    policy="sostenuto",
    prompt_tokens=10,
    reused_tokens=4,
    computed_tokens=6,
    recomputed_tokens=0,
    said_tokens=3,
    queued_s=0.0,
    why="",
)


def test_a_prompt_counts_once_and_what_is_said_adds_up() -> None:
    wanted = Wanted((), Caller("default"), each=2)
    others = [replace(FACTS, reused_tokens=9), replace(FACTS, prompt_tokens=20), replace(FACTS, prompt_tokens=20)]
    assert usage_of([FACTS, *others], wanted, cached=True) == {
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "total_tokens": 42,
        "prompt_tokens_details": {"cached_tokens": 8},
    }
    assert "prompt_tokens_details" not in usage_of([FACTS], wanted, cached=False), "an engine that does not tell"


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (BadRequest("n", 0, "more"), 400, None),
        (BadChoice("f", ["g"]), 400, None),
        (Refused("too long"), 400, None),
        (Unable("no logprobs"), 400, None),
        (BadRollout("odd"), 400, None),
        (TooLate("late"), 504, "false"),
        (HostClosed("closed"), 503, None),
        (EngineFailed("broken"), 500, None),
        (KeyError("a secret"), 500, None),
    ],
)
def test_every_error_has_a_status(error: Exception, status: int, retry: str | None) -> None:
    fault = fault_of(error)
    assert (fault.status, fault.headers.get("x-should-retry")) == (status, retry)
    told = fault.json()["error"]["message"]
    assert told == (str(error) if isinstance(error, SostenutoError | BadChoice) else fault.message)
    assert "secret" not in told


def test_a_wrong_field_is_named_with_what_was_found_and_what_was_expected() -> None:
    inner = Fields({"outer": {"n": "many"}}).inner("outer")
    with pytest.raises(BadRequest) as raised:
        inner.whole("n", 1, least=1, most=9)
    assert raised.value.field == "outer.n"
    assert str(raised.value) == "outer.n: found 'many'; expected a whole number of at least 1 and at most 9"
