"""Samples of one prompt share it, go their own ways with tools, and can be broken off and resumed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sostenuto.runtime.ask import Message
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import BadRollout, Refused
from sostenuto.runtime.host import Host
from sostenuto.runtime.rollout import Group, Rollout, Rules, Sample, Toolbox, rollout
from sostenuto.runtime.rollout.group import seed_for, together
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session
from sostenuto.tools import Choice

from .conftest import VOCAB, Gated, build
from .rollouts import ADD, adder, idle, load, make, serve

WARM = Sampling(temperature=1.0)
PROMPT = [Message("user", "What is the sum of two and three? Please tell me.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("chat"))


@pytest.fixture
def host(folder: Path) -> Iterator[Host]:
    with serve(folder) as opened:
        yield opened
        assert idle(opened), "something was not let go"


def rows(host: Host) -> int:
    assert isinstance(host.engine, TorchEngine)
    return host.engine.rows


def calling(host: Host, box: Toolbox) -> Session:
    """A session that must call a tool in every answer."""
    return Session(host, tools=box.tools, sampling=WARM, choice=Choice("any"), parallel=False)


async def play(session: Session, *, n: int = 4, **rules: Any) -> tuple[Rollout, Group]:
    with session, Group(session, PROMPT, n=n, rules=Rules(**rules)) as group:
        return await group.run(), group


async def test_a_group_computes_its_prompt_once_and_no_token_twice(host: Host) -> None:
    made, group = await play(Session(host, sampling=WARM), n=5, max_tokens=20, seed=1)
    prompt = len(next(made.samples()).prompt_ids)
    assert prompt > 40
    assert rows(host) == made.tokens == group.tally.computed == group.tally.stored
    assert made.tokens == prompt + sum(len(sample.completion_ids) for sample in made.samples())
    assert group.tally.asked == made.flat == 5 * prompt + made.tokens - prompt
    assert group.tally.stale == 0
    assert group.finished
    assert repr(group) == "<Group 5 of 5 samples finished>"


async def test_a_fork_says_what_the_same_tokens_say_alone(host: Host, folder: Path) -> None:
    made, _ = await play(Session(host, sampling=WARM), n=3, max_tokens=16, seed=1)
    for number, sample in enumerate(made.samples()):
        with serve(folder) as fresh, Session(fresh, sampling=WARM) as alone:
            alone.feed(sample.prompt_ids)
            answer = await alone.agenerate(16, seed=seed_for(1, number, 0))
        assert list(answer.tokens) == sample.completion_ids
        assert sample.logprobs == pytest.approx(answer.logprobs, abs=1e-5)


async def test_equal_seeds_give_equal_groups_and_samples_of_a_group_differ(host: Host) -> None:
    first, _ = await play(Session(host, sampling=WARM), seed=1)
    again, _ = await play(Session(host, sampling=WARM), seed=1)
    other, _ = await play(Session(host, sampling=WARM), seed=2)

    def said(made: Rollout) -> list[list[int]]:
        return [sample.completion_ids for sample in made.samples()]

    assert said(first) == said(again)
    assert len({tuple(ids) for ids in [*said(first), *said(other)]}) == 8


async def test_tokens_go_in_and_out_as_they_are(host: Host) -> None:
    with Session(host, sampling=WARM) as session:
        made = await rollout(session, [5, 6, 7, 8, 9], n=2, rules=Rules(max_tokens=4, seed=1))
    assert [sample.prompt_ids for sample in made.samples()] == [[5, 6, 7, 8, 9]] * 2
    assert {len(sample.completion_ids) for sample in made.samples()} == {4}


async def test_every_token_is_told_with_its_probabilities_and_its_version(host: Host) -> None:
    session = Session(host, sampling=Sampling(temperature=0.5))
    made, _ = await play(session, max_tokens=8, seed=1)
    for sample in made.samples():
        assert sample.mask == [1] * 8
        assert sample.versions == [0] * 8
        assert sample.drawn == sample.tempered, "nothing but the temperature changed what was drawn from"
        assert all(raw != warm for raw, warm in zip(sample.logprobs, sample.tempered, strict=True))
        assert sample.forced == [False] * 8


async def test_samples_call_their_tools_and_go_on_behind_the_results(host: Host) -> None:
    box = adder()
    made, group = await play(calling(host, box), turns=3, max_tokens=600, toolbox=box, seed=3)
    decode = host.engine.tokenizer.decode  # type: ignore[union-attr]
    assert group.tally.calls == 4 * 2, "two results for each sample; what the last answer calls is not run"
    assert (group.tally.rejected, group.tally.failed, group.tally.rewritten) == (0, 0, 0)
    assert rows(host) == made.tokens == group.tally.computed
    assert group.tally.asked > 3 * group.tally.computed
    for sample in made.samples():
        text = decode(sample.completion_ids)
        assert text.count("<tool_call>") == 3
        assert text.count("<tool_response>") == 2
        assert sample.reason == "stop"
        read = [token for token, said in zip(sample.completion_ids, sample.mask, strict=True) if not said]
        assert decode(read).count("user: ") + decode(read).count("tool: ") == 2
        assert "tool_call" not in decode(read)
        assert sum(sample.forced) > 20, "names and brackets leave nothing to decide"
        certain = [drawn for drawn, forced in zip(sample.drawn, sample.forced, strict=True) if forced]
        assert set(certain) == {0.0}


async def test_a_tree_of_turns_holds_each_answer_and_each_result_once(host: Host) -> None:
    box = adder()
    made, _ = await play(calling(host, box), n=2, turns=2, max_tokens=400, toolbox=box, seed=3)
    for leaf in made.leaves():
        root, said, read, again = [made.node(node) for node in made.walk(leaf)]
        assert (set(said.piece.mask), set(read.piece.mask), set(again.piece.mask)) == ({1}, {0}, {1})
        assert (root.reason, said.reason, read.reason, again.reason) == (None, None, None, "stop")
    assert Rollout.from_json(made.to_json()) == made


async def test_results_that_leave_no_room_end_the_sample_before_them(host: Host) -> None:
    box = Toolbox([ADD], {"add": lambda a, b: "0" * 500})
    made, group = await play(calling(host, box), n=2, turns=3, max_tokens=300, toolbox=box, seed=3)
    assert group.tally.calls == 2
    for sample in made.samples():
        assert (sample.reason, set(sample.mask)) == ("length", {1})


async def test_a_template_that_writes_the_past_anew_ends_the_sample_and_is_counted(tmp_path: Path) -> None:
    build(tmp_path, model_type="llama", max_position_embeddings=2048)  # its template drops the end of an answer
    box = adder()
    with serve(tmp_path) as host:
        made, group = await play(calling(host, box), n=2, turns=3, max_tokens=300, toolbox=box, seed=3)
    assert group.tally.rewritten == 2
    assert [(sample.reason, set(sample.mask)) for sample in made.samples()] == [("stop", {1})] * 2


async def test_what_is_broken_off_goes_on_where_it_stood(folder: Path) -> None:
    box = adder()
    rules = Rules(turns=2, max_tokens=300, toolbox=box, seed=3)
    with serve(folder) as calm, calling(calm, box) as session:
        expected = await rollout(session, PROMPT, n=3, rules=rules)
    engine = Gated(load(folder), pool_tokens=8192)
    with Host(engine) as host, calling(host, box) as session, Group(session, PROMPT, n=3, rules=rules) as group:
        sizes = []
        for steps in (3, 20, 25, 70):
            running = asyncio.ensure_future(group.run())
            for _ in range(steps):
                engine.let()
                await asyncio.to_thread(engine.wait)
            assert host.abort() > 0
            engine.let()  # the step on its way is computed, and nobody is left to hear of it
            made = await running
            assert not group.finished
            assert not all(sample.finished for sample in made.samples())
            sizes.append(made.tokens)
        engine.open()
        whole = await group.run()
        assert group.finished
    assert sizes == sorted(sizes)
    assert sizes[-1] > sizes[0]
    assert [sample.completion_ids for sample in whole.samples()] == [one.completion_ids for one in expected.samples()]
    assert [sample.mask for sample in whole.samples()] == [one.mask for one in expected.samples()]
    assert all(sample.finished for sample in whole.samples())


async def test_a_rollout_that_is_broken_off_for_new_weights_goes_on_with_them(folder: Path) -> None:
    engine = Gated(load(folder), pool_tokens=8192)
    rules = Rules(max_tokens=40, seed=3)
    with (
        Host(engine) as host,
        Session(host, sampling=WARM) as session,
        Group(session, PROMPT, n=3, rules=rules) as group,
    ):
        running = asyncio.ensure_future(group.run())
        for _ in range(15):
            engine.let()
            await asyncio.to_thread(engine.wait)
        host.abort()
        engine.open()
        broken = list((await running).samples())
        host.update_weights([("lm_head.weight", torch.randn(VOCAB, 32) * 0.25)], version=7)
        whole = list((await group.run()).samples())
    for before, after in zip(broken, whole, strict=True):
        count = len(before.completion_ids)
        assert 0 < count < 40
        assert (before.reason, before.finished) == ("abort", False)
        assert after.completion_ids[:count] == before.completion_ids
        assert after.versions == [0] * count + [7] * (40 - count)
        assert after.lags(8) == [8] * count + [1] * (40 - count)
    assert group.tally.stale == 0, "what the old weights computed was computed again"
    assert group.tally.computed > group.tally.stored


async def test_a_group_that_is_stopped_begins_no_turn_and_goes_on_later(host: Host) -> None:
    def add(a: int, b: int) -> str:
        group.stop()
        return str(a + b)

    box = Toolbox([ADD], {"add": add})
    with calling(host, box) as session:
        rules = Rules(turns=2, max_tokens=300, toolbox=box, seed=3)
        with Group(session, PROMPT, n=1, rules=rules) as group:
            made = await group.run()
            (sample,) = made.samples()
            assert (sample.finished, sample.mask[-1]) == (False, 0), "a result stands there that nobody answered"
            (sample,) = (await group.run()).samples()
            assert sample.finished


async def test_finished_samples_are_scored(host: Host) -> None:
    def reward(sample: Sample) -> float:
        return float(len(sample.completion_ids))

    with Session(host, sampling=WARM) as session:
        made = await rollout(session, PROMPT, n=3, rules=Rules(max_tokens=7, seed=1), reward=reward)
    assert [sample.reward for sample in made.samples()] == [7.0] * 3


async def test_a_tool_that_breaks_down_ends_the_group_and_nothing_is_kept(host: Host) -> None:
    def broken(a: int, b: int) -> str:
        raise RuntimeError("the disk is full")

    box = Toolbox([ADD], {"add": broken})
    with pytest.raises(RuntimeError, match="the disk is full"):
        await play(calling(host, box), turns=2, max_tokens=300, toolbox=box)


async def test_a_prompt_without_room_is_refused_and_nothing_is_kept(host: Host) -> None:
    with pytest.raises(Refused, match="takes 2048 in all"), Session(host) as session:
        await rollout(session, [7] * 3000, n=2)


@pytest.mark.parametrize("name", ["turns", "max_tokens"])
def test_rules_that_leave_nothing_to_play_are_refused(name: str) -> None:
    rules: dict[str, Any] = {name: 0}
    with pytest.raises(BadRollout, match=f"{name}: found 0; expected at least 1"):
        Rules(**rules)


def test_a_group_of_nobody_or_nothing_is_refused(host: Host) -> None:
    with Session(host) as session:
        with pytest.raises(BadRollout, match="n: found 0"):
            Group(session, PROMPT, n=0, rules=Rules())
        with pytest.raises(BadRollout, match="the prompt is empty"):
            Group(session, [], n=1, rules=Rules())


async def test_samples_wait_for_their_tools_side_by_side(host: Host) -> None:
    """Each tool waits until all four are called: one after the other they would wait for ever."""
    together_sync, arrived = threading.Barrier(4), asyncio.Barrier(4)

    async def meet(a: int, b: int) -> str:
        await arrived.wait()
        return "met"

    tools: list[Callable[..., Any]] = [lambda a, b: str(together_sync.wait()), meet]
    for function in tools:
        box = Toolbox([ADD], {"add": function})
        _, group = await play(calling(host, box), turns=2, max_tokens=300, toolbox=box, seed=3)
        assert group.tally.calls == 4
        assert 0 < group.tally.wait_share < 1


async def test_the_first_error_ends_all_that_run_together() -> None:
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def fails() -> None:
        raise KeyError("lost")

    with pytest.raises(KeyError, match="lost"):
        await together([waits(), fails()])
    assert ended == ["waits"]


def test_seeds_differ_by_place() -> None:
    places = [(), (0,), (1,), (0, 0), (0, 1), (1, 0), (10,), (1, 0, 0)]
    assert len({seed_for(5, *place) for place in places}) == len(places)
    assert seed_for(5, 1, 2) == seed_for(5, 1, 2) < 2**62
