"""Contexts in host memory and on a disk: what left the device comes back, bit for bit, and computes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore import BlockHash
from sostenuto.kvstore.errors import BadRecord, Mismatch, TierGone
from sostenuto.kvstore.tiers import DiskTier, HostTier
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import Unable, UnknownMark
from sostenuto.runtime.host import Host
from sostenuto.runtime.journal import replay
from sostenuto.runtime.loop import Loop
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session
from sostenuto.runtime.ticket import Ticket
from sostenuto.scheduler import Drop, Effect, Interrupted, Move, ProgramId, Start, named

from .conftest import Pair, Stage, Told, draw, read, still

pytestmark = pytest.mark.every_way

Stages = Callable[..., Stage]


def flush(stage: Stage) -> None:
    """Until everything that is on its way to or from a tier is there."""
    still(stage.loop)


def pause(stage: Stage, tokens: Sequence[int], program: str = "a", **rest: Any) -> Told:
    """A turn that ends by calling a tool, which asks a person; what it leaves is copied when this returns."""
    told = read(stage.submit(tokens, program, tools_called=lambda text, reason: ("ask",), **rest))
    stage.loop.tell(Interrupted(ProgramId(program)))
    flush(stage)
    return told


def rivals(stage: Stage, count: int = 3) -> None:
    """Others that need all of a pool of 128 tokens, one after the other."""
    for number in range(count):
        stage.say(draw(100, seed=50 + number), f"rival {number}", max_tokens=4)


def longer(tokens: Sequence[int], told: Told) -> list[int]:
    """The next prompt of the same conversation."""
    return [*tokens, *told.tokens, *draw(6, seed=7)]


@pytest.fixture
def undisturbed(tiny: Pair, stages: Stages) -> Callable[[Sequence[int]], Told]:
    """What is said where nothing was ever there before."""
    return lambda tokens: stages(tiny.ours, policy="forgetful").say(tokens)


def test_what_gave_way_is_fetched_from_host_memory_and_computes_only_what_is_new(
    tiny: Pair, stages: Stages, undisturbed: Callable[[Sequence[int]], Told]
) -> None:
    stage = stages(tiny.ours, pool=128, below=[Below(HostTier())])
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    first = pause(stage, draw(60))
    rivals(stage)
    tokens = longer(draw(60), first)
    again = stage.say(tokens, "a")
    assert (again.end.facts.reused_tokens, again.end.facts.computed_tokens) == (67, 7)
    assert (again.end.facts.tier, again.end.facts.why) == ("host", "fetched from host")
    assert again.tokens == undisturbed(tokens).tokens
    moves = [(move.source, move.target) for move in effects if isinstance(move, Move)]
    assert moves == [("device", "host"), ("host", "device")]


def test_what_is_on_the_device_still_is_not_fetched(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours, below=[Below(HostTier())])
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    first = pause(stage, draw(60))
    again = stage.say(longer(draw(60), first), "a")
    assert (again.end.facts.reused_tokens, again.end.facts.tier) == (67, "device")
    assert [move.target for move in effects if isinstance(move, Move)] == ["host"]


def test_what_lies_in_a_tier_already_is_not_copied_again(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours, below=[Below(HostTier())])
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    first = pause(stage, draw(60))
    pause(stage, longer(draw(60), first))
    copied = [block.name for move in effects if isinstance(move, Move) for block in move.blocks]
    assert len(copied) == len(set(copied))


@pytest.mark.parametrize("paused", ["a tool", "a person"])
def test_a_later_process_goes_on_without_computing_what_an_earlier_one_has(
    tiny: Pair, stages: Stages, tmp_path: Path, undisturbed: Callable[[Sequence[int]], Told], paused: str
) -> None:
    engine = TorchEngine(tiny.ours, pool_tokens=128)
    with Loop(engine, named("sostenuto"), below=[Below(DiskTier.open(tmp_path))]) as loop:
        first = read(Stage(loop).submit(draw(60), "a", tools_called=lambda text, reason: ("ask",)))
        if paused == "a person":
            loop.tell(Interrupted(ProgramId("a")))
    stage = stages(tiny.ours, pool=128, below=[Below(DiskTier.open(tmp_path))])
    tokens = longer(draw(60), first)
    again = stage.say(tokens, "a")
    assert (again.end.facts.reused_tokens, again.end.facts.computed_tokens) == (67, 7)
    assert again.end.facts.tier == "disk"
    assert again.tokens == undisturbed(tokens).tokens


def test_a_folder_that_holds_more_than_it_may_lets_the_oldest_go_when_it_is_opened(
    tiny: Pair, stages: Stages, tmp_path: Path
) -> None:
    engine = TorchEngine(tiny.ours, pool_tokens=256)
    with Loop(engine, named("sostenuto"), below=[Below(DiskTier.open(tmp_path))]) as loop:
        told = [pause(Stage(loop), draw(60, seed=seed), f"p{seed}") for seed in range(3)]
    stage = stages(tiny.ours, pool=256, below=[Below(DiskTier.open(tmp_path), 96)])
    flush(stage)
    assert stage.loop.kernel.moves.elsewhere.count("disk") == 12
    newest, oldest = (stage.say(longer(draw(60, seed=seed), told[seed]), f"q{seed}") for seed in (2, 0))
    assert [each.end.facts.reused_tokens for each in (newest, oldest)] == [67, 0]


def test_another_tenant_with_the_same_tokens_is_served_nothing(tiny: Pair, stages: Stages, tmp_path: Path) -> None:
    stage = stages(tiny.ours, pool=128, below=[Below(HostTier()), Below(DiskTier.open(tmp_path))])
    first = pause(stage, draw(60), tenant="one")
    rivals(stage)
    other = stage.say(longer(draw(60), first), "b", tenant="two")
    assert (other.end.facts.reused_tokens, other.end.facts.tier) == (0, "device")


def test_a_tier_that_is_full_passes_on_what_was_not_used_for_longest(
    tiny: Pair, stages: Stages, tmp_path: Path
) -> None:
    disk = DiskTier.open(tmp_path)
    stage = stages(tiny.ours, pool=256, below=[Below(HostTier(), 96), Below(disk, 160)])
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    told = [pause(stage, draw(60, seed=seed), f"p{seed}") for seed in range(4)]
    flush(stage)
    elsewhere = stage.loop.kernel.moves.elsewhere
    assert (elsewhere.count("host"), elsewhere.count("disk")) == (12, 20)
    assert any(isinstance(effect, Drop) and effect.tier == "disk" for effect in effects)
    rivals(stage, 5)
    oldest, newest = (stage.say(longer(draw(60, seed=seed), told[seed]), f"p{seed}") for seed in (0, 3))
    assert newest.end.facts.reused_tokens == 67
    assert oldest.end.facts.reused_tokens < 67


class Broken(HostTier):
    """Takes everything, and can then not be reached."""

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        raise TierGone("the cable was pulled")


class Mixed(HostTier):
    """Gives every record's bytes with one of them changed."""

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        for name in names:
            damaged = bytearray(self._records[name])
            damaged[-1] ^= 1
            self._records[name] = bytes(damaged)
        return await super().get(names)


