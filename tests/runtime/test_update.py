"""New weights between two steps: whose keys and values are used, and what becomes of turns on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sostenuto.kvstore import Mismatch
from sostenuto.kvstore.tiers import DiskTier
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import Source
from sostenuto.runtime.errors import Busy
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session

from .conftest import Gated, build, draw

pytestmark = pytest.mark.every_way

Weights = dict[str, torch.Tensor]


@pytest.fixture
def model(tmp_path: Path, way: Way) -> Model:
    """One that a test may change."""
    return Model.load(Source(str(build(tmp_path, model_type="llama")), "mine"), dtype="float32", page=8, way=way)


@pytest.fixture
def host(model: Model) -> Iterator[Host]:
    with Host(TorchEngine(model, pool_tokens=2048)) as opened:
        yield opened


@pytest.fixture
def other(model: Model, tmp_path: Path) -> Weights:
    """Other weights for the same network."""
    generator = torch.Generator().manual_seed(1)
    own = load_file(tmp_path / "model.safetensors")
    return {name: weight + 0.05 * torch.randn(weight.shape, generator=generator) for name, weight in own.items()}


def say(host: Host, tokens: list[int], **rest: Any) -> Any:
    with Session(host, sampling=Sampling(max_tokens=6), **rest) as session:
        session.feed(tokens)
        return session.generate()


def test_new_weights_say_what_a_fresh_model_of_them_says(host: Host, other: Weights, tmp_path: Path, way: Way) -> None:
    before = say(host, draw(40))
    assert host.update_weights(other.items()) == 1
    after = say(host, draw(40))
    assert after.logprobs != before.logprobs
    assert {piece.version for piece in after.pieces} == {1}
    folder = build(tmp_path / "fresh", model_type="llama")
    fresh = Model.load(Source(str(folder), "fresh"), dtype="float32", page=8, way=way)
    fresh.reweigh(other)
    with Host(TorchEngine(fresh, pool_tokens=2048)) as alone:
        assert say(alone, draw(40)).logprobs == after.logprobs


@pytest.mark.parametrize("kv", ["salt", "drop", "recompute"])
def test_no_new_turn_hits_what_older_weights_computed(host: Host, other: Weights, kv: Any) -> None:
    say(host, draw(40))
    assert say(host, draw(40)).facts.reused_tokens == 39
    host.update_weights(other.items(), kv=kv)
    facts = say(host, draw(40)).facts
    assert (facts.reused_tokens, facts.stale_tokens, facts.version) == (0, 0, 1)
    assert say(host, draw(40)).facts.reused_tokens == 39, "and what the new ones computed is shared as ever"


def test_kept_keys_and_values_are_served_and_counted_and_change_what_is_said(host: Host, other: Weights) -> None:
    say(host, draw(40))
    host.update_weights(other.items(), kv="keep")
    stale = say(host, draw(40))
    assert (stale.facts.reused_tokens, stale.facts.stale_tokens) == (39, 39)
    host.update_weights(other.items(), kv="salt")
    exact = say(host, draw(40))
    assert exact.facts.stale_tokens == 0
    assert max(abs(a - b) for a, b in zip(stale.logprobs, exact.logprobs, strict=True)) > 1e-3


def test_a_session_goes_on_after_new_weights_and_computes_its_past_anew(host: Host, other: Weights) -> None:
    with Session(host, sampling=Sampling(max_tokens=4)) as session:
        session.feed(draw(40))
        session.mark("asked")
        session.generate()
        host.update_weights(other.items())
        answer = session.generate(2, seed=None)
        assert answer.facts.reused_tokens == 0
        session.rollback("asked")
        assert session.generate().facts.stale_tokens == 0


def test_weights_that_do_not_fit_change_nothing(host: Host, other: Weights) -> None:
    before = say(host, draw(40))
    with pytest.raises(ValueError, match=r"no weights no\.such"):
        host.update_weights([("no.such", torch.zeros(1)), *other.items()])
    name = next(iter(other))
    with pytest.raises(ValueError, match="expected"):
        host.update_weights([*other.items(), (name, torch.zeros(3))])
    with pytest.raises(ValueError, match="found 0 after 0"):
        host.update_weights(other.items(), version=0)
    again = say(host, draw(40))
    assert again.logprobs == pytest.approx(before.logprobs, abs=1e-4)
    assert host.loop.weights == 0


@pytest.mark.parametrize(("running", "kv"), [("keep", "salt"), ("keep", "recompute"), ("abort", "salt")])
async def test_a_rollout_on_its_way_is_refused_kept_or_broken_off(
    model: Model, other: Weights, running: Any, kv: Any
) -> None:
    gate = Gated(model)
    with Host(gate) as host, Session(host, sampling=Sampling(max_tokens=8)) as session:
        session.feed(draw(30))
        task = asyncio.ensure_future(session.agenerate())
        for _ in range(3):
            await asyncio.to_thread(gate.wait)
            gate.let()
        await asyncio.to_thread(gate.wait)
        refused = host.loop.update(lambda version: None, 1, kv="salt", running="refuse")
        update = host.loop.update(lambda version: gate.load(other, version), None, kv=kv, running=running)
        gate.let()
        with pytest.raises(Busy, match="1 turns are on their way"):
            await asyncio.wrap_future(refused)
        gate.open()
        await asyncio.wrap_future(update)
        answer = await task
        versions = [piece.version for piece in answer.pieces]
        if running == "abort":
            assert (answer.reason, session.said) == ("abort", len(answer.tokens))
            assert set(versions) == {0}
            rest = await session.agenerate(8 - len(versions))
            assert {piece.version for piece in rest.pieces} == {1}
            assert rest.facts.stale_tokens == 0
        else:
            assert versions == sorted(versions)
            assert set(versions) == {0, 1}, "each token knows which weights said it"
            assert (answer.facts.recomputed_tokens > 0) == (kv == "recompute")


@pytest.mark.parametrize("kv", ["salt", "drop", "recompute", "keep"])
def test_what_other_weights_computed_is_never_restored_whatever_their_number(
    model: Model, other: Weights, tmp_path: Path, kv: Any
) -> None:
    def opened() -> Host:
        return Host(TorchEngine(model, pool_tokens=2048), below=[Below(DiskTier.open(tmp_path / "store"))])

    original = load_file(tmp_path / "model.safetensors")
    with opened() as first:
        first.update_weights(other.items(), kv=kv)
        with Session(first, sampling=Sampling(max_tokens=6)) as session:
            session.feed(draw(40))
            session.generate()
            session.mark("key", durable=True)
        model.reweigh(original)
    for updates in (0, 1):
        with opened() as later, Session(later) as session:
            for _ in range(updates):  # the same number as before, of other weights
                later.update_weights(original.items(), kv=kv)
            with pytest.raises(Mismatch, match="weights is"):
                Session.restore(later, "key")
            session.feed(draw(40))
            facts = session.generate(max_tokens=1).facts
            assert (facts.reused_tokens, facts.computed_tokens) == (0, 40)


def test_what_is_kept_through_an_update_is_not_stored_as_if_the_new_weights_had_computed_it(
    model: Model, other: Weights, tmp_path: Path
) -> None:
    with (
        Host(TorchEngine(model, pool_tokens=2048), below=[Below(DiskTier.open(tmp_path / "store"))]) as host,
        Session(host, sampling=Sampling(max_tokens=6)) as session,
    ):
        session.feed(draw(40))
        session.generate()
        host.update_weights(other.items(), kv="keep")
        assert host.saved.keep("kept", tuple(draw(40)), tenant="default", note={}) == 0
