"""Hints: what is understood, what is refused and why, and that every hint is answered."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.kvstore import BlockHash, KVError, Range
from sostenuto.kvstore.errors import MalformedHint
from sostenuto.kvstore.hints import (
    MOST_ACTIONS,
    MOST_RANGES,
    Demote,
    KvHintAction,
    KvHintsEnvelope,
    Pin,
    Prefetch,
    Reply,
    Retain,
    Share,
    Target,
    Verb,
    answer,
    deferred,
    envelope,
    hear,
    priority_at,
    understand,
)

A = {"target": {"session": "a"}}


def action(kind: str, payload: dict[str, Any], *, name: str = "1", version: str = "1") -> dict[str, Any]:
    return {"action_id": name, "action_type": kind, "action_version": version, "payload": payload}


def message(*actions: Any, **rest: Any) -> dict[str, Any]:
    return {"protocol_version": "0.1", "message_id": "m", "actions": list(actions), **rest}


def read(kind: str, payload: dict[str, Any], *, now: float = 100.0) -> Verb:
    heard = hear(json.loads(json.dumps(message(action(kind, payload)))), now=now)
    assert heard.answers == (), heard.answers
    ((_, verb),) = heard.wishes
    return verb


def refusal(kind: str, payload: Any, **rest: str) -> str:
    heard = hear(message(action(kind, payload, **rest)), now=0.0)
    assert heard.wishes == ()
    (reply,) = heard.answers
    assert (reply.outcome, reply.granted) == ("rejected", 0)
    return reply.why


def test_the_five_verbs_are_understood_and_their_times_count_from_now() -> None:
    a = Target(session="a")
    assert read("Share", {**A, "width": 4}) == Share(a, 4)
    assert read("share", A) == Share(a, 2)
    assert read("Prefetch", A) == Prefetch(a, "device")
    assert read("Demote", {**A, "tier": "disk"}) == Demote(a, "disk")
    assert read("Demote", A) == Demote(a)
    assert read("Pin", {**A, "seconds": 5}) == Pin(a, 105.0)
    assert read("Retain", {**A, "ranges": [{"stop": 8, "priority": 80, "seconds": 2.5}]}) == Retain(
        a, (Range(0, 8, 80, 102.5),)
    )
    ranges = [{"start": 4, "priority": 10}, {"start": 0, "stop": None, "priority": 90}]
    assert read("Pin", {**A, "seconds": 1, "ranges": ranges}) == Pin(a, 101.0, (Range(4, None, 10), Range(0, None, 90)))


def test_a_context_is_a_session_with_its_branch_a_mark_or_a_chain_of_blocks() -> None:
    assert read("Demote", {"target": {"session": "a", "branch": "b"}}) == Demote(Target("a", "b"))
    assert read("Demote", {"target": {"mark": "k"}}) == Demote(Target(mark="k"))
    blocks = (BlockHash(b"\x01\x02"), BlockHash(b"\xff"))
    assert read("Demote", {"target": {"blocks": ["0102", "ff"]}}) == Demote(Target(blocks=blocks))


def test_fewer_steps_to_execution_are_a_higher_priority_and_never_as_low_as_what_is_unknown() -> None:
    assert [priority_at(steps) for steps in (0, 1, 2, 16, 17, 10_000)] == [100, 96, 92, 36, 36, 36]
    assert read("Retain", {**A, "steps": 2}) == Retain(Target("a"), (Range(0, None, 92, math.inf),))
    assert read("Retain", {**A, "steps": 2, "seconds": 5}) == Retain(Target("a"), (Range(0, None, 92, 105.0),))


@pytest.mark.parametrize(
    ("kind", "payload", "why"),
    [
        ("Freeze", A, "action_type 'Freeze' is none of share, prefetch, demote, pin, retain"),
        ("Pin", A, "a pin needs seconds"),
        ("Pin", {**A, "seconds": 0}, "seconds is a number above 0, of 1e+09 at most; found 0"),
        ("Pin", {**A, "seconds": math.nan}, "found nan"),
        ("Pin", {**A, "seconds": math.inf}, "found inf"),
        ("Pin", {**A, "seconds": 10**400}, "seconds is a number above 0"),
        ("Pin", {**A, "seconds": True}, "found True"),
        ("Pin", {**A, "seconds": 5, "forever": True}, "forever is not understood here"),
        ("Retain", A, "either ranges or steps"),
        ("Retain", {**A, "steps": 1, "ranges": []}, "either ranges or steps"),
        ("Retain", {**A, "steps": -1}, "steps is a whole number from 0 on; found -1"),
        ("Retain", {**A, "steps": 1.5}, "found 1.5"),
        ("Retain", {**A, "ranges": []}, "no ranges say nothing"),
        ("Retain", {**A, "ranges": [{"priority": 101}]}, "priority 101 is not within 0 to 100"),
        ("Retain", {**A, "ranges": [{"start": 5, "stop": 5, "priority": 1}]}, "are no range"),
        ("Retain", {**A, "ranges": [{}]}, "priority is a whole number"),
        ("Retain", {**A, "ranges": ["all"]}, "a range is a JSON object; found str"),
        ("Share", {**A, "width": True}, "found True"),
        ("Share", {**A, "width": 0}, "width is a whole number from 1 on"),
        ("Share", {}, "a target is a JSON object; found NoneType"),
        ("Share", {"target": {}}, "a target is a session (and its branch), a mark or blocks; found []"),
        ("Share", {"target": {"session": "a", "mark": "b"}}, "found ['mark', 'session']"),
        ("Share", {"target": {"mark": "a", "branch": "b"}}, "found ['branch', 'mark']"),
        ("Share", {"target": {"blocks": ["xyz"]}}, "blocks are names in hex"),
        ("Share", {"target": {"blocks": [7]}}, "blocks are names in hex"),
        ("Share", {"target": {"blocks": []}}, "no blocks"),
        ("Prefetch", {**A, "tier": ""}, "tier is a text of 1 to 512 characters; found ''"),
        ("Demote", {"target": {"session": "x" * 513}}, "1 to 512 characters"),
    ],
)
def test_what_is_not_understood_is_rejected_with_the_reason(kind: str, payload: dict[str, Any], why: str) -> None:
    assert why in refusal(kind, payload)


def test_a_hint_has_so_many_ranges_and_no_more_and_as_many_blocks_as_a_long_context() -> None:
    some = [{"start": number, "priority": 40} for number in range(MOST_RANGES)]
    verb = read("Retain", {**A, "ranges": some})
    assert isinstance(verb, Retain)
    assert len(verb.ranges) == MOST_RANGES == 64
    for kind, rest in (("Retain", {}), ("Pin", {"seconds": 1})):
        why = refusal(kind, {**A, **rest, "ranges": [*some, some[0]]})
        assert why == "ranges is a list of at most 64; found 65 items"
    assert len(read("Prefetch", {"target": {"blocks": ["00"] * 4096}}).target.blocks) == 4096


def test_a_version_that_is_not_spoken_is_rejected_and_a_minor_one_is_not() -> None:
    assert "version '2' is not spoken here" in refusal("Pin", {**A, "seconds": 1}, version="2")
    assert hear(message(action("Pin", {**A, "seconds": 1}, version="1.7")), now=0.0).answers == ()


def test_a_hint_that_is_wrong_does_not_silence_its_neighbours() -> None:
    said = message(
        action("Pin", {**A, "seconds": 1}, name="1"),
        action("Hold", A, name="2"),
        action("Demote", A, name="1"),
        action("Demote", A, name="4"),
    )
    heard = hear(said, now=0.0)
    assert [wish.action_id for wish, _ in heard.wishes] == ["1", "4"]
    assert [(reply.action_id, reply.outcome) for reply in heard.answers] == [("2", "rejected"), ("1", "rejected")]
    assert "used before" in heard.answers[1].why


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (None, "an envelope is a JSON object; found NoneType"),
        ([], "found list"),
        ({}, "protocol_version is a text"),
        (message(protocol_version="7"), "protocol_version '7' is not spoken here: this is 0.1"),
        (message(message_id=3), "message_id is a text of 1 to 512 characters; found 3"),
        ({"protocol_version": "0.1", "message_id": "m", "actions": {}}, "actions is a list of at most 64; found dict"),
        (message(*[action("Demote", A)] * (MOST_ACTIONS + 1)), "found 65 items"),
        (message("pin it"), "an action is a JSON object; found str"),
        (message({"action_id": "1"}), "action_type is a text"),
        (message({**action("Pin", {}), "payload": []}), "a payload is a JSON object; found list"),
    ],
)
def test_a_message_that_is_no_envelope_is_rejected_as_a_whole(said: object, why: str) -> None:
    heard = hear(said, now=0.0)
    assert (heard.wishes, [reply.outcome for reply in heard.answers]) == ((), ["rejected"])
    assert why in heard.answers[0].why
    with pytest.raises(MalformedHint) as fault:
        envelope(said)
    assert isinstance(fault.value, KVError)


def test_an_envelope_keeps_payloads_as_they_came() -> None:
    found = envelope(message(action("Unheard", {"of": [1]})))
    assert found == KvHintsEnvelope("0.1", "m", (KvHintAction("1", "Unheard", "1", {"of": [1]}),))
    with pytest.raises(MalformedHint, match="Unheard"):
        understand(found.actions[0], now=0.0)


def test_an_answer_follows_from_its_counts() -> None:
    wish = KvHintAction("1", "Pin", "1", {})
    given = [(4, 4), (4, 2), (4, 0), (0, 0)]
    replies = [answer(wish, asked=asked, granted=granted, why="w", cap=3) for asked, granted in given]
    assert [reply.outcome for reply in replies] == ["accepted", "clipped", "rejected", "missing"]
    assert replies[1] == Reply("1", "clipped", "w", asked=4, granted=2, cap=3)
    assert deferred(wish, asked=4, why="on its way") == Reply("1", "deferred", "on its way", asked=4)
    assert deferred(wish, asked=4, granted=3, why="on its way").granted == 3


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
kinds = st.sampled_from(["Share", "Prefetch", "Demote", "Pin", "Retain", "else"])
keys = st.sampled_from(["target", "seconds", "ranges", "steps", "tier", "width"])
targets = st.sampled_from([A["target"], {"mark": "m"}, {"blocks": ["00"]}, {"session": 3}])


@given(st.lists(st.tuples(kinds, st.dictionaries(keys, values | targets, max_size=4)), max_size=5), values)
def test_every_hint_is_either_understood_or_answered_whatever_it_is(
    actions: list[tuple[str, dict[str, Any]]], other: Any
) -> None:
    said = message(*(action(kind, payload, name=str(number)) for number, (kind, payload) in enumerate(actions)))
    heard = hear(said, now=0.0)
    assert len(heard.wishes) + len(heard.answers) == len(actions)
    assert all(reply.outcome == "rejected" and reply.why for reply in heard.answers)
    assert len(hear(other, now=0.0).answers) == 1
