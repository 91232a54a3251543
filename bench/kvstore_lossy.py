"""What lossy codecs and the eviction of tokens cost in bytes, time and answers: on the packaged model, over real text.

python -P -m sostenuto.bench.kvstore_lossy [--windows 8 --context 1024 --answer 32 --json FILE]

The text is this repository's own documentation. A context of it is read, coded or thinned as it would be when parked,
and gone on with: the real continuation, whose logits are compared with those after the full cache, and an answer of
the model's own, whose tokens are. transformers' cache is used throughout, so nothing here depends on our engine.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sostenuto.kvstore import Shape
from sostenuto.kvstore.codecs import CODECS, FP8, INT8, Codec
from sostenuto.kvstore.codecs.scaled import Scaled
from sostenuto.kvstore.sparse import POLICIES, Thinned, h2o, keydiff, streaming, thin
from sostenuto.runtime.engines.torch.quiet import quiet
from sostenuto.runtime.engines.torch.weights import locate

from .report import alternate, machine

ROOT = Path(__file__).parents[1]
SEED = 0
PAGE = 32
ATTENTION = "sostenuto_mass"
SHARES = (0.5, 0.25, 0.125)
MOVED = ", moved"
"""With the kept keys turned to their places in the cache."""
KEYDIFF_RECENT = "keydiff, half recent"
VARIANTS = (*POLICIES, f"streaming{MOVED}", KEYDIFF_RECENT)
"""The policies as `thin` has them, and two that take an argument."""
MEASURED: tuple[Codec, ...] = (
    *CODECS,
    Scaled("fp8, keys by token", FP8.code, FP8.top, by_channel=False),
    Scaled("int8, keys by token", INT8.code, INT8.top, by_channel=False),
)


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of text, and what the model made of it with everything at hand."""

    block: torch.Tensor
    """Keys and values of the context: [layers, 2, kv_heads, context, head_dim]."""
    mass: torch.Tensor
    """The attention its tokens drew: [layers, kv_heads, context]."""
    rest: list[int]
    """The text that follows."""
    logits: torch.Tensor
    """After each token of `rest`: float32 [rest, vocab]."""
    answer: list[int]


@dataclass(slots=True)
class Drift:
    """How far from the full cache something led, over all windows."""

    errors: list[float] = field(default_factory=list)
    """The largest absolute error of a logit in each window."""
    mean_errors: list[float] = field(default_factory=list)
    kl: list[float] = field(default_factory=list)
    """Nats, from the full cache's distribution; the mean of each window's tokens."""
    agreement: list[float] = field(default_factory=list)
    """The share of tokens after which the likeliest next one is the same."""
    loss: list[float] = field(default_factory=list)
    """Nats a token of the real continuation."""
    leading: list[int] = field(default_factory=list)
    """Tokens of the answer before the first that differs."""

    def add(self, window: Window, logits: torch.Tensor) -> None:
        error = (logits - window.logits).abs()
        told, seen = window.logits.log_softmax(-1), logits.log_softmax(-1)
        self.errors.append(float(error.max()))
        self.mean_errors.append(float(error.mean()))
        self.kl.append(float((told.exp() * (told - seen)).sum(-1).mean()))
        self.agreement.append(float((logits.argmax(-1) == window.logits.argmax(-1)).float().mean()))
        following = torch.tensor(window.rest[1:])[:, None]
        self.loss.append(float(-seen[:-1].gather(1, following).mean()))

    def summary(self) -> dict[str, float]:
        return {
            "max_error": max(self.errors),
            "mean_error": _mean(self.mean_errors),
            "kl": _mean(self.kl),
            "agreement": _mean(self.agreement),
            "perplexity": math.exp(_mean(self.loss)),
        }


