"""Traces as trees for the terminal: what links and events say, and narrow places."""

from __future__ import annotations

from typing import Any

import pytest

from sostenuto.tracing import Record, names, render_tree
from sostenuto.tracing.records import Event, LinkTo

MS = 1_000_000


def span(id: str, start: int, name: str, **more: Any) -> Record:
    """One millisecond long; its parent is what its id says before the last letter."""
    told = {"trace_id": "t" * 32, "parent_id": id[:-1] or None, "kind": "internal", "scope": "sostenuto"} | more
    return Record(span_id=id, name=name, start=start * MS, end=(start + 1) * MS, **told)


def link(id: str, why: str | None = None, trace: str = "t" * 32) -> LinkTo:
    return LinkTo(trace, id, {} if why is None else {names.LINK: why})


def facts(spans: list[Record]) -> dict[str, str]:
    """What stands behind the duration of each span, by its name."""
    lines = render_tree(spans, "t" * 32).splitlines()
    parts = [line.split(" ms", 1) for line in lines]
    return {label.lstrip("│├└─ ").rsplit("  ", 1)[0].split("   ")[0].strip(): told.strip() for label, told in parts}


def life() -> list[Record]:
    """A context that is held in one step and resumed in another."""
    return [
        span("a", 0, "invoke_agent x"),
        span("ab", 1, "run_step model", attributes={names.GRAPH_STEP: 1, names.GRAPH_NODE: "model"}),
        span("abc", 2, "chat m"),
        span("abch", 3, "kv.hold", attributes={names.KV_TOKENS: 40, names.KV_WHY: "extended by the next turn"}),
        span("ac", 5, "run_step model", attributes={names.GRAPH_STEP: 3, names.GRAPH_VISIT: 2}),
        span("acc", 6, "chat n", attributes={names.KV_HIT_TOKENS: 30, names.KV_COMPUTED_TOKENS: 12}),
        span("accr", 7, "kv.restore", attributes={names.KV_TOKENS: 40}, links=[link("abch", "hold")]),
    ]


def test_a_restore_says_which_hold_it_resumes() -> None:
    told = facts(life())
    assert told["kv.hold"] == "ended: extended by the next turn, tokens 40"
    assert told["kv.restore"] == "resumes kv.hold of step 1, model, tokens 40"
    assert told["chat n"] == "reused 30, computed 12"


def test_a_hold_outside_of_graphs_is_named_by_its_call() -> None:
    spans = [span("a", 0, "chat m"), span("ah", 1, "kv.hold"), span("b", 2, "kv.fork", links=[link("ah", "hold")])]
    assert facts(spans)["kv.fork"] == "resumes kv.hold of chat m"


def test_links_say_what_was_joined_resumed_and_seen_elsewhere() -> None:
    other = "f" * 32
    spans = [
        span("a", 0, "first"),
        span("b", 1, "second"),
        span("c", 2, "join", links=[link("a", "trigger"), link("b", "trigger"), link("b", "trigger")]),
        span("d", 3, "after one", links=[link("a", "trigger"), link("a", "visit")]),
        span("e", 4, "again", links=[link("z", "resume", other)]),
        span("f", 5, "next run", links=[link("z", "previous", other)]),
        span("g", 6, "foreign", links=[link("q" * 16)]),
        span("z", 0, "old run", trace_id=other),
    ]
    told = facts(spans)
    assert told["join"] == "joins first, 2x second"
    assert told["after one"] == ""
    assert told["again"] == "resumes old run of trace ffffffff"
    assert told["next run"] == "follows old run of trace ffffffff"
    assert told["foreign"] == "links to span qqqqqqqq, which is not here"


def test_events_are_told_once_with_how_often_and_why() -> None:
    events = [
        Event("preempt", 1, {names.KV_WHY: "room for another"}),
        Event("preempt", 2, {names.KV_WHY: "room for another"}),
        Event("exception", 3),
        Event("first_chunk", 4),
        Event("interrupt", 5),
    ]
    assert facts([span("a", 0, "decode", events=events)])["decode"] == "interrupt, preempt 2x (room for another)"


def test_a_tier_is_told_where_it_is_not_the_usual_one() -> None:
    spans = [span("a", 0, name, attributes={names.KV_TIER: name}) for name in ("device", "host")]
    assert [facts([one]) for one in spans] == [{"device": ""}, {"host": "tier host"}]


def test_a_foreign_model_tells_its_cache_by_the_standard_name() -> None:
    used = {names.INPUT_TOKENS: 9, names.CACHE_READ: 4}
    assert facts([span("a", 0, "chat f", attributes=used)])["chat f"] == "reused 4, in 9"


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    deep = [span("d" * depth, depth, f"step {depth} of a long name") for depth in range(1, 40)]
    lines = render_tree([*life(), *deep], width=width).splitlines()
    assert len(lines) == len(life()) + 39
    assert max(map(len, lines)) <= width


def test_where_there_is_room_nothing_is_cut() -> None:
    assert render_tree(life(), width=200) == render_tree(life())
    assert "…" not in render_tree(life())


def test_of_a_deep_span_the_name_is_kept_before_its_branches() -> None:
    deep = [span("d" * depth, depth, f"step {depth}") for depth in range(1, 40)]
    last = render_tree(deep, width=60).splitlines()[-1]
    assert last.startswith("…")
    assert "step 39" in last


def test_a_very_deep_trace_is_shown_to_its_end() -> None:
    many = 3_000
    chain = [
        Record("t", str(each), str(each - 1) if each else None, f"s{each}", "internal", each, each + 1)
        for each in range(many)
    ]
    assert len(render_tree(chain, width=80).splitlines()) == many


def test_whoever_names_a_span_has_no_say_over_the_terminal() -> None:
    evil = "\x1b[2J\n\u202etool\x07"
    shown = render_tree([span("a", 0, evil, attributes={"gen_ai.request.model": evil})])
    assert len(shown.splitlines()) == 1
    assert shown.isprintable()
    assert r"\x1b[2J\n\u202etool\x07" in shown