@pytest.mark.parametrize("tier", [Broken, Mixed])
def test_what_a_tier_cannot_give_or_gives_wrongly_is_computed(
    tiny: Pair,
    stages: Stages,
    undisturbed: Callable[[Sequence[int]], Told],
    tier: type[HostTier],
) -> None:
    stage = stages(tiny.ours, pool=128, below=[Below(tier())])
    first = pause(stage, draw(60))
    rivals(stage)
    tokens = longer(draw(60), first)
    again = stage.say(tokens, "a")
    assert again.tokens == undisturbed(tokens).tokens
    assert (again.end.facts.reused_tokens, again.end.facts.tier) == (0, "device")
    assert stage.loop.kernel.moves.elsewhere.count("host") == 0


def test_moves_are_in_the_journal_and_replay(tiny: Pair, stages: Stages, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    engine = TorchEngine(tiny.ours, pool_tokens=128)
    below = [Below(HostTier(), 128), Below(DiskTier.open(tmp_path / "kv"))]
    with Loop(engine, named("sostenuto"), journal=journal, below=below) as loop:
        stage = Stage(loop)
        told = [pause(stage, draw(60, seed=seed), f"p{seed}") for seed in range(4)]
        for seed in range(4):
            stage.say(longer(draw(60, seed=seed), told[seed]), f"p{seed}")
        kernel, _ = replay(journal)
        assert repr(kernel.moves) == repr(loop.kernel.moves)
    assert "Moved" in journal.read_text()


def test_a_turn_that_is_cancelled_while_it_is_fetched_leaves_nothing(tiny: Pair, stages: Stages) -> None:
    class Slow(HostTier):
        """Cancels the turn that it is asked for before it answers."""

        async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
            submitted.result(30).cancel()
            return await super().get(names)

    submitted: Future[Ticket] = Future()  # the tier may be asked before `submit` has come back
    stage = stages(tiny.ours, pool=128, below=[Below(Slow())])
    first = pause(stage, draw(60))
    rivals(stage)
    started: list[Effect] = []
    stage.loop.watch(lambda effect: started.append(effect) if isinstance(effect, Start) else None)
    submitted.set_result(stage.submit(longer(draw(60), first), "a"))
    stage.loop.ask()
    flush(stage)
    assert "0 waiting | 0 running | <Ledger 0/16 taken" in stage.loop.ask()
    assert started == []


def test_an_engine_that_keeps_its_contexts_to_itself_is_refused_tiers() -> None:
    class Closed:
        name = "closed"
        can = TorchEngine.can.__class__(tokens=True)

    engine: Any = Closed()
    with pytest.raises(Unable, match="closed keeps its contexts to itself"):
        Loop(engine, named("sostenuto"), below=[Below(HostTier())])


def test_a_durable_mark_is_gone_on_with_in_a_later_process_with_nothing_computed(tiny: Pair, tmp_path: Path) -> None:
    def host() -> Host:
        return Host(TorchEngine(tiny.ours, pool_tokens=256), below=[Below(DiskTier.open(tmp_path))])

    with host() as first, Session(first, sampling=Sampling(temperature=1.0, seed=3)) as session:
        session.feed(draw(60))
        session.generate(max_tokens=9)
        session.mark("noon", durable=True)
        expected = session.generate(max_tokens=9)
    with host() as second, Session.restore(second, "noon") as session:
        answer = session.generate(max_tokens=9)
        assert (answer.tokens, [each.logprob for each in answer.pieces]) == (
            expected.tokens,
            [each.logprob for each in expected.pieces],
        )
        assert (answer.facts.reused_tokens, answer.facts.computed_tokens, answer.facts.tier) == (68, 1, "disk")
        assert second.saved.keys(tenant="default") == ["noon"]
        with pytest.raises(UnknownMark, match="no durable mark 'noon' of tenant other: there are none"):
            Session.restore(second, "noon", tenant="other")
        second.saved.forget("noon", tenant="default")
        with pytest.raises(UnknownMark):
            Session.restore(second, "noon")


def test_a_durable_mark_needs_a_disk(tiny: Pair) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=256)) as host, Session(host) as session:
        session.feed(draw(10))
        with pytest.raises(Unable, match="open it with store="):
            session.mark("noon", durable=True)


