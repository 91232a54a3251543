"""The model over pages gives transformers' own logits, however its tokens are cut, packed and scattered."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig
from transformers.utils import logging as untyped

from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.weights import Source
from sostenuto.runtime.errors import ModelNotFound, ModelUnsupported

from .conftest import FAMILIES, Pair, Runner, build, draw

pytestmark = pytest.mark.every_way

Make = Callable[..., Pair]
CHUNKS = [1, 7, 31, 32, 33, 100]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_equal_those_of_transformers_for_a_whole_prompt_and_for_chunks(
    make_either: Make, family: str, dtype: str
) -> None:
    pair, prompt = make_either(family, dtype), draw(101)
    expected = pair.reference(prompt)
    assert expected.std() > 1, "logits this close to each other would prove nothing"
    runner = Runner(pair.ours, room=200)
    for chunk, start in [(101, 0), (7, 0), (1, 90)]:
        table = runner.table(101)
        runner.feed(prompt[:start], 13, table)
        got = runner.feed(prompt, chunk, table, start)
        ends = [min(at + chunk, 101) - 1 for at in range(start, 101, chunk)]
        assert (torch.stack(got) - expected[ends]).abs().max() < pair.tolerance


@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_edges_of_chunks_need_not_be_the_edges_of_pages(make_either: Make, chunk: int) -> None:
    pair, prompt = make_either(page=32), draw(150, seed=1)
    runner = Runner(pair.ours)
    got = runner.feed(prompt, chunk, runner.table(150))
    expected = pair.reference(prompt)
    ends = [min(at + chunk, 150) - 1 for at in range(0, 150, chunk)]
    assert (torch.stack(got) - expected[ends]).abs().max() < pair.tolerance


@pytest.mark.parametrize("family", ["llama", "mistral, window of 24"])
def test_a_step_of_prompts_and_single_tokens_of_very_unequal_length_keeps_them_apart(
    make_either: Make, family: str
) -> None:
    pair = make_either(family)
    runner = Runner(pair.ours, room=300)
    lengths = {1: 0, 2: 1, 9: 8, 17: 16, 40: 3, 150: 149, 151: 90, 480: 479, 500: 499}
    prompts = {length: draw(length, seed=length) for length in lengths}
    tables = {length: runner.table(length) for length in lengths}
    for length, known in lengths.items():
        if known:
            runner.step(Piece(tables[length], 0, tuple(prompts[length][:known]), wants=False))
    pieces = [
        Piece(tables[length], known, tuple(prompts[length][known:]), wants=length != 40)
        for length, known in lengths.items()
    ]
    logits = runner.step(*pieces)
    wanted = [length for length in lengths if length != 40]
    assert logits.shape == (len(wanted), pair.ours.vocab)
    for row, length in zip(logits, wanted, strict=True):
        assert (row - pair.reference(prompts[length])[-1]).abs().max() < pair.tolerance


def test_a_table_longer_than_the_tokens_and_old_contents_of_pages_change_nothing(make_either: Make) -> None:
    pair, prompt = make_either(), draw(30)
    runner = Runner(pair.ours)
    for tensor in (*runner.pages.k, *runner.pages.v):
        tensor.fill_(1e4)  # an earlier owner's
    (got,) = runner.feed(prompt, 30, runner.table(100))
    (after,) = runner.feed([*prompt, 5], 1, runner.table(31))[-1:]
    assert (got - pair.reference(prompt)[-1]).abs().max() < pair.tolerance
    assert (after - pair.reference([*prompt, 5])[-1]).abs().max() < pair.tolerance


def test_positions_beyond_8192_are_as_good_as_the_first(make_either: Make) -> None:
    pair = make_either(max_position_embeddings=16384, num_hidden_layers=1, page=32)
    prompt = draw(8400)
    runner = Runner(pair.ours, room=280)
    table = runner.table(8400)
    near = runner.feed(prompt[:8200], 4096, table)[-1]
    far = runner.feed(prompt, 1, table, start=8200)[-1]
    expected = pair.reference(prompt)
    assert (near - expected[8199]).abs().max() < pair.tolerance
    assert (far - expected[8399]).abs().max() < pair.tolerance


def test_rows_are_counted_where_they_enter(make_either: Make) -> None:
    pair = make_either()
    runner, before = Runner(pair.ours), pair.ours.rows
    runner.feed(draw(30), 7, runner.table(30))
    assert pair.ours.rows - before == 30


def test_other_weights_or_another_dtype_have_another_fingerprint(make_pair: Make) -> None:
    pairs = [make_pair(), make_pair(dtype="bfloat16"), make_pair("llama3 rope"), make_pair(num_hidden_layers=3)]
    assert len({pair.ours.fingerprint for pair in pairs}) == len(pairs)
    assert pairs[0].ours.fingerprint == make_pair(page=32).ours.fingerprint


DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
LONG = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": 64,
    "short_factor": [1.0] * 4,
    "long_factor": [2.0] * 4,
}
REFUSED: dict[str, dict[str, Any]] = {
    "capped logits": {"model_type": "gemma2", "head_dim": 8},
    "attention sinks": {"model_type": "gpt_oss", "head_dim": 8, "num_local_experts": 2, "num_experts_per_tok": 1},
    "biases by distance": {"model_type": "bloom", "n_head": 4, "n_layer": 2},
    "frequencies that depend on the longest turn": {"model_type": "llama", "rope_parameters": DYNAMIC},
    "one of two sets of frequencies": {"model_type": "llama", "rope_parameters": LONG},
    "keys and values of unlike size": {
        "model_type": "deepseek_v3",
        "num_key_value_heads": 4,
        "kv_lora_rank": 16,
        "q_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "qk_nope_head_dim": 8,
        "v_head_dim": 8,
        "n_routed_experts": 4,
        "n_group": 1,
        "topk_group": 1,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 16,
    },
    "states in place of keys and values": {"model_type": "mamba", "state_size": 4},
}


@pytest.mark.parametrize("why", REFUSED)
def test_a_family_that_would_run_wrongly_is_refused(tmp_path: Path, why: str) -> None:
    folder = build(tmp_path, **REFUSED[why])
    with pytest.raises(ModelUnsupported, match="tiny"):
        Model.load(Source(str(folder), "tiny"), dtype="float32")


def test_an_encoder_and_decoder_is_refused_before_its_weights_are_looked_for(tmp_path: Path) -> None:
    AutoConfig.for_model("t5").save_pretrained(tmp_path)
    with pytest.raises(ModelUnsupported, match="encoder-decoder"):
        Model.load(Source(str(tmp_path), "t5"))


def test_a_directory_without_weights_is_not_found(tmp_path: Path) -> None:
    AutoConfig.for_model("llama").save_pretrained(tmp_path)
    with pytest.raises(ModelNotFound, match="Give an existing model"):
        Model.load(Source(str(tmp_path), "nothing"))


def test_loading_draws_no_bars_and_leaves_the_switch_as_it_was(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = build(tmp_path, **FAMILIES["llama"])
    logging: Any = untyped
    before = logging.is_progress_bar_enabled()
    logging.enable_progress_bar()
    try:
        capfd.readouterr()
        Model.load(Source(str(folder), "tiny"), dtype="float32")
        assert capfd.readouterr().err == ""
        assert logging.is_progress_bar_enabled()
    finally:
        if not before:
            logging.disable_progress_bar()
