"""The operations in C++ do what those in torch do, and where they cannot be built the others serve."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from sostenuto.runtime.engines.torch import ways
from sostenuto.runtime.engines.torch.cache import folder
from sostenuto.runtime.engines.torch.lean import native as module
from sostenuto.runtime.engines.torch.lean.native import Native, NotBuilt, native
from sostenuto.runtime.engines.torch.lean.panels import Panels
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import Source
from sostenuto.runtime.errors import ModelUnsupported

from .conftest import FAMILIES, Pair, Runner, build, draw

Make = Callable[..., Pair]
LEAN = [family for family in FAMILIES if not family.startswith("gemma")]

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


@pytest.fixture(scope="module")
def ours() -> Native:
    try:
        return native(folder())
    except NotBuilt as reason:
        pytest.skip(f"nothing can be built here: {reason}")


def numbers(*size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To a few roundings of the type."""
    loose = 1e-4 if one.dtype == torch.float32 else 3e-2
    return torch.allclose(one.float(), other.float(), atol=loose * float(other.abs().max()), rtol=loose)


@TYPES
@pytest.mark.parametrize(("outputs", "inputs"), [(16, 32), (96, 64), (40, 48), (258, 576), (7, 3)])
@pytest.mark.parametrize("gated", [False, True])
def test_products_are_those_of_torch_and_no_row_knows_of_another(
    ours: Native, dtype: torch.dtype, outputs: int, inputs: int, gated: bool
) -> None:
    outputs += outputs % 2
    weight, bias = numbers(outputs, inputs, dtype=dtype), numbers(outputs, dtype=dtype, seed=1)
    rows = numbers(70, inputs, dtype=dtype, seed=2)
    for own in (None, bias):
        each = Panels(weight, own, ours, gated=gated)
        whole = each(rows)
        assert close(whole, F.linear(rows, weight, own))
        for first, count in [(0, 1), (69, 1), (3, 2), (10, 16), (5, 33)]:
            assert torch.equal(each(rows[first : first + count]), whole[first : first + count])


@TYPES
def test_panels_are_told_other_numbers_for_some_outputs(ours: Native, dtype: torch.dtype) -> None:
    weight, bias, rows = (numbers(*size, dtype=dtype) for size in ((40, 48), (40,), (5, 48)))
    each = Panels(weight, bias, ours, gated=True)
    weight[10:30], bias[5:25] = 0.5, 3.0
    each.write(slice(10, 30), weight[10:30])
    each.write(slice(5, 25), bias[5:25])
    assert close(each(rows), F.linear(rows, weight, bias))
    assert each.share(slice(0, 40), 2).numel() == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", LEAN)
def test_steps_give_what_torch_gives_and_look_at_nothing_else(
    ours: Native, make_pair: Make, family: str, dtype: str
) -> None:
    mine, its = (make_pair(family, dtype, way=Way("lean", native=native)).ours for native in (True, False))
    prompt, other = draw(300), draw(90, seed=1)
    logits = []
    for model in (mine, its):
        runner = Runner(model, room=200)
        for side in (*runner.pages.k, *runner.pages.v):
            side.fill_(float("nan"))
        tables = runner.table(320), runner.table(120)
        ends = (tables[0], 300), (tables[1], 90)
        runner.step(Piece(tables[0], 0, tuple(prompt[:290]), wants=False))
        done = [runner.step(Piece(tables[0], 290, tuple(prompt[290:]), True), Piece(tables[1], 0, tuple(other), True))]
        for at in range(5):
            done += [runner.step(*(Piece(table, behind + at, (at + 7,), True) for table, behind in ends))]
        logits.append(torch.cat([torch.as_tensor(each).view(2, -1) for each in map(torch.stack, map(list, done))]))
    assert torch.isfinite(logits[0]).all()
    assert (logits[0] - logits[1]).norm() < (1e-4 if dtype == "float32" else 3e-2) * logits[1].norm()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", LEAN)
def test_what_was_said_is_computed_again_as_a_prompt_to_the_same_bits(
    ours: Native, make_pair: Make, family: str, dtype: str
) -> None:
    model, tokens = make_pair(family, dtype, way=Way("lean", native=True)).ours, draw(330)
    found = []
    for cuts in ([330], [300, *[1] * 30], [7, 20, 40, 1, 2, 260]):
        runner, at = Runner(model, room=200), 0
        table = runner.table(330)
        for size in cuts:
            logits = runner.step(Piece(table, at, tuple(tokens[at : at + size]), wants=True))[-1]
            at += size
        slots = runner.pages.slots(table, 0, 330)
        found.append((logits, torch.stack([side[:, slots] for side in (*runner.pages.k, *runner.pages.v)])))
    for other in found[1:]:
        assert torch.equal(other[0], found[0][0])
        if "window" not in family:  # a window gives its pages back, and a short one is never whole
            assert torch.equal(other[1], found[0][1])


