"""Sessions that were cut to a budget: what is lost on the way and what comes of it, and what is told and recorded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from safetensors.torch import load_file

from sostenuto.runtime.answer import Answer
from sostenuto.runtime.doors.langgraph_messages import write_message
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import Source
from sostenuto.runtime.errors import BadRollout, Busy, ContextLost, HostClosed, Refused
from sostenuto.runtime.host import Host
from sostenuto.runtime.journal import replay
from sostenuto.runtime.request import Request
from sostenuto.runtime.rollout import Group, Rules, rollout
from sostenuto.runtime.rollout.record import Rollout
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import Effect, Forget, Keep, Preempt, Refuse, Start, Thin
from sostenuto.tracing import ModelCall, Options, Record, model_span, names, records_of, use

from .conftest import Gated, Pair, build, draw, read
from .thinned import COLD, Slow, aside, crowd, session

pytestmark = pytest.mark.every_way


@pytest.fixture
def host(tiny: Pair) -> Iterator[Host]:
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as opened:
        yield opened
        assert "0 waiting | 0 running" in opened.loop.ask()


# -- what is lost


def test_what_was_lost_is_thinned_anew_from_all_tokens_and_costs_time_alone(tiny: Pair) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as free, session(free) as alone:
        alone.thin("keydiff", budget=27)
        alone.generate()
        alone.feed(draw(5, seed=3))
        expected = alone.generate()
    effects = list[Effect]()
    with Host(TorchEngine(tiny.ours, pool_tokens=128)) as host, session(host) as talk:
        host.loop.watch(effects.append)
        talk.thin("keydiff", budget=27)
        talk.generate()
        talk.feed(draw(5, seed=3))
        crowd(host)
        said = talk.generate()
        assert said.tokens == expected.tokens
        assert said.logprobs == pytest.approx(expected.logprobs, abs=tiny.tolerance)
        assert (said.facts.exact, talk.exact) == (False, False)
        host.loop.ask()
        assert [effect.lost for effect in effects if isinstance(effect, Refuse)] == [True]
        assert sum(isinstance(effect, Thin) for effect in effects) == 2
        crowd(host)
        talk.feed(draw(3, seed=4))
        assert len(asyncio.run(talk.agenerate()).tokens) == 8, "and so in a coroutine"
    assert sum(isinstance(effect, Thin) for effect in effects) == 3


def test_what_is_lost_twice_is_said_and_the_conversation_stands_where_it_stood(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=128)) as host, session(host) as talk:
        talk.thin("streaming", budget=27)
        crowd(host)
        ask = host.resume

        def resume(*args: Any, **rest: Any) -> Any:
            if rest["remnant"] is not None:
                crowd(host)
            return ask(*args, **rest)

        monkeypatch.setattr(host, "resume", resume)
        with pytest.raises(ContextLost, match="thin it anew"):
            talk.generate()
        assert len(talk.tokens) == 90
        monkeypatch.undo()
        assert len(talk.generate().tokens) == 8


@pytest.mark.parametrize(("pool", "lost"), [(128, False), (96, True)])
def test_two_that_do_not_fit_beside_each_other_say_what_each_says_alone(tiny: Pair, pool: int, lost: bool) -> None:
    """One is preempted in the middle of its answer, and finds what it stood on, or does not."""
    with Host(TorchEngine(tiny.ours, pool_tokens=pool)) as host:
        expected = []
        for seed in (1, 2):
            with session(host, draw(60, seed=seed), sampling=Sampling(max_tokens=60)) as talk:
                talk.thin("streaming", budget=27)
                expected.append(talk.generate().tokens)
        talks = [session(host, draw(60, seed=seed), sampling=Sampling(max_tokens=60)) for seed in (1, 2)]
        for talk in talks:
            talk.thin("streaming", budget=27)
        effects, gate = list[Effect](), threading.Event()
        host.loop.watch(effects.append)

        async def both() -> list[Answer]:
            waits = asyncio.wrap_future(host.loop.within(host.loop.aside(gate.wait)))  # no step runs
            saying = [asyncio.create_task(talk.agenerate()) for talk in talks]
            await asyncio.sleep(0)  # now both have asked
            gate.set()
            await waits
            return list(await asyncio.gather(*saying))

        assert [answer.tokens for answer in asyncio.run(both())] == expected
        host.loop.ask()
        assert any(isinstance(effect, Preempt) for effect in effects)
        assert any(isinstance(effect, Refuse) and effect.lost for effect in effects) == lost
        for talk in talks:
            talk.close()


def test_new_weights_make_what_older_ones_left_unreachable(tmp_path: Path, way: Way) -> None:
    folder = build(tmp_path, model_type="llama")
    model = Model.load(Source(str(folder), "mine"), dtype="float32", page=8, way=way)
    generator = torch.Generator().manual_seed(1)
    own = load_file(tmp_path / "model.safetensors")
    other = {key: value + 0.05 * torch.randn(value.shape, generator=generator) for key, value in own.items()}
    with Host(TorchEngine(model, pool_tokens=2048)) as host, session(host) as talk:
        talk.thin("streaming", budget=27)
        before = talk.generate()
        talk.rollback(90)
        host.update_weights(other.items(), kv="keep")
        kept = talk.generate()
        assert kept.facts.stale_tokens == kept.facts.reused_tokens == 27
        talk.rollback(90)
        host.update_weights({key: value + 0.01 for key, value in other.items()}.items(), kv="salt")
        after = talk.generate()
        assert (after.facts.stale_tokens, after.facts.reused_tokens, talk.exact) == (0, 27, False)
        assert len({before.logprobs, kept.logprobs, after.logprobs}) == 3


# -- what can go wrong on the way


def test_a_host_that_is_closed_meanwhile_ends_it(tiny: Pair) -> None:
    engine = Slow(tiny)
    host = Host(engine)
    talk = session(host)
    thread, came = aside(lambda: talk.thin("streaming", budget=20))
    engine.begun.wait()
    closing = threading.Thread(target=host.close)
    closing.start()
    thread.join()
    engine.let.set()
    closing.join()
    assert [type(one) for one in came] == [HostClosed]
    host.loop.kernel.books.check()


def test_a_turn_that_is_aborted_before_the_context_is_computed_leaves_nothing_held(tiny: Pair) -> None:
    engine = Gated(tiny.ours)
    with Host(engine) as host, session(host) as talk:
        thread, came = aside(lambda: talk.thin("streaming", budget=20))
        engine.wait()
        host.abort()
        engine.open()
        thread.join()
        assert [type(one) for one in came] == [Busy]
        assert talk.exact
        assert "0 running | <Ledger 0/256 taken" in host.loop.ask()


def test_new_weights_meanwhile_end_it_and_nothing_of_it_is_kept(tiny: Pair) -> None:
    engine = Slow(tiny)
    with Host(engine) as host, session(host) as talk:
        thread, came = aside(lambda: talk.thin("streaming", budget=20))
        engine.begun.wait()
        changed = host.loop.update(lambda version: None, None, kv="salt", running="refuse")
        host.loop.ask()
        engine.let.set()
        assert changed.result() == 1
        thread.join()
        assert [type(one) for one in came] == [Busy]
        assert talk.exact
        assert "0 running | <Ledger 0/256 taken" in host.loop.ask()


def test_a_turn_that_is_aborted_in_the_middle_of_the_context_leaves_nothing_held(tiny: Pair) -> None:
    engine = Gated(tiny.ours, chunk=16)
    with Host(engine) as host, session(host) as talk:
        thread, came = aside(lambda: talk.thin("streaming", budget=20))
        engine.let(2)
        for _ in range(3):
            engine.wait()
        host.abort()
        engine.open()
        thread.join()
        assert [type(one) for one in came] == [Busy]
        assert "0 running | <Ledger 0/256 taken | 4 cached" in host.loop.ask(), "what was computed can be found"


def test_nobody_elses_mark_gives_way_before_the_sessions_own(tiny: Pair) -> None:
    effects = list[Effect]()
    with Host(TorchEngine(tiny.ours, pool_tokens=104)) as host, session(host, draw(16, seed=7)) as other:
        other.generate(1)
        with session(host, draw(70)) as talk:
            talk.generate()
            host.loop.ask()
            host.loop.watch(effects.append)
            assert talk.thin("streaming", budget=60) == 17
            host.loop.ask()
            assert sum(isinstance(effect, Forget) for effect in effects) == 1, (
                "of the whole context, whose time is over"
            )
        assert other.generate(1).facts.reused_tokens == 16


async def test_what_is_done_aside_comes_after_every_copy_that_was_asked_for(tiny: Pair) -> None:
    done: list[str] = []

    class Flushed(TorchEngine):
        def flush(self) -> None:
            done.append("copies")
            super().flush()

    with Host(Flushed(tiny.ours, pool_tokens=512)) as host:
        for _ in range(2):
            host.loop.within(host.loop.aside(done.append, "work")).result()
    assert done == ["copies", "work"] * 2, "else a copy may be made over what was written"


def test_a_pool_that_cannot_hold_the_context_refuses_to_thin_it(tiny: Pair) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=64)) as host, session(host) as talk:
        with pytest.raises(Refused, match="the pool has 8"):
            talk.thin("streaming", budget=20)
        assert talk.exact


def test_a_context_is_thinned_in_a_pool_that_it_fills(tiny: Pair) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=96)) as host, session(host, draw(95)) as talk:
        assert talk.thin("streaming", budget=40) == 54
        assert len(talk.generate(30).tokens) == 30, "which would not have fitted before"
        assert not talk.exact


def test_one_caller_at_a_time(tiny: Pair) -> None:
    engine = Slow(tiny)
    with Host(engine) as host, session(host) as talk:
        thread, came = aside(lambda: talk.thin("streaming", budget=20))
        engine.begun.wait()
        with pytest.raises(Busy):
            talk.generate()
        engine.let.set()
        thread.join()
        assert came == [69]


def test_others_say_their_words_while_a_context_is_thinned(tiny: Pair) -> None:
    engine, started = Slow(tiny, chunk=8), threading.Event()
    with Host(engine) as host, session(host) as talk, session(host, draw(30, seed=8)) as other:
        thread, came = aside(lambda: talk.thin("h2o", budget=20))
        engine.begun.wait()
        host.loop.watch(lambda effect: started.set() if isinstance(effect, Start) else None)
        engine.log.clear()
        answering, told = aside(other.generate)
        started.wait()
        engine.let.set()
        answering.join()
        thread.join()
        assert came == [69]
        assert [len(one.tokens) for one in told if isinstance(one, Answer)] == [8]
        assert "cut step cut step cut step" in " ".join(engine.log), "by turns"


# -- the record


def test_the_journal_replays(tiny: Pair, tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    with Host(TorchEngine(tiny.ours, pool_tokens=128), journal=path) as host, session(host) as talk:
        talk.thin("h2o", budget=27)
        talk.generate()
        crowd(host)
        talk.generate()
        talk.fork(2)
    kernel, count = replay(path)
    assert count > 20
    kernel.books.check()
    text = path.read_text()
    assert all(f'"kind":"{kind}"' in text for kind in ("Thinning", "Thinned", "Placed", "Thin", "Place"))
    assert text.count('"kind":"NeedRoom"') <= 6, "nobody asks for more pages than it has slots for"


def test_what_is_left_is_kept_until_the_session_is_closed(host: Host) -> None:
    effects = list[Effect]()
    host.loop.watch(effects.append)
    with session(host) as talk:
        talk.thin("streaming", budget=20)
        assert "3 held by 1" in host.loop.ask()
        talk.generate()
        talk.mark("here")
        assert "4 held by 2" in host.loop.ask()
    host.loop.ask()
    assert [effect.tokens for effect in effects if isinstance(effect, Keep)] == [20, 28, 28], "with what was said"
    assert [effect.tokens for effect in effects if isinstance(effect, Forget)] == [28, 28]
    assert "0 held by 0" in repr(host)


def test_a_thinned_answer_is_marked_wherever_it_is_told(host: Host) -> None:
    with session(host) as talk:
        talk.generate()
        talk.thin("keydiff", budget=27)
        assert repr(talk).endswith("| lossy: <Remnant 27/97 by keydiff>>")
        talk.feed([5])
        answer = talk.generate()
    facts = answer.facts
    assert (facts.prompt_tokens, facts.dropped_tokens, facts.reused_tokens, facts.computed_tokens) == (99, 70, 27, 2)
    assert (facts.exact, facts.lost_tokens) == (False, 0)
    message = write_message(answer, model="m", fingerprint="f")
    assert message.response_metadata["sostenuto"]["turn"]["dropped_tokens"] == 70


@pytest.fixture
def spans() -> Iterator[Callable[[], list[Record]]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    use(Options(provider))
    yield lambda: list(records_of(exporter.get_finished_spans()))
    use(None)


def test_spans_say_what_was_thinned_and_which_answers_stand_on_it(
    host: Host, spans: Callable[[], list[Record]]
) -> None:
    with session(host) as talk, model_span(ModelCall("outer")) as outer:
        talk.generate()
        talk.thin("keydiff", budget=27)
        talk.generate()
    every = spans()
    cut = next(one for one in every if one.name == names.KV_THIN)
    assert cut.parent_id == f"{outer.context.span_id:016x}"
    assert (cut.attributes[names.KV_TOKENS], cut.attributes[names.KV_DROPPED_TOKENS]) == (97, 70)
    assert {one.name for one in every if one.parent_id == cut.span_id} == {"queue", "prefill", "decode"}
    whole, less = [one.attributes for one in every if one.name == "chat tiny"]
    assert names.KV_EXACT not in whole
    assert (less[names.KV_EXACT], less[names.KV_DROPPED_TOKENS]) == (False, 70)


def test_holds_and_what_takes_them_up_say_that_they_are_of_a_thinned_context(
    host: Host, spans: Callable[[], list[Record]]
) -> None:
    with session(host) as talk, model_span(ModelCall("outer")) as outer:
        talk.thin("keydiff", budget=27)
        remnant = talk.mark("here").remnant

        def say(tokens: tuple[int, ...]) -> tuple[int, ...]:
            wanted = Request("p", "b", tokens, COLD, remnant=remnant, place=outer.context)
            pauses = replace(wanted, tools_called=lambda text, reason: ("search",))
            return (*tokens, *read(host.loop.submit(pauses)).tokens)

        say(say(talk.tokens))
    told = {one.name: one.attributes for one in spans() if one.name in (names.KV_HOLD, names.KV_RESTORE)}
    assert [told[name][names.KV_EXACT] for name in (names.KV_HOLD, names.KV_RESTORE)] == [False, False]
    assert told[names.KV_RESTORE][names.KV_RECOMPUTED_TOKENS] == 0


def test_rollouts_say_which_samples_were_said_over_a_thinned_context(host: Host) -> None:
    rules = Rules(turns=1, max_tokens=6, seed=1)
    with session(host) as talk:
        talk.thin("streaming", budget=27)
        made = asyncio.run(rollout(talk, draw(8, seed=2), n=2, rules=rules))
        assert [sample.exact for sample in made.samples()] == [False, False]
        again = Rollout.from_json(made.to_json())
        assert again == made
    with session(host) as plain, Group(plain, draw(8, seed=2), n=1, rules=rules) as group:
        whole = asyncio.run(group.run())
        assert [sample.exact for sample in whole.samples()] == [True]
        older = whole.to_json().replace(',"exact":true', "").replace('"mode":"exact",', "")
        assert "exact" not in older
        assert Rollout.from_json(older) == whole
        with pytest.raises(BadRollout, match="expected true or false"):
            Rollout.from_json(whole.to_json().replace('"exact":true', '"exact":1'))