def test_a_durable_mark_of_another_model_is_refused_field_by_field(
    make_pair: Callable[..., Pair], tiny: Pair, tmp_path: Path
) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=256), below=[Below(DiskTier.open(tmp_path))]) as host:
        with Session(host) as session:
            session.feed(draw(20))
            session.generate(max_tokens=2)
            session.mark("noon", durable=True)
    other = make_pair("llama", "bfloat16").ours
    with Host(TorchEngine(other, pool_tokens=256), below=[Below(DiskTier.open(tmp_path))]) as host:
        with pytest.raises(Mismatch, match="dtype is 'float32', wanted 'bfloat16'"):
            Session.restore(host, "noon")


def test_a_parcel_is_gone_on_with_on_another_host_and_believed_in_nothing(tiny: Pair, tmp_path: Path) -> None:
    def host() -> Host:
        return Host(TorchEngine(tiny.ours, pool_tokens=256), below=[Below(HostTier())])

    with host() as here, Session(here, tenant="one") as session:
        session.feed(draw(60))
        session.generate(max_tokens=9)
        parcel = session.pack()
        expected = session.generate(max_tokens=9)
    with host() as there:
        with Session.unpack(there, parcel, tenant="one") as session:
            answer = session.generate(max_tokens=9)
        assert answer.tokens == expected.tokens
        assert (answer.facts.reused_tokens, answer.facts.computed_tokens, answer.facts.tier) == (68, 1, "host")
        with pytest.raises(Mismatch, match="tenant is"):
            Session.unpack(there, parcel, tenant="two")
        with pytest.raises(BadRecord):
            Session.unpack(there, parcel[:-1], tenant="one")
        with pytest.raises(BadRecord):
            Session.unpack(there, parcel[:-100] + bytes([parcel[-100] ^ 1]) + parcel[-99:], tenant="one")