def test_numbers_that_are_none_stay_none_and_are_nobody_elses(ours: Native, make_pair: Make) -> None:
    runner = Runner(make_pair(way=Way("lean", native=True)).ours, room=64)
    one, other = runner.table(40), runner.table(40)
    prompt = tuple(draw(30))
    alone = runner.step(Piece(other, 0, prompt, wants=True))[0]
    runner.step(Piece(one, 0, prompt, wants=False))
    runner.pages.v[0][:, runner.pages.slots(one, 3, 4)] = float("nan")
    rows = runner.step(Piece(one, 30, (5,), wants=True), Piece(other, 0, prompt, wants=True))
    assert rows[0].isnan().all()
    assert torch.equal(rows[1], alone)


def test_pages_that_are_not_there_are_refused_before_anything_is_written(ours: Native, make_pair: Make) -> None:
    runner = Runner(make_pair(way=Way("lean", native=True)).ours, room=8)
    page = runner.pages.shape.page
    for table in ((0, 8), (0, -1), (0,)):
        with pytest.raises(IndexError, match="table"):
            runner.step(Piece(table, 0, tuple(range(page + 1)), wants=True))
    assert not any(side.any() for side in (*runner.pages.k, *runner.pages.v))


def compiler(path: Path, script: str) -> Path:
    path.mkdir()
    (path / "c++").write_text(f"#!/bin/sh\n{script}\n")
    (path / "c++").chmod(0o755)
    return path


def test_without_a_compiler_torch_serves_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build(tmp_path / "model", **FAMILIES["llama"])
    monkeypatch.setattr(ways, "native", native.__wrapped__)
    monkeypatch.setattr(ways, "folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("PATH", str(tmp_path))
    chosen = Model.load(Source(str(model), "tiny"), dtype="float32").chosen
    assert (chosen.path.name, chosen.why) == ("lean", "")
    assert chosen.kernels == "torch, because there is no C++ compiler (c++, g++ or clang++)"
    with pytest.raises(ModelUnsupported, match="no C\\+\\+ compiler"):
        Model.load(Source(str(model), "tiny"), dtype="float32", way=Way(native=True))
    asked = Model.load(Source(str(model), "tiny"), dtype="float32", way=Way(native=False)).chosen
    assert asked.kernels == "torch, as was asked for"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'step.cpp:1: error: no such thing' >&2; exit 1", "step.cpp:1: error: no such thing"),
        ("exit 1", "it said nothing"),
        ('while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"', "cannot be loaded"),
    ],
)
def test_what_cannot_be_built_or_loaded_is_not_used_and_leaves_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, why: str
) -> None:
    fake = compiler(tmp_path / "bin", f'[ "$1" = --version ] && exit 0\n{script}')
    monkeypatch.setenv("PATH", f"{fake}{os.pathsep}/usr/bin{os.pathsep}/bin")
    with pytest.raises(NotBuilt, match=why):
        native.__wrapped__(tmp_path / "cache")


def test_a_library_that_computes_something_else_is_none(
    ours: Native, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = shutil.copytree(module.SOURCE.parent, tmp_path / "kernels") / module.SOURCE.name
    other.write_text(other.read_text().replace("load<Lanes>(sums + LANES)", "load<Lanes>(sums)"))
    monkeypatch.setattr(module, "SOURCE", other)
    with pytest.raises(NotBuilt, match="computes something else"):
        native.__wrapped__(tmp_path / "cache")


def test_it_is_built_once_and_again_for_another_source(
    ours: Native, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.__wrapped__(tmp_path)
    (built,) = tmp_path.iterdir()
    before = built.stat().st_mtime_ns
    native.__wrapped__(tmp_path)
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [before]
    other = shutil.copytree(module.SOURCE.parent, tmp_path / "other") / module.SOURCE.name
    header = other.with_name("products.h")
    header.write_text(header.read_text() + "// a remark\n")
    monkeypatch.setattr(module, "SOURCE", other)
    native.__wrapped__(tmp_path)
    assert len(list(tmp_path.glob("*.so"))) == 2
