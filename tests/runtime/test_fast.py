"""The mode `fast`: a GGUF file's own blocks for steps of few rows, exactly, and named wherever it was used."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter, dequantize
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from transformers import AutoConfig, AutoModelForCausalLM

from sostenuto.runtime.engines import Mode
from sostenuto.runtime.engines.torch.cache import folder
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.lean.blocks import BYTES, FEW, SIZE, Blocks, Kind, joined
from sostenuto.runtime.engines.torch.lean.native import Native, NotBuilt, native
from sostenuto.runtime.engines.torch.lean.panels import Panels
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.quants import quants
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.errors import BadRollout, ModelUnsupported
from sostenuto.runtime.host import Host
from sostenuto.runtime.rollout import Group, Rollout, Rules, rollout
from sostenuto.runtime.session import Session
from sostenuto.tracing import Options, names, records_of, use

from .conftest import Pair, Runner, draw, spelling

KINDS = pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.name)
HEAD = 16
SIZES: dict[str, Any] = {
    "vocab_size": 258,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 256,
    "tie_word_embeddings": True,
}
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


@pytest.fixture(scope="module")
def ours() -> Native:
    try:
        return native(folder())
    except NotBuilt as reason:
        pytest.skip(f"nothing can be built here: {reason}")


def some(kind: Kind, outputs: int, inputs: int, seed: int = 0) -> Blocks:
    """Random blocks whose scales are those of weights."""
    chance = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (outputs, inputs // SIZE, BYTES[kind]), generator=chance, dtype=torch.uint8)
    scale = torch.rand(outputs, inputs // SIZE, 1, generator=chance) * (0.001 if kind is Kind.Q8_0 else 0.02)
    data[..., :2] = scale.half().view(torch.uint8)
    if kind is Kind.Q4_1:
        data[..., 2:4] = (-8 * scale).half().view(torch.uint8)
    return Blocks(kind, data.flatten(1))


@KINDS
def test_blocks_are_unpacked_as_gguf_unpacks_them(kind: Kind) -> None:
    blocks = some(kind, 12, 96)
    theirs = dequantize(blocks.data.numpy(), GGMLQuantizationType(int(kind)))
    assert torch.equal(blocks.dequantised(), torch.from_numpy(theirs))


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def test_products_with_blocks_are_those_with_the_weights_and_no_row_knows_of_another(
    ours: Native, kind: Kind, dtype: torch.dtype
) -> None:
    blocks = some(kind, 40, 192)
    rows = torch.randn(9, 192, generator=torch.Generator().manual_seed(1)).to(dtype)
    each = Panels(torch.zeros(40, 192, dtype=dtype), None, ours, blocks=(blocks, 9))
    done = each(rows)
    expected = rows.double() @ blocks.dequantised().double().T
    assert (done.double() - expected).norm() < (1e-6 if dtype == torch.float32 else 3e-3) * expected.norm()
    for first, count in [(0, 1), (8, 1), (3, 2), (1, 3), (2, 4)]:
        assert torch.equal(each(rows[first : first + count]), done[first : first + count])


def test_blocks_of_different_kinds_are_not_joined() -> None:
    one, other = some(Kind.Q4_0, 4, 32), some(Kind.Q4_1, 4, 32)
    assert joined([one, other]) is None
    assert joined([one, None]) is None
    both = joined([one, one])
    assert both is not None
    assert torch.equal(both.dequantised(), torch.cat([one.dequantised()] * 2))


def test_few_rows_take_blocks_and_more_take_whole_numbers_until_others_are_told(ours: Native) -> None:
    blocks, bias = some(Kind.Q4_1, 8, 64), torch.ones(8)
    each = Panels(torch.zeros(8, 64), bias, ours, blocks=(blocks, FEW))
    rows = torch.randn(FEW + 1, 64)
    assert torch.equal(each(rows), torch.ones(FEW + 1, 8))
    assert torch.allclose(each(rows[:FEW]), rows[:FEW] @ blocks.dequantised().T + 1, atol=1e-4)
    each.write(slice(0, 4), torch.zeros(4, 64))
    assert torch.equal(each(rows[:FEW]), torch.ones(FEW, 8))


@dataclass(frozen=True, slots=True)
class Packed:
    """A network whose weights are a file's blocks, and the file."""

    network: Callable[[], Any]
    file: Path


