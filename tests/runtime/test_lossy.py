"""Conversations that are stored in fewer bytes: they go on, are marked, and nothing exact ever meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from sostenuto.kvstore import CODEC_NAMES, CodecName, Mismatch, codec_name, is_exact, root
from sostenuto.kvstore.codecs import CODECS, named
from sostenuto.kvstore.tiers import DiskTier, HostTier
from sostenuto.runtime.ask import Ask
from sostenuto.runtime.below import Below
from sostenuto.runtime.call_facts import kv_attributes
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import BadRollout, Unable
from sostenuto.runtime.host import Host
from sostenuto.runtime.rollout import Rollout, Rules, rollout
from sostenuto.runtime.session import Session
from sostenuto.scheduler import Interrupted, ProgramId
from sostenuto.tracing import Options, names, records_of, use

from .conftest import Pair, Stage, Told, draw, read

pytestmark = pytest.mark.every_way

Stages = Callable[..., Stage]
LOSSY = [codec for codec in CODEC_NAMES if not is_exact(codec)]


def pause(stage: Stage, tokens: list[int], codec: str = "raw", program: str = "a") -> Told:
    """A turn that calls a tool, which asks a person; what it leaves is in the tier when this returns."""
    told = read(stage.submit(tokens, program, tools_called=lambda text, reason: ("ask",), codec=codec))
    stage.loop.tell(Interrupted(ProgramId(program)))
    stage.loop.ask()
    stage.loop.within(stage.loop.mover.settled("host")).result()
    return told


def rivals(stage: Stage) -> None:
    """Others that need all of a pool of 128 tokens, one after the other."""
    for number in range(3):
        stage.say(draw(100, seed=50 + number), f"rival {number}", max_tokens=4)


def opened(tiny: Pair, *tiers: HostTier | DiskTier, pool: int = 256) -> Host:
    return Host(TorchEngine(tiny.ours, pool_tokens=pool), below=[Below(tier) for tier in tiers])


def test_the_codecs_that_can_be_chosen_are_those_that_there_are() -> None:
    assert tuple(codec.name for codec in CODECS) == CODEC_NAMES
    assert [codec.exact for codec in CODECS] == [is_exact(codec) for codec in CODEC_NAMES]
    chosen: CodecName = codec_name("int8")
    assert named(chosen).name == "int8"


def test_exact_roots_are_what_they_always_were_and_every_codec_has_its_own() -> None:
    told: dict[str, Any] = {"model": "m", "tenant": "t", "adapter": "a", "weights": "w"}
    assert root(**told).hex() == "53a6893464afabf11b43b70a85342c6e"
    assert root(model="m").hex() == "99800c58ece46ba9f98dafb674e7f4b8"
    assert root(model="m", exact=False).hex() == "27dfb2bb4612c1c88edf24996f36df0a"
    assert len({root(**told, codec=codec) for codec in CODEC_NAMES} | {root(**told, exact=False)}) == 6
    assert root(**told, codec="int8") == root(**told, codec="int8", exact=False)


@pytest.mark.parametrize("codec", LOSSY)
def test_a_lossy_conversation_comes_back_from_host_memory_in_fewer_bytes_and_says_so(
    tiny: Pair, stages: Stages, codec: str
) -> None:
    tier, exact = HostTier(), HostTier()
    stage = stages(tiny.ours, pool=128, below=[Below(tier)])
    first = pause(stage, draw(60), codec)
    pause(stages(tiny.ours, pool=128, below=[Below(exact)]), draw(60))
    assert len(tier._records) == len(exact._records) == 9
    assert tier.bytes < exact.bytes / 2
    rivals(stage)
    facts = stage.say([*draw(60), *first.tokens, *draw(6, seed=7)], "a", codec=codec).end.facts
    assert (facts.reused_tokens, facts.computed_tokens, facts.tier) == (67, 7, "host")
    assert (facts.codec, facts.exact) == (codec, False)
    assert kv_attributes(facts)[names.KV_CODEC] == codec


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("where", ["on the device", "below it"])
def test_an_exact_conversation_of_the_same_tokens_meets_nothing_of_it(
    tiny: Pair, stages: Stages, codec: str, where: str
) -> None:
    stage = stages(tiny.ours, pool=128, below=[Below(HostTier())])
    first = pause(stage, draw(60), codec)
    if where == "below it":
        rivals(stage)
    tokens = [*draw(60), *first.tokens, *draw(6, seed=7)]
    exact = stage.say(tokens, "b")
    assert (exact.end.facts.reused_tokens, exact.end.facts.tier) == (0, "device")
    assert (exact.end.facts.codec, exact.end.facts.exact) == ("raw", True)
    assert names.KV_CODEC not in kv_attributes(exact.end.facts)
    undisturbed = stages(tiny.ours, policy="forgetful").say(tokens)
    assert exact.tokens == undisturbed.tokens
    assert [each.logprob for each in exact.pieces] == [each.logprob for each in undisturbed.pieces]


def test_what_is_exact_on_the_device_is_not_lent_to_a_lossy_conversation(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    stage.say(draw(60), "a")
    assert stage.say(draw(60), "b").end.facts.reused_tokens == 59
    assert stage.say(draw(60), "c", codec="fp8").end.facts.reused_tokens == 0
    assert stage.say(draw(60), "d", codec="int8").end.facts.reused_tokens == 0
    assert stage.say(draw(60), "e", codec="int8").end.facts.reused_tokens == 59


def test_a_lossy_session_says_so_and_so_do_its_forks(tiny: Pair) -> None:
    with opened(tiny) as host, Session(host, codec="int8") as session, Session(host) as exact:
        session.feed(draw(20))
        answer = session.generate(max_tokens=5)
        assert (answer.facts.codec, answer.facts.exact) == ("int8", False)
        assert (session.codec, exact.codec) == ("int8", "raw")
        assert repr(session) == "<Session 25 tokens, 5 of an answer | 0 forks, 0 marks | lossy: int8>"
        assert "lossy" not in repr(exact)
        session.mark("here")
        (fork,) = session.fork()
        assert fork.codec == "int8"
        assert fork.generate(max_tokens=4).facts.reused_tokens == 24
        fork.close()
        session.rollback(20)
        assert session.generate(max_tokens=4).facts.reused_tokens == 19


def test_a_durable_mark_is_restored_into_a_session_of_its_codec_and_into_no_other(tiny: Pair, tmp_path: Path) -> None:
    with opened(tiny, DiskTier.open(tmp_path)) as host, Session(host, codec="int8") as session:
        session.feed(draw(60))
        session.generate(max_tokens=9)
        session.mark("noon", durable=True)
    with opened(tiny, DiskTier.open(tmp_path)) as host:
        with pytest.raises(Mismatch, match="codec is 'int8', wanted 'raw'; exact is False, wanted True"):
            Session.restore(host, "noon")
        with pytest.raises(Mismatch, match="codec is 'int8', wanted 'fp8'"):
            Session.restore(host, "noon", codec="fp8")
        with Session.restore(host, "noon", codec="int8") as session:
            facts = session.generate(max_tokens=9).facts
    assert (facts.reused_tokens, facts.computed_tokens, facts.tier, facts.codec) == (68, 1, "disk", "int8")


def test_a_parcel_is_smaller_and_goes_on_in_a_session_of_its_codec_and_in_no_other(tiny: Pair) -> None:
    sizes = {}
    for codec in ("raw", "rotated3"):
        with opened(tiny, HostTier()) as here, opened(tiny, HostTier()) as there:
            with Session(here, codec=codec) as session:
                session.feed(draw(60))
                session.generate(max_tokens=9)
                parcel = session.pack()
            other = "raw" if codec != "raw" else "int8"
            with pytest.raises(Mismatch, match=f"codec is '{codec}', wanted '{other}'"):
                Session.unpack(there, parcel, codec=other)
            with Session.unpack(there, parcel, codec=codec) as session:
                facts = session.generate(max_tokens=9).facts
        assert (facts.reused_tokens, facts.tier, facts.codec) == (68, "host", codec)
        sizes[codec] = len(parcel)
    assert sizes["rotated3"] < sizes["raw"] / 2


def test_new_weights_are_not_told_what_older_ones_stored(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours, pool=128, below=[Below(HostTier())])
    pause(stage, draw(60), "int8")
    stage.loop.update(lambda version: None, None, kv="salt", running="refuse").result()
    assert stage.say(draw(60), "a", codec="int8").end.facts.reused_tokens == 0
    pause(stage, draw(60, seed=1), "int8", "b")
    rivals(stage)
    again = stage.say(draw(60, seed=1), "b", codec="int8").end.facts
    assert (again.reused_tokens, again.tier) == (59, "host")


UNKNOWN = "codec 'zip' is unknown: give one of raw, fp8, int8, rotated4, rotated3"


def test_an_unknown_codec_is_refused_with_those_that_there_are(tiny: Pair, tmp_path: Path) -> None:
    with opened(tiny, DiskTier.open(tmp_path)) as host:
        refused: list[Callable[[], Any]] = [
            lambda: Session(host, codec="zip"),
            lambda: Session.restore(host, "noon", codec="zip"),
            lambda: Session.unpack(host, b"", codec="zip"),
            lambda: Ask((), codec="zip"),
        ]
        for each in refused:
            with pytest.raises(ValueError, match=UNKNOWN):
                each()


def test_an_engine_that_keeps_its_contexts_to_itself_is_asked_for_no_codec(
    tiny: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchEngine, "can", TorchEngine.can.__class__(tokens=True, preempt=True, resume=True))
    with opened(tiny) as host, Session(host, codec="int8") as session:
        session.feed(draw(20))
        with pytest.raises(Unable, match="keeps its contexts to itself: ask it without the codec int8"):
            session.generate(max_tokens=4)


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    use(Options(provider))
    yield kept
    use(None)


def test_spans_of_a_lossy_conversation_carry_its_codec_and_those_of_an_exact_one_none(
    tiny: Pair, exporter: InMemorySpanExporter
) -> None:
    with opened(tiny) as host:
        for codec in ("raw", "int8"):
            with Session(host, codec=codec) as session:
                session.feed(draw(20))
                session.generate(max_tokens=2)
    found = [one for one in records_of(exporter.get_finished_spans()) if one.name == "chat tiny"]
    assert [one.attributes.get(names.KV_CODEC) for one in found] == [None, "int8"]


async def test_samples_of_a_lossy_session_are_marked_also_after_they_were_written_down(tiny: Pair) -> None:
    with opened(tiny) as host:
        for codec in ("raw", "int8"):
            with Session(host, codec=codec) as session:
                made = await rollout(session, draw(20), n=2, rules=Rules(max_tokens=4, seed=1))
            assert [sample.exact for sample in made.samples()] == [is_exact(codec)] * 2
            again = Rollout.from_json(made.to_json())
            assert again == made
            assert [sample.exact for sample in again.samples()] == [is_exact(codec)] * 2


async def test_a_rollout_that_must_be_exact_refuses_a_lossy_session(tiny: Pair) -> None:
    rules = Rules(max_tokens=4, exact=True)
    with opened(tiny) as host:
        with Session(host, codec="int8") as session:
            with pytest.raises(BadRollout, match=r"lossy, by the codec int8, .* the rules ask for exact samples"):
                await rollout(session, draw(20), rules=rules)
        with Session(host) as session:
            assert [sample.exact for sample in (await rollout(session, draw(20), rules=rules)).samples()] == [True]
