"""Summaries of traces made by hand, whose sums are known; and what is read from files of others."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from sostenuto.tracing import BadTraceFile, Record, Summary, names, read_otlp_json, render_summary, summarize
from sostenuto.tracing.records import Event, LinkTo, family, traces
from sostenuto.tracing.summary import KINDS, Holds, Move, Tokens
from sostenuto.tracing.summary_text import summary_json

MS = 1_000_000


def span(id: str, start: int, end: int, name: str = "x", **more: Any) -> Record:
    """A span of ours, in milliseconds; its parent is what its id says before the last letter."""
    told = {"trace_id": "t", "parent_id": id[:-1] or None, "kind": "internal", "scope": "sostenuto"} | more
    return Record(span_id=id, name=name, start=start * MS, end=end * MS, **told)


CHAT = {names.OPERATION: names.CHAT}
TOOL = {names.OPERATION: names.EXECUTE_TOOL}


def wall(summary: Summary) -> dict[str, int]:
    return {share.kind: share.wall // MS for share in summary.shares}


def total(summary: Summary) -> dict[str, int]:
    return {share.kind: share.total // MS for share in summary.shares}


@pytest.fixture
def agent() -> list[Record]:
    """A model call that is held while a tool runs, and the next one, which resumes it and had lost a part."""
    used = {names.INPUT_TOKENS: 100, names.OUTPUT_TOKENS: 5, names.KV_HIT_TOKENS: 0, names.KV_COMPUTED_TOKENS: 100}
    more = {names.INPUT_TOKENS: 120, names.OUTPUT_TOKENS: 7, names.KV_HIT_TOKENS: 80, names.KV_COMPUTED_TOKENS: 40}
    gone = {names.KV_TOKENS: 104, names.KV_RECOMPUTED_TOKENS: 24, names.KV_WHY: "evicted"}
    again = {names.KV_RECOMPUTED_TOKENS: 30, names.KV_WHY: "held"}
    return [
        span("a", 0, 100, "invoke_agent a"),
        span("ab", 10, 40, "chat m", attributes=CHAT | used),
        span("abq", 10, 15, "queue"),
        span("abp", 15, 25, "prefill"),
        span("abd", 25, 38, "decode", events=[Event("preempt", 26 * MS, {names.KV_BLOCKS: 2})]),
        span("abc", 30, 32, "constrain"),
        span("abh", 38, 62, "kv.hold", attributes={names.KV_TOKENS: 104, names.KV_WHY: "extended by the next turn"}),
        span("ac", 42, 55, "execute_tool t", attributes=TOOL),
        span("acu", 43, 50, "in the tool", scope="a user"),
        span("ad", 60, 90, "chat m", attributes=CHAT | more | again),
        span("ade", 61, 62, "kv.restore", attributes=gone, links=[LinkTo("t", "abh", {names.LINK: "hold"})]),
        span("adp", 62, 70, "prefill"),
        span("add", 70, 90, "decode", events=[Event("preempt", 75 * MS)]),
        span("ae", 95, 100, "chat f", attributes=CHAT | {names.INPUT_TOKENS: 9}, status="error"),
    ]


def test_every_moment_is_counted_once_and_the_sum_is_the_wall_clock(agent: list[Record]) -> None:
    found = summarize(agent)
    assert wall(found) == {
        "constrain": 2,
        "decode": 31,  # 25 to 38 without the grammar's 2, and 70 to 90
        "prefill": 18,
        "kv": 1,
        "model": 8,  # 38 to 40, 60 to 61 and the whole of a call that tells no more
        "tool": 13,  # what a user's span is in it stays the tool's
        "queue": 5,
        "held": 7,  # 40 to 42 and 55 to 60: neither tool nor model
        "other": 15,
    }
    assert sum(wall(found).values()) * MS == found.time == 100 * MS
    assert total(found) == wall(found) | {"decode": 33, "held": 24, "other": 22}
    assert (found.spans, found.errors, found.name) == (14, 1, "invoke_agent a")


def test_tokens_computed_twice_are_told_with_why(agent: list[Record]) -> None:
    found = summarize(agent).tokens
    assert found == Tokens(calls=3, asked=229, said=12, reused=80, computed=140, again={"evicted": 24, "preempted": 6})


def test_holds_are_told_with_how_they_ended(agent: list[Record]) -> None:
    found = summarize(agent)
    assert found.holds == Holds(1, 104, 24 * MS, 1, {"extended by the next turn": 1})
    assert found.moves == {"kv.restore": Move(1, 104, 0), "preempt": Move(2, 0, 2)}


def test_what_goes_on_at_the_same_time_is_not_counted_twice() -> None:
    spans = [
        span("a", 0, 30),
        span("ab", 0, 20, attributes=TOOL),
        span("ac", 10, 30, attributes=TOOL),
        span("ad", 15, 25, "decode"),
        span("ae", 18, 30, "queue"),
    ]
    assert wall(summarize(spans)) == {"decode": 10, "tool": 20, "queue": 0}
    assert total(summarize(spans)) == {"decode": 10, "tool": 40, "queue": 12}


def test_time_between_the_runs_of_a_trace_is_idle_or_held() -> None:
    hold = span("ah", 5, 12, "kv.hold")
    found = summarize([span("a", 0, 10), hold, span("b", 20, 25)])
    assert wall(found) == {"held": 7, "other": 10, "idle": 8}
    assert [(share.kind, share.spans) for share in found.shares] == [("held", 1), ("other", 2), ("idle", 0)]
    assert [share.kind for share in found.shares] == sorted(wall(found), key=KINDS.index)


def test_a_child_that_outlives_its_parent_or_began_before_it_is_no_negative_time() -> None:
    spans = [span("a", 10, 20), span("ab", 5, 15, attributes=TOOL), span("ac", 18, 30, "decode"), span("ad", 12, 12)]
    assert wall(summarize(spans)) == {"decode": 12, "tool": 10, "other": 3}


def test_of_a_call_within_a_call_the_tokens_of_the_inner_one_count() -> None:
    used = CHAT | {names.INPUT_TOKENS: 10, names.CACHE_READ: 4}
    client = span("a", 0, 10, attributes=used, kind="client", scope="another")
    server = span("ab", 2, 8, attributes=used)
    assert summarize([client, server]).tokens == Tokens(1, 10, 0, 4, 6)
    assert summarize([client]).tokens == Tokens(1, 10, 0, 4, 6)


def test_spans_of_others_count_by_the_conventions_attributes_and_not_by_their_names() -> None:
    spans = [
        span("a", 0, 40, scope="other"),
        span("ab", 0, 10, "decode", scope="other"),
        span("ac", 10, 20, attributes={"openinference.span.kind": "LLM"}, scope="other"),
        span("ad", 20, 30, attributes={"openinference.span.kind": "TOOL"}, scope="other"),
        span("ae", 30, 40, "kv.hold", scope="other"),
    ]
    assert wall(summarize(spans)) == {"model": 10, "tool": 10, "other": 20}
    assert summarize(spans).holds.count == 0


def test_the_last_trace_is_summed_up_unless_another_is_asked_for() -> None:
    spans = [span("a", 0, 10, trace_id="old"), span("b", 5, 6, trace_id="new"), span("c", 5, 7, trace_id="new")]
    assert summarize(spans).trace_id == "new"
    assert summarize(spans, "old").time == 10 * MS
    with pytest.raises(KeyError):
        summarize(spans, "none")
    with pytest.raises(KeyError):
        summarize([])


def test_a_summary_in_words_has_its_numbers_and_fits(agent: list[Record]) -> None:
    shown = render_summary(summarize(agent), width=60)
    assert max(map(len, shown.splitlines())) <= 60
    words = " ".join(shown.split())
    assert "time: 100.0 ms of wall clock, 14 spans, 1 failed" in words
    assert "decode 31.0 ms 31.0 % 33.0 ms in 2" in words
    assert "3 model calls: 229 asked, 80 reused, 140 computed; 12 said" in words
    assert "computed twice: 30 24: evicted 6: preempted" in words
    assert "holds: 1, 104 tokens, 24.0 ms in all; 1 resumed 1: extended by the next turn" in words
    assert "kv.restore: 1, 104 tokens preempt: 2, 2 blocks" in words


def test_a_trace_without_model_calls_says_nothing_of_tokens() -> None:
    assert "tokens" not in render_summary(summarize([span("a", 5, 5)]))


def test_a_summary_for_programs_is_json(agent: list[Record]) -> None:
    found = json.loads(json.dumps(summary_json(summarize(agent))))
    assert found["seconds"] == 0.1
    assert found["time"]["decode"] == {"wall": 0.031, "total": 0.033, "spans": 2}
    assert found["tokens"]["computed_twice"] == {"evicted": 24, "preempted": 6}
    assert found["holds"]["ended"] == {"extended by the next turn": 1}
    assert found["kv"]["preempt"] == {"count": 2, "tokens": 0, "blocks": 2}


def test_a_span_that_was_written_twice_is_there_once(agent: list[Record]) -> None:
    assert [len(each) for each in traces([*agent, *agent]).values()] == [len(agent)]
    assert summarize([*agent, *agent]) == summarize(agent)


def test_a_ring_of_parents_loses_nobody() -> None:
    ring = [span("a", 0, 9, parent_id="b"), span("b", 1, 8, parent_id="a"), span("c", 2, 3, parent_id="c")]
    roots, below = family(ring)
    assert [each.span_id for each in roots] == ["a", "c"]
    assert {id: [each.span_id for each in under] for id, under in below.items()} == {"a": ["b"], "b": [], "c": []}
    assert summarize(ring).spans == 3


REQUEST: dict[str, Any] = {
    "resourceSpans": [
        {
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "00" * 15 + "AB",
                            "spanId": "00" * 7 + "cd",
                            "kind": "SPAN_KIND_CLIENT",
                            "startTimeUnixNano": 5,
                            "status": {"code": "STATUS_CODE_ERROR"},
                            "attributes": [{"key": "nothing"}],
                        }
                    ]
                }
            ]
        }
    ]
}


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(REQUEST),
        json.dumps(REQUEST, indent=2),
        "\n" + json.dumps([REQUEST], indent=1),
        json.dumps({"result": REQUEST}),
        json.dumps({"resourceMetrics": []}) + "\n" + json.dumps(REQUEST),
    ],
)
def test_files_of_others_are_read_too(text: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_text(text)
    (found,) = read_otlp_json(tmp_path / "t.json")
    assert (found.trace_id, found.span_id, found.parent_id) == ("00" * 15 + "ab", "00" * 7 + "cd", None)
    assert (found.kind, found.status, found.name, found.start, found.end) == ("client", "error", "", 5, 5)
    assert found.attributes == {"nothing": None}


def test_what_is_null_in_files_of_others_is_as_good_as_absent(tmp_path: Path) -> None:
    empty = dict.fromkeys(("parentSpanId", "name", "kind", "startTimeUnixNano", "endTimeUnixNano", "status", "events"))
    told = [
        {"key": "a", "value": None},
        {"key": "l", "value": {"arrayValue": {"values": None}}},
        {"key": "m", "value": {"kvlistValue": {"values": [{"key": "k", "value": None}]}}},
    ]
    one = {"traceId": "ab" * 16, "spanId": "cd" * 8, "links": None, "attributes": told} | empty
    group = {"resource": None, "scopeSpans": [{"scope": None, "spans": [one]}, {"spans": None}]}
    (tmp_path / "t.json").write_text(json.dumps({"resourceSpans": [group, {"scopeSpans": None}]}))
    (found,) = read_otlp_json(tmp_path / "t.json")
    assert (found.name, found.kind, found.status, found.end) == ("", "unspecified", "unset", 0)
    assert found.attributes == {"a": None, "l": (), "m": {"k": None}}


def test_what_cannot_be_read_is_left_out_and_told_where_a_list_is_given(tmp_path: Path) -> None:
    line = json.dumps(REQUEST)
    for text, lines in (
        (f"{line}\n{line[:50]}\n{line}\n", [2]),
        (f"{line[:50]}\n{line}\n[]", [1]),
        (f"[7, {line}]", [1]),
    ):
        (tmp_path / "t.json").write_text(text)
        faults: list[BadTraceFile] = []
        assert {each.span_id for each in read_otlp_json(tmp_path / "t.json", faults=faults)} == {"00" * 7 + "cd"}
        assert [each.line for each in faults] == lines


def test_ids_in_base64_are_read_as_what_they_are(tmp_path: Path) -> None:
    ids = {"traceId": base64.b64encode(b"t" * 16).decode(), "spanId": base64.b64encode(b"s" * 8).decode()}
    (tmp_path / "t.json").write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [ids]}]}]}))
    (found,) = read_otlp_json(tmp_path / "t.json")
    assert (found.trace_id, found.span_id) == ("74" * 16, "73" * 8)


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        (b'{"resourceSpans": [\n{"scopeSpans": 7', 1, "Expecting"),
        (b'{"resourceSpans": []}\n\n{"resour', 3, "Unterminated"),
        (b'{"spans": []}', 1, "no 'resourceSpans'"),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "xyz", "spanId": "1"}]}]}]}', 1, "32 hexadecimal"),
        (b'{"resourceSpans": []}\n\xff\xfe', 2, "Expecting"),
        (b"[" * 100_000, 1, "recursion"),
        ('{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "\u00e9"}]}]}]}'.encode(), 1, "32 hexadecimal"),
        (b'{\n"resourceSpans": []}\n{\n"a": 1}', 3, "no 'resourceSpans'"),
    ],
)
def test_a_broken_file_is_named_with_its_line(text: bytes, line: int, why: str, tmp_path: Path) -> None:
    (tmp_path / "t.json").write_bytes(text)
    with pytest.raises(BadTraceFile, match=f"line {line}: .*{why}"):
        read_otlp_json(tmp_path / "t.json")