@pytest.fixture(scope="module", params=[Kind.Q4_0, Kind.Q4_1], ids=lambda kind: kind.name)
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Packed:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    writer = GGUFWriter(str(file), "llama")
    state: dict[str, torch.Tensor] = {}

    def add(theirs: str, name: str, blocks: Blocks) -> None:
        writer.add_tensor(theirs, blocks.data.numpy(), raw_dtype=GGMLQuantizationType(int(blocks.kind)))
        state[name] = blocks.dequantised()

    add("token_embd.weight", "model.embed_tokens.weight", some(Kind.Q8_0, 258, 64, seed=99))
    for layer in range(2):
        for at, (name, theirs) in enumerate(NAMES.items()):
            outputs = {"q": 64, "k": 32, "v": 32, "o": 64, "g": 96, "u": 96, "d": 64}[name.split(".")[1][0]]
            blocks = some(request.param, outputs, 96 if "down" in name else 64, seed=10 * layer + at)
            add(f"blk.{layer}.{theirs}.weight", f"model.layers.{layer}.{name}.weight", blocks)
            if theirs in ("attn_q", "attn_k"):  # the file has the halves of a head interleaved
                heads = state[f"model.layers.{layer}.{name}.weight"].view(-1, HEAD // 2, 2, 64)
                state[f"model.layers.{layer}.{name}.weight"] = heads.transpose(1, 2).reshape(outputs, 64)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    def network() -> Any:
        untyped: Any = AutoModelForCausalLM
        made = untyped.from_config(AutoConfig.for_model("llama", **SIZES), dtype=torch.float32)
        made.load_state_dict(state, strict=False)
        return made.to(torch.bfloat16)

    return Packed(network, file)


def test_a_file_gives_every_weight_that_is_the_models_and_no_other(packed: Packed) -> None:
    weights = dict(packed.network().named_parameters(remove_duplicate=False))
    found = quants(packed.file, weights, HEAD)
    assert len(found) == 1 + 2 * len(NAMES)
    for name, blocks in found.items():
        assert torch.equal(blocks.dequantised().bfloat16(), weights[name])
    other = dict(weights)
    other["model.layers.1.mlp.up_proj.weight"] = weights["model.layers.1.mlp.up_proj.weight"] + 1
    assert found.keys() - quants(packed.file, other, HEAD).keys() == {"model.layers.1.mlp.up_proj.weight"}


def test_a_model_in_blocks_says_what_its_weights_say(ours: Native, packed: Packed) -> None:
    exact = Model(packed.network(), spelling(), "tiny", page=8)
    fast = Model(packed.network(), spelling(), "tiny", page=8, way=Way(mode="fast", file=str(packed.file)))
    assert (exact.chosen.mode, fast.chosen.mode) == ("exact", "fast")
    assert fast.fingerprint == f"{exact.fingerprint}-fast"
    prompt = draw(60)
    truth = Pair(exact, packed.network().float(), "float32").reference(prompt)
    offs = []
    for model in (exact, fast):
        runner = Runner(model)
        table = runner.table(60)
        runner.feed(prompt[:30], 30, table)
        got = torch.stack(runner.feed(prompt, 1, table, start=30))
        assert got.std() > 0.1
        offs.append(float((got - truth[30:]).norm() / truth[30:].norm()))
    assert offs[1] < 1.2 * offs[0] + 1e-3, "blocks lose nothing beside bfloat16"


def test_rows_of_large_steps_are_those_of_whole_weights(ours: Native, packed: Packed) -> None:
    way = Way(mode="fast", file=str(packed.file))
    whole, blocks = (Model(packed.network(), spelling(), "tiny", page=8, way=one) for one in (Way(), way))
    prompt = tuple(draw(40))
    piece = Piece(tuple(range(5)), 0, prompt, wants=False, wants_all=True)
    assert torch.equal(Runner(whole).step(piece), Runner(blocks).step(piece))


def test_fast_is_refused_where_there_is_nothing_for_it_to_read(packed: Packed) -> None:
    for way, why in [
        (Way(mode="fast"), "no GGUF file"),
        (Way(mode="fast", native=False, file=str(packed.file)), "without operations in C"),
        (Way("general", mode="fast", file=str(packed.file)), "needs: it was asked for"),
    ]:
        with pytest.raises(ModelUnsupported, match=why):
            Model(packed.network(), spelling(), "tiny", way=way)
    strange = packed.network()
    for parameter in strange.parameters():
        parameter.data.mul_(1.5)
    with pytest.raises(ModelUnsupported, match="no weight in Q4_0, Q4_1, Q8_0 that is its own"):
        Model(strange, spelling(), "tiny", way=Way(mode="fast", file=str(packed.file)))


@pytest.mark.parametrize("mode", get_args(Mode))
async def test_the_mode_is_named_in_facts_spans_and_rollouts_which_are_always_exact(
    ours: Native, packed: Packed, mode: Mode
) -> None:
    model = Model(packed.network(), spelling(), "tiny", page=8, way=Way(mode=mode, file=str(packed.file)))
    assert repr(model) == f"<Model tiny bfloat16 on cpu, lean path, {mode}>"
    kept, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    use(Options(provider))
    try:
        with Host(TorchEngine(model, pool_tokens=256)) as host, Session(host) as session:
            assert (host.mode, session.mode) == (mode, mode)
            assert session.exact == (mode == "exact")
            session.feed(draw(20))
            answer = session.generate(4)
            assert (answer.facts.mode, answer.facts.exact) == (mode, mode == "exact")
            if mode == "exact":
                made = await rollout(session, draw(5), rules=Rules(max_tokens=3))
                assert made.mode == Rollout.from_json(made.to_json()).mode == json.loads(made.to_json())["mode"] == mode
            else:
                with pytest.raises(BadRollout, match=r"computes in the mode fast, .*; expected exact"):
                    Group(session, draw(5), n=1, rules=Rules())
    finally:
        use(None)
    found = [one for one in records_of(kept.get_finished_spans()) if one.name == "chat tiny"]
    assert {one.attributes[names.MODE] for one in found} == {mode}
