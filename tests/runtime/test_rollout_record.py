"""A rollout stores each token once, its samples are walks through it, and nothing ill-fitting gets in."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.runtime.errors import BadRollout
from sostenuto.runtime.rollout import ROOT, UNSAID, NodeId, Piece, Rollout
from sostenuto.runtime.rollout.record import Node, Sample
from sostenuto.runtime.ticket import Piece as Told

LOGS = st.floats(-1e3, 0.0) | st.floats(-1e-300, 0.0) | st.just(-0.0)
IDS = st.integers(0, 2**20)


@st.composite
def pieces(draw: st.DrawFn) -> Piece:
    """Runs of what was said and of what was read, in any order."""
    mask = draw(st.lists(st.sampled_from([0, 1]), max_size=6))

    def column(said: st.SearchStrategy[Any], read: Any) -> tuple[Any, ...]:
        return tuple(draw(said) if one else read for one in mask)

    return Piece(
        ids=tuple(draw(IDS) for _ in mask),
        mask=tuple(mask),
        logprobs=column(LOGS, 0.0),
        drawn=column(LOGS, 0.0),
        tempered=column(LOGS, 0.0),
        forced=column(st.booleans(), False),
        versions=column(st.integers(0, 99), UNSAID),
    )


@st.composite
def rollouts(draw: st.DrawFn) -> Rollout:
    rollout = Rollout(draw(st.lists(IDS, min_size=1, max_size=5)))
    for count in range(1, draw(st.integers(1, 9))):
        rollout.add(
            NodeId(draw(st.integers(0, count - 1))),
            draw(pieces()),
            reason=draw(st.sampled_from(["stop", "length", "abort", None])),
            reward=draw(st.none() | st.floats(-1e6, 1e6)),
        )
    return rollout


SAID = Piece.said(
    [
        Told(5, "a", logprob=-1.0, drawn=-0.5, tempered=-0.75, forced=False, version=3),
        Told(6, "b", logprob=-2.0, drawn=-0.0, tempered=-1.5, forced=True, version=4),
        Told(None, "text that was held back"),
    ]
)


@given(rollouts())
def test_what_is_written_as_json_comes_back_equal_and_is_strict_json(rollout: Rollout) -> None:
    text = rollout.to_json()
    again = Rollout.from_json(text)
    assert again == rollout
    assert again.to_json() == text
    assert list(again.samples()) == list(rollout.samples())
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@given(rollouts())
def test_samples_are_walks_from_the_root_and_each_token_is_stored_once(rollout: Rollout) -> None:
    leaves = rollout.leaves()
    covered = {node for leaf in leaves for node in rollout.walk(leaf)} | {ROOT}
    assert rollout.tokens == sum(len(rollout.node(node).piece) for node in covered)
    for leaf, sample in zip(leaves, rollout.samples(), strict=True):
        first, *rest = [rollout.node(node).piece for node in rollout.walk(leaf)]
        assert sample.prompt_ids == list(first.ids)
        for column, name in (("completion_ids", "ids"), ("mask", "mask"), ("drawn", "drawn"), ("forced", "forced")):
            assert getattr(sample, column) == [one for piece in rest for one in getattr(piece, name)]
        columns = (sample.logprobs, sample.tempered, sample.forced, sample.versions, sample.mask, sample.drawn)
        assert {len(column) for column in columns} == {len(sample.completion_ids)}
        assert len(sample.lags(100)) == sum(sample.mask)
    assert rollout.flat == sum(len(one.prompt_ids) + len(one.completion_ids) for one in rollout.samples())
    # A token that n samples share is stored once and counted n times; what no sample holds is the bare root alone.
    assert rollout.flat >= rollout.tokens or not leaves


def test_a_group_of_four_stores_its_prompt_and_its_first_turn_once() -> None:
    rollout = Rollout([1, 2, 3])
    turn = rollout.add(ROOT, SAID, reason="stop")
    result = rollout.add(turn, Piece.read([8, 9]))
    ends = [rollout.add(result, SAID, reason="stop", reward=float(n)) for n in range(4)]
    assert rollout.leaves() == tuple(ends)
    assert (rollout.tokens, rollout.flat) == (3 + 2 + 2 + 4 * 2, 4 * (3 + 2 + 2 + 2))
    assert repr(rollout) == "<Rollout 4 samples, 15 tokens stored for 36>"
    assert rollout.sample(ends[2]) == Sample(
        prompt_ids=[1, 2, 3],
        completion_ids=[5, 6, 8, 9, 5, 6],
        mask=[1, 1, 0, 0, 1, 1],
        logprobs=[-1.0, -2.0, 0.0, 0.0, -1.0, -2.0],
        drawn=[-0.5, 0.0, 0.0, 0.0, -0.5, 0.0],
        tempered=[-0.75, -1.5, 0.0, 0.0, -0.75, -1.5],
        forced=[False, True, False, False, False, True],
        versions=[3, 4, UNSAID, UNSAID, 3, 4],
        reward=2.0,
        reason="stop",
    )
    assert rollout.sample(ends[2]).lags(5) == [2, 1, 2, 1]


def test_a_sample_is_finished_when_the_model_or_its_limit_ended_it() -> None:
    rollout = Rollout([1])
    broken = rollout.add(ROOT, SAID, reason="abort")
    assert not rollout.sample(broken).finished
    rest = rollout.add(broken, SAID, reason="length")
    assert rollout.leaves() == (rest,), "what goes on is no sample of its own any more"
    assert rollout.sample(rest).finished
    assert not rollout.sample(rollout.add(rest, Piece.read([4]))).finished, "a result waits for an answer"


def test_a_bare_prompt_has_no_sample() -> None:
    assert list(Rollout([1, 2]).samples()) == []
    assert Rollout([1, 2]).flat == 0


def test_a_reward_may_come_later_and_be_corrected() -> None:
    rollout = Rollout([1])
    leaf = rollout.add(ROOT, SAID, reason="stop")
    assert rollout.sample(leaf).reward is None
    for reward in (0.5, -1.0):
        rollout.score(leaf, reward)
        assert rollout.sample(leaf).reward == reward
    assert rollout.node(leaf) == Node(SAID, ROOT, "stop", -1.0)
    with pytest.raises(BadRollout, match="reward: found nan"):
        rollout.score(leaf, math.nan)


@pytest.mark.parametrize("name", ["mask", "logprobs", "drawn", "tempered", "forced", "versions"])
def test_columns_of_other_lengths_are_named(name: str) -> None:
    with pytest.raises(BadRollout, match=rf"{name}: found 1 values beside 2 ids"):
        replace(SAID, **{name: getattr(SAID, name)[:1]})


@pytest.mark.parametrize("name", ["logprobs", "drawn", "tempered"])
@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf, 0.5])
def test_what_is_no_log_probability_is_refused_on_tokens_of_the_model(name: str, value: float) -> None:
    columns: dict[str, Any] = {**dict.fromkeys(("logprobs", "drawn", "tempered"), (-1.0, 0.0)), name: (-1.0, value)}
    with pytest.raises(BadRollout, match=rf"{name}: found {value} at token 1; expected the logarithm"):
        replace(SAID, **columns)
    with pytest.raises(BadRollout, match=rf"{name}: found {value} at token 1, which the model did not say"):
        replace(SAID, **columns, mask=(1, 0))


def test_a_log_probability_may_be_a_rounding_error_above_zero() -> None:
    assert replace(SAID, logprobs=(1e-6, -0.0)).logprobs[0] == 1e-6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": (5, -6)}, "token 1: found id -6"),
        ({"mask": (1, 2)}, "token 1: found id 6 with mask 2"),
        ({"versions": (3, UNSAID)}, "token 1: the model said it, by version -1"),
    ],
)
def test_tokens_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRollout, match=message):
        replace(SAID, **change)


@pytest.mark.parametrize("parent", [-1, 1, 7])
def test_an_unknown_parent_is_named_with_those_there_are(parent: int) -> None:
    rollout = Rollout([1])
    with pytest.raises(BadRollout, match=rf"no node {parent}: this rollout has nodes 0 to 0"):
        rollout.add(NodeId(parent), SAID)
    with pytest.raises(BadRollout, match=f"no node {parent}"):
        rollout.sample(NodeId(parent))


def test_what_no_rollout_ends_with_is_refused() -> None:
    rollout: Any = Rollout([1])
    with pytest.raises(BadRollout, match="reason: found 'tired'; expected one of stop, length, abort"):
        rollout.add(ROOT, SAID, reason="tired")
    with pytest.raises(BadRollout, match="reward: found inf"):
        rollout.add(ROOT, SAID, reward=math.inf)
    with pytest.raises(BadRollout, match="the prompt is empty"):
        Rollout([])


def test_a_rollout_that_grows_is_no_key() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(Rollout([1]))


def damaged() -> dict[str, str]:
    """What may lie in a file instead of a rollout."""
    rollout = Rollout([1])
    rollout.add(ROOT, SAID)
    good = rollout.to_json()
    value = json.loads(good)
    first, second = value["nodes"]

    def with_nodes(*nodes: Any) -> str:
        return json.dumps({**value, "nodes": nodes})

    return {
        "cut": good[:-9],
        "a list": "[]",
        "another format": good.replace("rollout/1", "rollout/2"),
        "no nodes": with_nodes(),
        "no prompt": with_nodes({**first, "parent": 0}),
        "a prompt that was said": with_nodes({**second, "parent": None}),
        "two roots": with_nodes(first, first),
        "a parent to come": with_nodes(first, {**second, "parent": 1}),
        "a parent by name": with_nodes(first, {**second, "parent": "root"}),
        "another column": with_nodes(first, {**second, "piece": {**second["piece"], "colour": [1, 2]}}),
        "a column too short": with_nodes(first, {**second, "piece": {**second["piece"], "drawn": [-1.0]}}),
        "words for ids": with_nodes(first, {**second, "piece": {**second["piece"], "ids": ["a", "b"]}}),
        "a reward in words": with_nodes(first, {**second, "reward": "high"}),
        "no reason": with_nodes(first, {key: each for key, each in second.items() if key != "reason"}),
        "not a number": good.replace("-0.75", "NaN"),
    }


@pytest.mark.parametrize("name", damaged())
def test_what_is_no_rollout_is_refused_when_read(name: str) -> None:
    with pytest.raises(BadRollout):
        Rollout.from_json(damaged()[name])