@contextmanager
def here_and_there(tiny: Pair, tier: HostTier | None = None) -> Iterator[tuple[Host, Host]]:
    """Two hosts of one model; `tier` is the first one's."""
    engine = TorchEngine(tiny.ours, pool_tokens=256)
    with Host(engine, below=[Below(tier or HostTier())]) as here:
        with Host(TorchEngine(tiny.ours, pool_tokens=256), below=[Below(HostTier())]) as there:
            yield here, there


def test_a_parcels_memory_is_the_callers_again_when_it_was_unpacked(tiny: Pair) -> None:
    with here_and_there(tiny) as (here, there):
        with Session(here) as session:
            session.feed(draw(60))
            session.generate(max_tokens=9)
            lent = bytearray(session.pack())
            expected = session.generate(max_tokens=9)
        with memoryview(lent) as view, Session.unpack(there, view) as session:
            view[:] = bytes(len(view))
            answer = session.generate(max_tokens=9)
        lent.clear()  # BufferError where somebody still looks at it
    assert (answer.tokens, answer.facts.reused_tokens, answer.facts.tier) == (expected.tokens, 68, "host")


class Leaky(HostTier):
    """Has let go of the third block of what it is asked for when that is more than one."""

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        names = list(names)
        return await super().get([*names[:2], *names[3:]])


def test_a_parcel_holds_what_the_tier_still_has_and_the_rest_is_computed(tiny: Pair) -> None:
    with here_and_there(tiny, Leaky()) as (here, there):
        with Session(here) as session:
            session.feed(draw(60))
            session.generate(max_tokens=9)
            parcel = session.pack()
            expected = session.generate(max_tokens=9)
        with Session.unpack(there, parcel) as session:
            answer = session.generate(max_tokens=9)
    assert (answer.tokens, answer.facts.reused_tokens) == (expected.tokens, 2 * 8)


def test_a_parcel_needs_a_tier(tiny: Pair) -> None:
    with Host(TorchEngine(tiny.ours, pool_tokens=256)) as host, Session(host) as session:
        session.feed(draw(10))
        with pytest.raises(Unable, match="open it with host_tokens=N or store=FOLDER"):
            session.pack()
