"""On another device both paths do what they do here, and no tensor of the CPU gets among those of the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.lean import forward
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.sample import Sampler
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.errors import ModelUnsupported
from sostenuto.runtime.sampling import Sampling

from .conftest import FAMILIES, Runner, build, draw, spelling
from .pretend import AWAY, Away, Pretend, brought, home

FAMILY = pytest.mark.parametrize("family", ["llama with one kv head, tied", "qwen2", "qwen3", "mistral, window of 24"])
PATHS = pytest.mark.parametrize("path", ["lean", "general"])
Make = Callable[..., tuple[Any, Any]]


@pytest.fixture(autouse=True)
def _there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lean path takes the device; its pages stand still, for there is no stream on which they could be copied."""
    monkeypatch.setattr(forward, "DEVICES", (*forward.DEVICES, AWAY.type))
    monkeypatch.setattr("sostenuto.kvstore.pages.Staging", lambda shape, device: None)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., tuple[Any, Any]]:
    """Two equal networks of a family, one of them there. They are made before `Pretend`: transformers uses `meta`."""

    def made(family: str, dtype: str = "float32") -> tuple[Any, Any]:
        folder = build(tmp_path / "model", dtype, **FAMILIES[family])
        untyped: Any = AutoModelForCausalLM
        here, there = (
            untyped.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True) for _ in range(2)
        )
        return here, brought(there)

    return made


def steps(model: Model) -> list[torch.Tensor]:
    """Prompts in chunks, single tokens beside them, and what all of them say."""
    runner = Runner(model)
    long, short = draw(90), draw(30, seed=1)
    tables = runner.table(90), runner.table(30)
    first = runner.step(Piece(tables[0], 0, tuple(long[:70]), wants=True))
    mixed = runner.step(Piece(tables[1], 0, tuple(short[:29]), wants=False), Piece(tables[0], 70, (long[70],), True))
    both = runner.step(
        Piece(tables[0], 71, tuple(long[71:]), wants=True, wants_all=True), Piece(tables[1], 29, (short[29],), True)
    )
    alone = runner.step(Piece(tables[1], 29, (short[29],), wants=True))
    return [first, mixed, both, alone]


@FAMILY
@PATHS
def test_a_step_gives_there_what_it_gives_here(make: Make, family: str, path: Any) -> None:
    near, far = make(family)
    here = Model(near, spelling(), "tiny", page=8, way=Way(path, None if path == "general" else False))
    expected = steps(here)
    with Pretend():
        away = Model(far, spelling(), "tiny", page=8, way=Way(path))
        assert (away.device, away.chosen.path.name, away.fingerprint) == (AWAY.type, path, here.fingerprint)
        for ours, theirs in zip(steps(away), expected, strict=True):
            assert torch.equal(home(ours), theirs)


def test_bfloat16_is_not_packed_there_and_its_bits_are_not_promised(make: Make) -> None:
    near, far = make("qwen2", "bfloat16")
    expected = steps(Model(near, spelling(), "tiny", page=8, way=Way("general")))
    with Pretend():
        away = Model(far, spelling(), "tiny", page=8)
        assert (away.chosen.path.name, away.chosen.path.even) == ("lean", False)
        for ours, theirs in zip(steps(away), expected, strict=True):
            assert (home(ours) - theirs).norm() < 0.05 * theirs.norm()


def test_the_operations_in_cpp_are_for_the_cpu(make: Make) -> None:
    _, far = make("qwen2")
    with Pretend():
        chosen = Model(far, spelling(), "tiny").chosen
        assert chosen.kernels == f"torch, because those in C++ are for the CPU, and the model is on {AWAY.type}"
        for way in (Way(native=True), Way(mode="fast", file="model.gguf")):
            with pytest.raises(ModelUnsupported, match=r"C\+\+"):
                Model(far, spelling(), "tiny", way=way)


@PATHS
def test_new_weights_and_attention_that_is_weighed_are_there_what_they_are_here(make: Make, path: Any) -> None:
    prompt = draw(20)

    def weighed(network: Any) -> torch.Tensor:
        model = Model(network, spelling(), "tiny", page=8, way=Way(path, None if path == "general" else False))
        name = "model.layers.0.self_attn.k_proj.weight"
        model.reweigh({name: torch.randn(model._shapes[name], generator=torch.Generator().manual_seed(1))})
        runner = Runner(model)
        table = runner.table(20)
        runner.feed(prompt, 20, table)
        mass = torch.zeros(model.shape.layers, model.shape.kv_heads, 20, device=model.device)
        model.weigh(Piece(table, 0, tuple(prompt), wants=False), runner.pages, mass)
        return mass

    near, far = make("qwen3")
    expected = weighed(near)
    with Pretend():
        assert torch.equal(home(weighed(far)), expected)


def test_contexts_are_cut_and_tokens_chosen_there_as_here(make: Make) -> None:
    prompt = draw(40)

    def told(network: Any) -> tuple[object, ...]:
        engine = TorchEngine(Model(network, spelling(), "tiny", page=8, way=Way("lean", False)), pool_tokens=256)
        logits = engine.model.forward([Piece(tuple(range(5)), 0, tuple(prompt), wants=True)], engine.pages)
        cut = engine.cutting("h2o", 16)
        cut.read(range(5), prompt)
        while not cut.step():
            pass
        cut.write(range(8, 10))
        sampler = Sampler(Sampling(temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=3), prompt)
        return tuple(cut.kept), cut.digest, sampler.pick(logits[0], mask=b"\xff" * 20).token

    near, far = make("qwen2")
    expected = told(near)
    with Pretend():
        assert told(far) == expected


def test_the_device_of_these_tests_tells_who_mixes() -> None:
    with Pretend():
        away = torch.zeros(4, device=AWAY)
        assert isinstance(away, Away)
        with pytest.raises(RuntimeError, match="two devices"):
            away + torch.ones(4)
        with pytest.raises(RuntimeError, match="two devices"):
            away.index_select(0, torch.tensor([1]))
        assert torch.equal((away + torch.ones(4).to(AWAY)).cpu(), torch.ones(4))
