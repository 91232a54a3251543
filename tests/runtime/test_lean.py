"""Which path serves a model, and what the lean one promises beside what both do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from sostenuto.runtime.engines.torch.lean import attention, linear
from sostenuto.runtime.engines.torch.lean.linear import Narrow, Packed, Plain, even, fastest, packs
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import Source
from sostenuto.runtime.errors import ModelUnsupported

from .conftest import FAMILIES, Pair, Runner, build, draw

Make = Callable[..., Pair]
BFLOAT16 = pytest.mark.skipif(
    not even(64, 48, torch.bfloat16, 2), reason="this processor rounds rows by the size of their batch"
)


@pytest.mark.parametrize("family", FAMILIES)
def test_decoders_like_llama_take_the_lean_path_and_others_say_why_not(make_pair: Make, family: str) -> None:
    chosen = make_pair(family).ours.chosen
    if family.startswith("gemma3"):
        assert chosen.path.name == "general"
        assert chosen.why == "the family gemma3_text is none of llama, mistral, qwen2, qwen3"
    else:
        assert (chosen.path.name, chosen.why) == ("lean", "")


def test_the_general_path_serves_who_asks_for_it(make_pair: Make) -> None:
    model = make_pair(way=Way("general")).ours
    assert (model.chosen.path.name, model.chosen.why) == ("general", "it was asked for")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"model_type": "gemma3_text", "head_dim": 8}, "family gemma3_text"),
        ({"model_type": "llama", "hidden_act": "gelu"}, "activation is gelu"),
        (
            {"model_type": "llama", "hidden_size": 66, "num_attention_heads": 33, "num_key_value_heads": 1},
            "33 heads share",
        ),
        ({"model_type": "phi3", "pad_token_id": 0}, "family phi3"),
    ],
)
def test_the_lean_path_asked_for_by_name_is_refused_where_it_does_not_fit(
    tmp_path: Path, settings: Mapping[str, Any], why: str
) -> None:
    folder = build(tmp_path, **settings)
    with pytest.raises(ModelUnsupported, match=why):
        Model.load(Source(str(folder), "tiny"), dtype="float32", way=Way("lean"))
    assert Model.load(Source(str(folder), "tiny"), dtype="float32").chosen.path.name == "general"


def test_a_forward_that_comes_out_otherwise_is_noticed_at_load_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = build(tmp_path, **FAMILIES["qwen2"])
    monkeypatch.setattr(Plain, "__call__", lambda self, rows: F.linear(rows, self.weight))  # forgets the biases
    model = Model.load(Source(str(folder), "tiny"), dtype="float32", way=Way(native=False))
    assert model.chosen.path.name == "general"
    assert "other logits than the model by itself" in model.chosen.why


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["llama with one kv head, tied", "qwen2", "qwen3"])
def test_new_weights_reach_every_product(tmp_path: Path, family: str, dtype: str) -> None:
    folder, other = build(tmp_path / "one", dtype, **FAMILIES[family]), tmp_path / "other"
    build(other, dtype, **{**FAMILIES[family], "initializer_range": 0.5})
    one, two = (Model.load(Source(str(path), "tiny"), dtype=dtype, page=8) for path in (folder, other))
    torch.manual_seed(5)
    new: dict[str, torch.Tensor] = {}
    for name, shape in one._shapes.items():
        new[name] = torch.randn(shape) * 0.3 + ("norm" in name)
    if "lm_head.weight" in new and "tied" in family:
        new["lm_head.weight"] = new["model.embed_tokens.weight"]
    prompt = draw(40)
    before = Runner(one).feed(prompt, 40, range(5))[0]
    for model in (one, two):
        model.reweigh({name: tensor.to(getattr(torch, dtype)) for name, tensor in new.items()})
    first, second = (Runner(model).feed(prompt, 40, range(5))[0] for model in (one, two))
    assert (first - before).abs().max() > 1
    general = Model.load(Source(str(folder), "tiny"), dtype=dtype, page=8, way=Way("general"))
    general.reweigh({name: tensor.to(getattr(torch, dtype)) for name, tensor in new.items()})
    expected = Runner(general).feed(prompt, 40, range(5))[0]
    assert torch.equal(first, second)
    assert (first - expected).norm() < (1e-4 if dtype == "float32" else 0.05) * expected.norm()


@BFLOAT16
@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral, window of 24"])
@pytest.mark.parametrize("start", [0, 5, 64])
def test_a_prompt_has_the_same_bits_in_chunks_of_any_size_and_in_any_company(
    make_pair: Make, family: str, start: int, native: bool
) -> None:
    pair, prompt = make_pair(family, "bfloat16", way=Way(native=native)), draw(300)
    rivals = [draw(90, seed=seed) for seed in range(1, 4)]

    def run(chunks: list[int], company: bool) -> tuple[torch.Tensor, torch.Tensor]:
        runner = Runner(pair.ours, room=200)
        table, others = runner.table(300), [runner.table(90) for _ in rivals]
        if start:
            runner.step(Piece(table, 0, tuple(prompt[:start]), wants=False))
        at, row, logits = start, 0, torch.empty(0)
        for size in chunks:
            beside = [
                Piece(other, row, tuple(rival[row : row + 1]), wants=True)
                for other, rival in zip(others, rivals, strict=True)
            ]
            piece = Piece(table, at, tuple(prompt[at : at + size]), wants=True)
            logits = runner.step(*(beside if company else ()), piece)[-1]
            at, row = at + size, row + 1
        slots = runner.pages.slots(table, 0, 300)
        return logits, torch.stack([side[:, slots] for side in (*runner.pages.k, *runner.pages.v)])

    left = 300 - start
    whole = run([left], False)
    for chunks in ([left], [2] * 9 + [left - 18], [63, 64, 65, left - 192]):
        for ours, expected in zip(run(chunks, True), whole, strict=True):
            assert torch.equal(ours, expected)


def test_tiles_of_another_size_give_the_same_logits(make_pair: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for family in ("llama", "mistral, window of 24"):
        pair, prompt = make_pair(family), draw(150)
        for tile in (16, 32):
            monkeypatch.setattr(attention, "TILE", tile)
            got = Runner(pair.ours).feed(prompt, 70, range(19))
            expected = pair.reference(prompt)[[69, 139, 149]]
            assert (torch.stack(got) - expected).abs().max() < pair.tolerance


def test_products_are_parted_so_that_none_is_of_one_row() -> None:
    sizes: list[int] = []

    def product(rows: torch.Tensor) -> torch.Tensor:
        sizes.append(len(rows))
        return rows * 2

    for count, expected in [(4, [4]), (8, [8]), (9, [7, 2]), (17, [8, 7, 2]), (18, [8, 8, 2])]:
        sizes.clear()
        rows = torch.arange(count)[:, None]
        assert torch.equal(Narrow(product, 8)(rows), rows * 2)
        assert sizes == expected


def test_a_weight_that_is_packed_multiplies_as_before_and_can_be_told_other_numbers() -> None:
    if not packs():
        pytest.skip("this torch does not pack")
    torch.manual_seed(2)
    weight, bias, rows = (torch.randn(size).bfloat16() for size in ((96, 64), (96,), (5, 64)))
    packed = fastest(weight, bias)
    assert isinstance(packed, Packed)
    assert torch.allclose(packed(rows), F.linear(rows, weight, bias), atol=0.1, rtol=0.02)
    weight[10:20], bias[10:20] = 1.0, 3.0
    packed.write(slice(10, 20), weight[10:20])
    packed.write(slice(10, 20), bias[10:20])
    assert torch.allclose(packed(rows), F.linear(rows, weight, bias), atol=0.1, rtol=0.02)


def test_without_the_private_operators_weights_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "packs", lambda: False)
    assert isinstance(fastest(torch.ones(4, 4).bfloat16()), Plain)


def test_a_kernel_that_rounds_by_the_number_of_rows_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Moody(Plain):
        """Rounds otherwise from 100 rows on, or from three."""

        limit = 100

        def __call__(self, rows: torch.Tensor) -> torch.Tensor:
            return super().__call__(rows.double() * (1 + (len(rows) >= self.limit) * 1e-3))

    monkeypatch.setattr(linear, "fastest", lambda weight: Moody(weight.double(), None))
    assert even.__wrapped__(8, 8, torch.bfloat16, 2) == 64
    Moody.limit = 3
    assert even.__wrapped__(8, 8, torch.bfloat16, 2) == 0