class Reader:
    """The model, and the few ways in which it is run here."""

    def __init__(self, model: str | None, dtype: str) -> None:
        AttentionInterface.register(ATTENTION, _attend)
        AttentionMaskInterface.register(ATTENTION, sdpa_mask)
        source = locate(model)
        self.name = source.name
        load: Any = AutoModelForCausalLM.from_pretrained
        with quiet():
            self.network: Any = load(source.path, dtype=getattr(torch, dtype), attn_implementation=ATTENTION)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source.path)
        self.network.eval()
        self.frequencies: torch.Tensor = self.network.model.rotary_emb.inv_freq

    def read(self, tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values of a text, and the attention that its tokens drew."""
        cache: Any = DynamicCache()
        masses: list[torch.Tensor] = []
        self.network(torch.tensor([tokens]), past_key_values=cache, logits_to_keep=1, masses=masses)
        layers = [torch.stack((layer.keys[0], layer.values[0])) for layer in cache.layers]
        return torch.stack(layers), torch.stack(masses)

    def follow(self, block: torch.Tensor, at: int, tokens: Sequence[int]) -> torch.Tensor:
        """Logits after each of `tokens`, the first of which stands at position `at`: float32 [tokens, vocab]."""
        return self._step(_cache(block), at, tokens)

    def answer(self, block: torch.Tensor, at: int, *, prompt: Sequence[int], count: int) -> list[int]:
        """The likeliest tokens, one after the other, after a context and a prompt that follows it."""
        cache, said, tokens = _cache(block), list[int](), list(prompt)
        while len(said) < count:
            logits = self._step(cache, at, tokens)
            at += len(tokens)
            tokens = [int(logits[-1].argmax())]
            said += tokens
        return said

    def _step(self, cache: DynamicCache, at: int, tokens: Sequence[int]) -> torch.Tensor:
        positions = torch.arange(at, at + len(tokens))[None]
        result = self.network(torch.tensor([tokens]), position_ids=positions, past_key_values=cache)
        logits: torch.Tensor = result.logits[0]
        return logits.float()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--dtype", default="float32", help="of the model and its cache; others add noise of their own")
    parser.add_argument("--windows", type=int, default=8, help="stretches of text, as far apart as there is text")
    parser.add_argument("--context", type=int, default=1024, help="tokens that are parked")
    parser.add_argument("--rest", type=int, default=128, help="tokens of text that follow")
    parser.add_argument("--prompt", type=int, default=16, help="how many of them come before the answer")
    parser.add_argument("--answer", type=int, default=32, help="tokens of the answer")
    parser.add_argument("--runs", type=int, default=51, help="timings of each codec")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(SEED)
    torch.set_num_threads(asked.threads)
    with torch.inference_mode():
        result = measure(asked)
    for line in table(result):
        print(line)
    if asked.json is not None:
        asked.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """All figures, as they are written to JSON."""
    reader = Reader(asked.model, asked.dtype)
    coded = {codec.name: Drift() for codec in MEASURED}
    full, thinned = Drift(), {(name, share): Drift() for share in SHARES for name in VARIANTS}
    block = torch.empty(0)
    for window in windows(reader, asked):
        block = window.block
        for codec in MEASURED:
            back = through(codec, block)
            assert not codec.exact or torch.equal(back, block)
            coded[codec.name].add(window, reader.follow(back, asked.context, window.rest))
        full.add(window, window.logits)
        full.leading.append(asked.answer)
        for (name, share), drift in thinned.items():
            kept, at = park(reader, window, name, share=share)
            drift.add(window, reader.follow(kept, at, window.rest))
            said = reader.answer(kept, at, prompt=window.rest[: asked.prompt], count=asked.answer)
            drift.leading.append(_leading(said, window.answer))
    rows = [{"policy": "full cache", "share": 1.0, **_told(full, asked.answer)}]
    rows += [{"policy": name, "share": share, **_told(drift, asked.answer)} for (name, share), drift in thinned.items()]
    costs = speeds(block[:, :, :, :PAGE].contiguous(), asked.runs)
    settings = {
        name: getattr(asked, name) for name in ("windows", "context", "rest", "prompt", "answer", "runs", "dtype")
    }
    return {
        "machine": machine(SEED, asked.threads),
        "model": reader.name,
        "seed": SEED,
        **settings,
        "codecs": [{"codec": name, **asdict(costs[name]), **drift.summary()} for name, drift in coded.items()],
        "eviction": rows,
    }


def windows(reader: Reader, asked: argparse.Namespace) -> Iterator[Window]:
    """Stretches of this repository's documentation, read with everything at hand."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    tokens: list[int] = reader.tokenizer("\n".join(page.read_text(encoding="utf-8") for page in pages)).input_ids
    size = asked.context + asked.rest
    if len(tokens) < size * asked.windows:
        raise SystemExit(f"{asked.windows} windows of {size} tokens were asked for; the text has {len(tokens)}")
    for index in range(asked.windows):
        start = index * (len(tokens) // asked.windows)
        context, rest = tokens[start : start + asked.context], tokens[start + asked.context : start + size]
        block, mass = reader.read(context)
        logits = reader.follow(block, asked.context, rest)
        answer = reader.answer(block, asked.context, prompt=rest[: asked.prompt], count=asked.answer)
        yield Window(block, mass, rest, logits, answer)


def through(codec: Codec, block: torch.Tensor) -> torch.Tensor:
    """A context after it was coded and decoded, page by page."""
    shape = _shape(block)
    parts = (block[:, :, :, at : at + PAGE] for at in range(0, block.shape[3], PAGE))
    return torch.cat([codec.decode(codec.encode(part), shape, part.shape[3]) for part in parts], dim=3)


def park(reader: Reader, window: Window, name: str, *, share: float) -> tuple[torch.Tensor, int]:
    """A thinned context, and the position of the token that comes next."""
    length = window.block.shape[3]
    budget = round(length * share)
    if name == KEYDIFF_RECENT:
        chosen = Thinned(keydiff.keep(window.block[:, 0], budget, recent=budget // 2), length, name)
    else:
        chosen = thin(name.removesuffix(MOVED), window.block[:, 0], budget, mass=window.mass)
    block = chosen.take(window.block)
    if not name.endswith(MOVED):
        return block, length
    keys = streaming.rotate(block[:, 0], streaming.shifts(chosen.kept), reader.frequencies)
    return torch.stack((keys, block[:, 1]), dim=1), len(chosen)


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes, and speeds in megabytes of what is encoded or comes out of decoding, at the median."""

    bytes_per_token: float
    bits: float
    encode_mb_s: float
    decode_mb_s: float


def speeds(block: torch.Tensor, runs: int) -> dict[str, Cost]:
    """Of every codec, on one page."""
    shape, tokens = _shape(block), block.shape[3]
    coded = [codec.encode(block) for codec in MEASURED]
    writes = alternate(runs, *(lambda codec=codec: codec.encode(block) for codec in MEASURED))
    pairs = zip(MEASURED, coded, strict=True)
    reads = alternate(
        runs, *(lambda codec=codec, data=data: codec.decode(data, shape, tokens) for codec, data in pairs)
    )
    megabytes = block.numel() * block.element_size() / 1e6
    return {
        codec.name: Cost(
            len(data) / tokens,
            len(data) * 8 / block.numel(),
            megabytes / sorted(write)[runs // 2] * 1000,
            megabytes / sorted(read)[runs // 2] * 1000,
        )
        for codec, data, write, read in zip(MEASURED, coded, writes, reads, strict=True)
    }


def table(result: dict[str, Any]) -> Iterator[str]:
    """What people read."""
    yield result["machine"]
    yield (
        f"{result['model']} in {result['dtype']}, the repository's documentation: {result['windows']} windows, "
        f"{result['context']} tokens parked, {result['rest']} that follow, an answer of {result['answer']}"
    )
    yield f"\nCodecs, on pages of {PAGE} tokens; speeds are the median of {result['runs']}; KL in nats"
    yield (
        f"  {'':<22}{'bytes/token':>12}{'bits':>7}{'encode MB/s':>13}{'decode MB/s':>13}"
        f"{'max |dlogit|':>14}{'mean':>9}{'KL':>10}{'same next':>11}{'ppl':>8}"
    )
    for row in result["codecs"]:
        yield (
            f"  {row['codec']:<22}{row['bytes_per_token']:>12.0f}{row['bits']:>7.2f}{row['encode_mb_s']:>13.0f}"
            f"{row['decode_mb_s']:>13.0f}{row['max_error']:>14.4f}{row['mean_error']:>9.4f}{row['kl']:>10.5f}"
            f"{row['agreement']:>11.1%}{row['perplexity']:>8.3f}"
        )
    yield "\nEviction of tokens"
    yield (f"  {'':<22}{'kept':>7}{'ppl':>9}{'KL':>10}{'same next':>11}{'same answer':>13}{'its leading tokens':>20}")
    for row in result["eviction"]:
        yield (
            f"  {row['policy']:<22}{row['share']:>7.1%}{row['perplexity']:>9.3f}{row['kl']:>10.4f}"
            f"{row['agreement']:>11.1%}{row['exact']:>8} of {result['windows']}"
            f"{row['leading']:>14.1f} of {result['answer']}"
        )


def _attend(module: Any, query: Any, key: Any, value: Any, attention_mask: Any, **rest: Any) -> Any:
    """transformers' own attention, which also notes how much of it each key has drawn, if there is a list for it."""
    masses = rest.pop("masses", None)
    if masses is not None:
        masses.append(h2o.mass(query[0], key[0], scale=rest["scaling"]))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **rest)


def _cache(block: torch.Tensor) -> DynamicCache:
    """A cache that holds these keys and values; what is added to it leaves them alone."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(block):
        cache.update(keys[None], values[None], index)
    return cache


def _shape(block: torch.Tensor) -> Shape:
    layers, _, heads, _, dim = block.shape
    return Shape(layers, heads, dim, str(block.dtype).removeprefix("torch."), PAGE)


def _told(drift: Drift, answer: int) -> dict[str, float]:
    exact = sum(count == answer for count in drift.leading)
    return {**drift.summary(), "exact": exact, "leading": _mean(drift.leading)}


def _leading(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=True)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), len(one))


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


if __name__ == "__main__":
    main()
