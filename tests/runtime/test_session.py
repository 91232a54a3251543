"""A conversation that is marked, forked and rolled back at a token."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from typing import Any

import pytest

from sostenuto.runtime.ask import Message
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import (
    BadMessage,
    Busy,
    ForeignMark,
    ForkAlive,
    Refused,
    SessionClosed,
    UnknownMark,
)
from sostenuto.runtime.history import History
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session

from .conftest import Gated, Pair, draw

pytestmark = pytest.mark.every_way

WARM = Sampling(temperature=1.0, seed=5, max_tokens=12)
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}


@pytest.fixture
def host(tiny: Pair) -> Iterator[Host]:
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as opened:
        yield opened
        assert "0 waiting | 0 running" in opened.loop.ask()


def session(host: Host, prompt: int = 50, **rest: Any) -> Session:
    opened = Session(host, sampling=rest.pop("sampling", WARM), **rest)
    opened.feed(draw(prompt))
    return opened


def rows(host: Host) -> int:
    assert isinstance(host.engine, TorchEngine)
    return host.engine.rows


def test_an_answer_broken_off_at_any_token_goes_on_as_if_it_never_was(host: Host) -> None:
    with session(host) as whole:
        expected = whole.generate()
    for cut in range(1, 12):
        with session(host) as parted:
            first = parted.generate(cut)
            assert (first.reason, parted.said) == ("length", cut)
            rest = parted.generate(12 - cut)
            assert first.tokens + rest.tokens == expected.tokens
            assert rest.text == expected.text
            assert rest.facts.reused_tokens == 50 + cut - 1, "and nothing was computed twice"


def test_a_constrained_answer_goes_on_under_its_grammar(host: Host) -> None:
    with session(host, schema=SCHEMA, sampling=Sampling(temperature=1.0, seed=3, max_tokens=60)) as whole:
        expected = whole.generate()
    with session(host, schema=SCHEMA, sampling=Sampling(temperature=1.0, seed=3, max_tokens=60)) as parted:
        said = [parted.generate(3) for _ in range(2)]
        (branch,) = parted.fork(reseed=False)
        said.append(parted.generate(54))
        assert branch.generate(54).tokens == said[-1].tokens
    assert [token for answer in said for token in answer.tokens] == list(expected.tokens)


def test_forks_compute_nothing_of_what_they_share(host: Host) -> None:
    with session(host) as root:
        root.generate(7)
        before = rows(host)
        forks = root.fork(4)
        answers = [fork.generate(5) for fork in forks]
        computed = sum(len(answer.tokens) for answer in answers)
        assert rows(host) - before == computed, "each computes its own tokens: the last one said, and its own but one"
        assert [answer.facts.reused_tokens for answer in answers] == [56] * 4
        assert len({answer.tokens for answer in answers}) > 1, "each draws with a seed of its own"


def test_a_fork_without_a_new_seed_says_what_its_parent_says(host: Host) -> None:
    with session(host) as root:
        root.generate(7)
        (twin,) = root.fork(reseed=False)
        assert twin.generate(5).tokens == root.generate(5).tokens


def test_a_fork_says_what_the_same_tokens_say_alone(host: Host, tiny: Pair) -> None:
    with session(host) as root:
        root.generate(9)
        fork = root.fork(3)[2]
        history = fork.tokens
        said = fork.generate(8, seed=None).tokens
        seed = fork._history.parts[-1].sampling.seed  # type: ignore[union-attr]
    begun = History().fed(history[:50]).spoken(history[50:], Sampling(temperature=1.0, seed=seed), whole=False)
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as alone, Session(alone, history=begun) as fresh:
        told = fresh.generate(8)
    assert told.tokens == said
    assert told.facts.reused_tokens == 0


def test_rolled_back_and_drawn_again_with_the_same_seed_it_says_the_same(host: Host) -> None:
    with session(host) as one:
        one.mark("asked")
        first = one.generate(10)
        before = rows(host)
        assert one.rollback("asked") == 10
        assert rows(host) == before
        again = one.generate(10)
        assert again.tokens == first.tokens
        assert again.facts.reused_tokens == 49, "all but the last token of the prompt"
        one.rollback("asked")
        assert one.generate(10, seed=6).tokens != first.tokens


def test_a_rollback_into_an_answer_redraws_what_was_said_there(host: Host) -> None:
    with session(host) as one:
        said = one.generate(10).tokens
        assert one.rollback(54) == 6
        assert (one.said, one.tokens[50:]) == (4, said[:4])
        assert one.generate(6).tokens == said[4:]


def test_a_mark_of_a_mark_is_another_and_the_same_name_moves(host: Host) -> None:
    with session(host) as one:
        early = one.mark("place")
        one.generate(4)
        one.mark("place")
        one.generate(4)
        assert one.rollback("place") == 4
        assert one.rollback(early) == 4, "a mark that was moved is still a place in the past"
        one.unmark("place")
        with pytest.raises(UnknownMark, match="there are none"):
            one.rollback("place")


def test_marks_survive_eviction_with_time_and_the_same_answer(tiny: Pair) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=128)) as small:
        with session(small) as one:
            one.mark("asked")
            first = one.generate(10)
            with session(small, prompt=110, program="other") as other:
                other.rollback(0)
                other.feed(draw(110, seed=9))
                other.generate(8)
            one.rollback("asked")
            again = one.generate(10)
            assert again.tokens == first.tokens
            assert again.facts.reused_tokens < 49


def test_a_fork_at_a_mark_goes_there_and_leaves_its_parent_where_it_is(host: Host) -> None:
    with session(host) as one:
        one.mark("asked")
        one.generate(10)
        (branch,) = one.fork(at="asked")
        assert (len(branch.tokens), len(one.tokens)) == (50, 60)
        assert branch.generate(3).facts.reused_tokens == 49


def test_going_back_behind_a_live_fork_is_refused_and_allowed_once_it_is_closed(host: Host) -> None:
    with session(host) as one:
        one.mark("asked")
        one.generate(5)
        forks = one.fork(2)
        with pytest.raises(ForkAlive, match="2 forks live that began behind token 50"):
            one.rollback("asked")
        assert len(one.tokens) == 55
        forks[0].close()
        del forks[1]
        gc.collect()
        assert one.rollback("asked") == 5


def test_marks_of_elsewhere_are_refused(host: Host, tiny: Pair, packaged: Pair) -> None:
    with session(host) as one, session(host, tenant="b") as other:
        mark = one.mark("here")
        with pytest.raises(ForeignMark, match="another tenant"):
            other.rollback(mark)
        with pytest.raises(UnknownMark, match=r"'nowhere' in this session: here"):
            one.rollback("nowhere")
        with Host(TorchEngine(packaged.ours, pool_tokens=2048)) as larger, Session(larger) as third:
            with pytest.raises(ForeignMark, match="another model"):
                third.fork(at=mark)
        one.rollback(10)
        one.feed([1, 2, 3])
        with pytest.raises(ForeignMark, match="gone another way"):
            one.rollback(mark)


def test_messages_and_answers_alternate_and_only_the_new_ones_are_computed(host: Host) -> None:
    with Session(host, sampling=WARM) as talk:
        talk.read([Message("user", "hello " * 8)])
        first = talk.generate(9)
        talk.read([Message("user", "and")])
        assert talk.tokens[: len(talk.tokens)].count(first.tokens[0]) >= 1
        known = first.facts.prompt_tokens + 8
        assert talk.generate(3).facts.reused_tokens == known
        assert talk._history.messages() is not None


def test_what_was_fed_cannot_be_read_on(host: Host) -> None:
    with session(host) as one:
        with pytest.raises(BadMessage, match="fed with tokens"):
            one.read([Message("user", "hello")])
        one.generate(2)
        with pytest.raises(ValueError, match="keeps its seed"):
            one.generate(2, seed=3)


def test_closing_lets_everything_go_and_forgetting_to_does_too(host: Host) -> None:
    one = session(host)
    one.mark("a")
    one.generate(5)
    forks = one.fork(2)
    one.close()
    one.close()
    with pytest.raises(SessionClosed):
        one.generate()
    assert forks[0].generate(2).facts.reused_tokens == 54, "forks live on"
    assert "held by 2" in host.loop.ask()
    del forks
    gc.collect()
    assert "0 held by 0" in host.loop.ask()
    assert not host.loop.kernel.books.programs


async def test_one_caller_at_a_time(tiny: Pair) -> None:
    gate = Gated(tiny.ours)
    with Host(gate) as host, session(host) as one:
        task = asyncio.ensure_future(one.agenerate(4))
        await asyncio.to_thread(gate.wait)
        with pytest.raises(Busy, match="one caller"):
            one.fork()
        task.cancel()
        gate.open()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(one.tokens) == 50, "it stands where it stood"
        assert len((await one.agenerate(4)).tokens) == 4


async def test_an_aborted_answer_keeps_what_was_said_and_goes_on(tiny: Pair) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as host, session(host) as whole:
        expected = whole.generate().tokens
    gate = Gated(tiny.ours)
    with Host(gate) as host, session(host) as one:
        task = asyncio.ensure_future(one.agenerate(12))
        for _ in range(4):
            await asyncio.to_thread(gate.wait)
            gate.let()
        await asyncio.to_thread(gate.wait)
        assert host.abort() == 1
        gate.open()
        answer = await task
        assert (answer.reason, one.said) == ("abort", len(answer.tokens))
        assert answer.tokens == expected[: len(answer.tokens)]
        rest = await one.agenerate(12 - len(answer.tokens))
        assert answer.tokens + rest.tokens == expected


def test_a_session_without_tokens_is_refused_and_stands_where_it_stood(host: Host) -> None:
    with Session(host) as empty:
        with pytest.raises(Refused, match="no tokens"):
            empty.generate()
        assert empty.tokens == ()
        with pytest.raises(ValueError, match="at least one branch"):
            empty.fork(0)
