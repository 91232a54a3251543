"""The operations in C++ do what those in torch do, and where they cannot be built the others serve."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from sostenuto.runtime.engines.torch import ways
from sostenuto.runtime.engines.torch.cache import folder
from sostenuto.runtime.engines.torch.lean import native as module
from sostenuto.runtime.engines.torch.lean.native import NotBuilt, native
from sostenuto.runtime.engines.torch.lean.operations import Decode, Operations, Store, Torch
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import Source
from sostenuto.runtime.errors import ModelUnsupported

from .conftest import FAMILIES, build

TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
SHAPES = [(9, 3, 64), (4, 2, 8), (4, 1, 16), (16, 4, 128), (6, 6, 96)]
THEIRS = Torch()


@pytest.fixture(scope="module")
def ours() -> Operations:
    try:
        return native(folder())
    except NotBuilt as reason:
        pytest.skip(f"nothing can be built here: {reason}")


def draw(*size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """To a few roundings of the type."""
    loose = 1e-5 if one.dtype == torch.float32 else 2e-2
    return torch.allclose(one.float(), other.float(), atol=loose, rtol=loose)


@TYPES
@pytest.mark.parametrize("size", [32, 33, 576])
def test_norms_and_gates_are_those_of_torch(ours: Operations, dtype: torch.dtype, size: int) -> None:
    state, more, weight = draw(5, size, dtype=dtype), draw(5, size, dtype=dtype, seed=1), draw(size, dtype=dtype)
    assert close(ours.norm(state, weight, 1e-5), THEIRS.norm(state, weight, 1e-5))
    first, second = state.clone(), state.clone()
    assert close(ours.add_norm(first, more, weight, 1e-5), THEIRS.add_norm(second, more, weight, 1e-5))
    assert torch.equal(first, second)
    both = torch.cat([draw(5, size, dtype=dtype) * 30, more], 1)
    assert close(ours.gated(both), THEIRS.gated(both))


@TYPES
@pytest.mark.parametrize("heads", SHAPES)
@pytest.mark.parametrize("normed", [False, True])
def test_heads_are_turned_and_written_as_in_torch(
    ours: Operations, dtype: torch.dtype, heads: tuple[int, int, int], normed: bool
) -> None:
    count, kv_heads, dim = heads
    rows, angle = draw(4, count + 2 * kv_heads, dim, dtype=dtype), draw(4, dim // 2, dtype=torch.float32)
    norms = (draw(dim, dtype=dtype), draw(dim, dtype=dtype, seed=1), 1e-5) if normed else None
    slots = torch.tensor([70, 3, 65])  # the fourth row is a double, and writes nothing
    stores = [Store(torch.zeros(kv_heads, 96, dim, dtype=dtype), torch.zeros(kv_heads, 96, dim, dtype=dtype), 32)]
    stores.append(Store(stores[0].k.clone(), stores[0].v.clone(), 32))
    mine = ours.turn_and_write(rows.clone(), (angle.cos(), angle.sin()), norms, slots, stores[0])
    its = THEIRS.turn_and_write(rows.clone(), (angle.cos(), angle.sin()), norms, slots, stores[1])
    assert close(mine, its)
    assert close(stores[0].k, stores[1].k)
    assert torch.equal(stores[0].v, stores[1].v)
    assert int(stores[0].k.ne(0).any(-1).sum()) == 3 * kv_heads


@TYPES
@pytest.mark.parametrize("heads", SHAPES)
@pytest.mark.parametrize("page", [8, 32])
def test_a_row_sees_of_its_past_what_it_sees_in_torch_and_nothing_else(
    ours: Operations, dtype: torch.dtype, heads: tuple[int, int, int], page: int
) -> None:
    count, kv_heads, dim = heads
    pages = 640 // page
    store = Store(
        draw(kv_heads, 2 * pages * page, dim, dtype=dtype), draw(kv_heads, 2 * pages * page, dim, dtype=dtype), page
    )
    order = torch.randperm(2 * pages, generator=torch.Generator().manual_seed(4)).to(torch.int32)
    tables = torch.stack([order[:pages], order[-pages:], order[:pages], order[-pages:]])
    firsts, stops = [0, 0, 100, 255], [1, 640, 513, 257]
    where = Decode(
        torch.arange(4),
        tables,
        torch.tensor(firsts, dtype=torch.int32),
        torch.tensor(stops, dtype=torch.int32),
    )
    seen = {
        int(tables[row, at // page]) * page + at % page for row in range(4) for at in range(firsts[row], stops[row])
    }
    for slot in set(range(2 * pages * page)) - seen:
        store.k[:, slot], store.v[:, slot] = float("nan"), float("nan")
    query = draw(4, count, dim, dtype=dtype)
    mine = ours.decode(query, store, where, dim**-0.5)
    assert close(mine, THEIRS.decode(query, store, where, dim**-0.5))
    for row in range(4):
        alone = Decode(torch.tensor([0]), *(part[row : row + 1] for part in (tables, where.firsts, where.stops)))
        assert torch.equal(ours.decode(query[row : row + 1], store, alone, dim**-0.5)[0], mine[row])


@TYPES
def test_scores_far_apart_and_numbers_that_are_none_come_out_as_in_torch(ours: Operations, dtype: torch.dtype) -> None:
    store = Store(draw(1, 64, 32, dtype=dtype) * 40, draw(1, 64, 32, dtype=dtype), 32)
    tables, first = torch.tensor([[0, 1]], dtype=torch.int32), torch.tensor([0], dtype=torch.int32)
    where = Decode(torch.tensor([0]), tables, first, torch.tensor([64], dtype=torch.int32))
    query = draw(1, 1, 32, dtype=dtype) * 40
    assert close(ours.decode(query, store, where, 1.0), THEIRS.decode(query, store, where, 1.0))
    store.k[0, 50] = float("nan")
    assert ours.decode(query, store, where, 1.0).isnan().all()
    assert ours.norm(store.k[0], torch.ones(32, dtype=dtype), 1e-5)[50].isnan().all()
    assert ours.gated(torch.full((1, 2), float("nan"), dtype=dtype)).isnan().all()


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
        ("echo 'kernels.cpp:1: error: no such thing' >&2; exit 1", "kernels.cpp:1: error: no such thing"),
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
    ours: Operations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "kernels.cpp"
    other.write_text(module.SOURCE.read_text().replace("sum / size + eps", "sum / size + 1"))
    monkeypatch.setattr(module, "SOURCE", other)
    with pytest.raises(NotBuilt, match="computes something else"):
        native.__wrapped__(tmp_path / "cache")


def test_it_is_built_once_and_again_for_another_source(
    ours: Operations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    native.__wrapped__(tmp_path)
    (built,) = tmp_path.iterdir()
    before = built.stat().st_mtime_ns
    native.__wrapped__(tmp_path)
    assert [path.stat().st_mtime_ns for path in tmp_path.iterdir()] == [before]
    other = tmp_path / "other" / "kernels.cpp"
    other.parent.mkdir()
    other.write_text(module.SOURCE.read_text() + "// a remark\n")
    monkeypatch.setattr(module, "SOURCE", other)
    native.__wrapped__(tmp_path)
    assert len(list(tmp_path.glob("*.so"))) == 2
