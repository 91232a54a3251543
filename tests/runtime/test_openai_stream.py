"""What is read from an OpenAI-compatible server's stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.runtime.engines import Usage
from sostenuto.runtime.engines.openai_stream import DONE, Events, Reading
from sostenuto.runtime.errors import EngineFailed
from sostenuto.tools import HERMES, MalformedCall, Outcome, Parser, Tool, loads

from .openai_server import answer, call_chunk, chunk, usage_chunk

WEATHER = Tool("weather", "The weather of a city.", {"type": "object"})
MARKERS = ["<tool_call>", "</tool_call>", "<tool_call", "<", "tool_call>", '{"name": "weather", "arguments": {}}']
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(MARKERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.builds(
    lambda value, plain, indent: json.dumps(value, ensure_ascii=plain, indent=indent),
    st.dictionaries(st.text(max_size=4) | st.sampled_from(MARKERS), JSON, max_size=3),
    st.booleans(),
    st.sampled_from([None, 1]),
)
TEXT = st.lists(st.sampled_from([*MARKERS, "a", " ", "\n", "é", "\u2028", "🎹"]), max_size=6).map("".join)


def fail(what: str, said: str) -> EngineFailed:
    return EngineFailed(f"{what}: {said}")


def read(chunks: Iterable[Mapping[str, Any] | str], *, calls: bool = True) -> tuple[list[str], Reading]:
    """The texts that the chunks add, the last of them at the end."""
    reading = Reading(fail, calls=calls)
    texts = [reading.take(each if isinstance(each, str) else json.dumps(each)) for each in chunks]
    return [*texts, reading.close()], reading


def parsed(chunks: Iterable[Mapping[str, Any] | str]) -> Outcome:
    """What the host makes of the chunks, reading their texts character by character."""
    texts, reading = read(chunks)
    parser = Parser(HERMES, (WEATHER,))
    for character in "".join(texts):
        parser.feed(character)
    return parser.finish(truncated=reading.end == "length")


def written(outcome: Outcome) -> list[tuple[str, str]]:
    return [(call.name, call.text) for call in outcome.calls]


@settings(deadline=None)
@given(st.data(), st.lists(TEXT, max_size=4), st.sampled_from(["\n", "\r\n", "\r"]))
def test_events_are_the_same_wherever_the_bytes_are_split(data: st.DataObject, texts: list[str], line: str) -> None:
    stream = f"\ufeffdata: first{line}: a comment{line}{line}"
    stream += "".join(f"event: x{line}data: {t!r}{line}data:{len(t)}{line}id: 1{line}{line}{line}" for t in texts)
    sent = (stream + "data: cut").encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=6)))
    reader = Events()
    told = [each for a, b in zip([0, *cuts], [*cuts, len(sent)], strict=True) for each in reader.feed(sent[a:b])]
    assert told == ["first", *(f"{text!r}\n{len(text)}" for text in texts)]
    assert reader.held > 0


def test_no_sign_but_a_lines_end_ends_a_line_and_wrong_bytes_are_marked() -> None:
    assert Events().feed("data: a\u2028b\x85c\x0bd\n\n".encode()) == ["a\u2028b\x85c\x0bd"]
    assert Events().feed(b"data: \xff\n\n") == ["\ufffd"]
    assert Events().feed(b"data\n\n\n\n") == [""]


def test_every_split_of_a_stream_gives_the_same_texts() -> None:
    reply = answer("Look: ", "<tool_call>é", calls=[("weather", '{"city": "Zürich"}'), ("weather", "{}")])
    stream = b"".join(reply.parts)

    def texts(*pieces: bytes) -> list[str]:
        reader = Events()
        return read(event for piece in pieces for event in reader.feed(piece))[0]

    whole = texts(stream)
    assert "".join(whole).startswith("Look: <tool_call >é<tool_call>{")
    assert all(texts(stream[:cut], stream[cut:]) == whole for cut in range(len(stream)))
    assert texts(*(stream[at : at + 1] for at in range(len(stream)))) == whole


@settings(deadline=None)
@given(TEXT, st.lists(ARGUMENTS, max_size=4), st.lists(TEXT, max_size=3), st.data())
def test_what_the_parser_finds_is_what_the_server_sent(
    before: str, arguments: list[str], after: list[str], data: st.DataObject
) -> None:
    """Whatever the text looks like, and in whatever order texts and the pieces of several calls come."""
    chunks = [chunk({"content": piece}) for piece in before]
    chunks += [call_chunk(index, "weather", "") for index in range(len(arguments))]
    left, texts = dict(enumerate(arguments)), list(after)
    while sources := sorted(index for index, rest in left.items() if rest) + [-1] * bool(texts):
        if (index := data.draw(st.sampled_from(sources))) == -1:
            chunks.append(chunk({"content": texts.pop(0)}))
            continue
        size = data.draw(st.integers(1, len(left[index])))
        chunks.append(call_chunk(index, None, left[index][:size]))
        left[index] = left[index][size:]
    outcome = parsed([*chunks, chunk({}, "stop")])
    assert written(outcome) == [("weather", text) for text in arguments]
    assert outcome.text == (before + "".join(after)).replace("<tool_call>", "<tool_call >")
    assert outcome.problems == ()


@settings(deadline=None)
@given(
    st.lists(st.sampled_from([*MARKERS, '{"a"', ":", "1", "}", "{", "]", "[", '"', ",", " ", "null"]), max_size=8),
    st.booleans(),
)
def test_arguments_are_an_object_or_no_call_and_never_another_call(pieces: list[str], letters: bool) -> None:
    arguments = "".join(pieces)
    sent = [call_chunk(0, None, piece) for piece in (arguments if letters else pieces)]
    outcome = parsed([call_chunk(0, "other", ""), *sent, chunk({}, "stop")])
    try:
        value = loads(arguments) if arguments.strip() else {}
    except MalformedCall:
        value = "none"
    value = {} if value is None else value
    if isinstance(value, dict):
        assert [(call.name, call.arguments) for call in outcome.calls] == [("other", value)]
    else:
        assert (outcome.kind, outcome.calls, outcome.text) == ("malformed", (), "")


def test_a_call_streams_and_a_later_one_as_soon_as_the_first_is_whole() -> None:
    texts, _ = read(
        [
            call_chunk(0, "weather", ""),
            call_chunk(0, None, '{"city":'),
            call_chunk(1, "weather", ""),
            call_chunk(1, None, '{"city": '),
            call_chunk(0, None, ' "Paris"}'),
            call_chunk(1, None, '"Rome'),
            call_chunk(1, None, '"}'),
            chunk({"content": "Done."}),
            chunk({}, "tool_calls"),
        ]
    )
    begin = '<tool_call>{"name": "weather", "arguments": '
    first = ' "Paris"}}</tool_call>' + begin + '{"city": '
    assert texts == ["", begin + '{"city":', "", "", first, '"Rome', '"}', "}</tool_call>Done.", "", ""]


ODD: dict[str, Sequence[Mapping[str, Any]]] = {
    "no index, several at once": [
        {"id": "a", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        {"id": "b", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    ],
    "no index and no id": [
        {"function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        {"function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    ],
    "one index for all": [
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}},
        {"index": 0, "id": "b", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    ],
    "no index, in pieces": [
        {"id": "a", "function": {"name": "weather"}},
        {"function": {"arguments": '{"city": '}},
        {"function": {"arguments": '"Paris"}'}},
        {"id": "b", "function": {"name": "weather", "arguments": ""}},
        {"function": {"arguments": '{"city": "Rome"}'}},
    ],
    "name and id with every piece": [
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '{"city": '}},
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": '"Paris"}'}},
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": ""}},
        {"index": 1, "id": "b", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    ],
    "another id with every piece": [
        {"index": 0, "id": "a", "function": {"name": "weather", "arguments": ""}},
        {"index": 0, "id": "b", "function": {"arguments": '{"city": "Paris"}'}},
        {"index": 1, "id": "c", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}},
    ],
    "a name in pieces, arguments as an object": [
        {"index": 0, "id": "a", "function": {"name": "wea"}},
        {"index": 0, "function": {"name": "ther"}},
        {"index": 0, "function": {"arguments": {"city": "Paris"}}},
        {"index": 1, "id": "b", "function": {"name": "weather", "arguments": {"city": "Rome"}}},
    ],
}


@pytest.mark.parametrize("entries", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("at_once", [False, True], ids=["one by one", "at once"])
def test_calls_are_told_apart_however_servers_number_them(entries: list[Any], at_once: bool) -> None:
    deltas = [{"tool_calls": entries}] if at_once else [{"tool_calls": [entry]} for entry in entries]
    outcome = parsed([*(chunk(delta) for delta in deltas), chunk({}, "tool_calls")])
    assert [call.arguments for call in outcome.calls] == [{"city": "Paris"}, {"city": "Rome"}]
    assert outcome.kind == "called"


def test_a_call_without_a_name_is_of_an_unknown_tool_and_not_lost() -> None:
    outcome = parsed([call_chunk(0, None, "{}"), call_chunk(1, "weather", "{}"), chunk({}, "stop")])
    assert (outcome.kind, written(outcome)) == ("unknown_tool", [("", "{}"), ("weather", "{}")])


@pytest.mark.parametrize("arguments", ["", '{"city"', '{"city": "Paris"}'])
def test_a_call_that_was_cut_off_is_none_and_those_before_it_stay(arguments: str) -> None:
    """Not even if its arguments are whole: nobody knows what the server left out."""
    first = call_chunk(0, "weather", '{"city": "Rome"}')
    outcome = parsed([first, call_chunk(1, "weather", arguments), chunk({}, "length")])
    assert outcome.kind == "truncated"
    assert written(outcome) == [("weather", '{"city": "Rome"}')]


def test_where_nothing_can_be_a_call_text_is_left_as_it_is() -> None:
    texts, _ = read([chunk({"content": "<tool_call>"}), chunk({}, "stop")], calls=False)
    assert "".join(texts) == "<tool_call>"


def test_thoughts_are_left_out_and_refusals_are_said() -> None:
    parts = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "Well, "}]
    thought = chunk({"reasoning_content": "hm", "content": None})
    chunks = [thought, chunk({"content": parts}), chunk({"refusal": "no"})]
    assert "".join(read([*chunks, chunk({}, "stop")])[0]) == "Well, no"


def test_of_several_answers_the_first_is_read() -> None:
    one, other = chunk({"content": "a"}, "stop"), chunk({"content": "b"}, "length")
    other["choices"][0]["index"] = 1
    texts, reading = read([one, other])
    assert ("".join(texts), reading.end) == ("a", "stop")


def test_the_end_and_the_counts_are_told() -> None:
    _, reading = read([chunk({"content": "a"}, "length"), usage_chunk(9, 4, 1), DONE, "not read any more"])
    assert (reading.end, reading.usage, reading.over) == ("length", Usage(9, 4, 1), True)
    _, reading = read([{**chunk({}, "eos"), "usage": {"prompt_tokens": 3, "completion_tokens": None}}])
    assert (reading.end, reading.usage, reading.over) == ("stop", Usage(3, None, None), False)


def test_how_likely_a_piece_was_is_the_sum_over_its_tokens() -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -0.25}]}
    one = chunk({"content": "ab"})
    one["choices"][0]["logprobs"] = logprobs
    reading = Reading(fail)
    reading.take(json.dumps(one))
    assert reading.logprob == -0.75
    reading.take(json.dumps(chunk({"content": "c"})))
    assert reading.logprob == 0.0


def test_half_a_surrogate_pair_does_not_come_through() -> None:
    assert "".join(read(['{"choices": [{"delta": {"content": "a\\ud83db \\ud83c\\udfb9"}}]}'])[0]) == "a\ufffdb 🎹"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ('{"choices": [', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no object"),
        ('{"error": {"message": "out of memory"}}', "broke off: out of memory"),
        ('{"error": "out of memory"}', "broke off: out of memory"),
        ('{"object": "error", "message": "out of memory"}', "broke off: out of memory"),
        (json.dumps(chunk({}, "content_filter")), "no answer, for the reason: content_filter"),
        ('{"choices": {"a": 1}}', "choices of a form"),
        ('{"choices": [1]}', "choices of a form"),
        ('{"choices": [{"delta": "a"}]}', "a delta of a form"),
        ('{"choices": [{"delta": {"content": 5}}]}', "content that is no text: 5"),
        ('{"choices": [{"delta": {"tool_calls": 5}}]}', "no list: 5"),
        ('{"choices": [{"delta": {"tool_calls": [5]}}]}', "a tool call of a form that is not OpenAI's: 5"),
        ('{"choices": [{"delta": {"tool_calls": [{"function": {"name": 5}}]}}]}', "a tool call of a form"),
    ],
)
def test_what_cannot_be_read_fails_and_says_so(data: str, why: str) -> None:
    with pytest.raises(EngineFailed, match=why):
        Reading(fail).take(data)


def test_arguments_that_go_on_after_their_end_fail() -> None:
    begun = [call_chunk(0, "weather", "{}"), call_chunk(1, "weather", "{}"), call_chunk(0, None, " ")]
    read([*begun, chunk({}, "stop")])
    with pytest.raises(EngineFailed, match="after they were whole: }"):
        read([*begun, call_chunk(0, None, "}")])
