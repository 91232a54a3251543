"""What the machine could do, and where our time goes: bandwidth, products, profiles, long contexts.

A process of its own in the benchmark of engines; it answers other questions than engines do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, Literal

import torch
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import LlamaConfig, LlamaForCausalLM

from sostenuto.bench.engine_speaking import prompt
from sostenuto.kvstore.pages import Pages
from sostenuto.runtime.engines.torch.lean.native import Native
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.ways import Way
from sostenuto.runtime.engines.torch.weights import Source, locate

CHUNK = 512
PRODUCTS = ("linear_pointwise", "aten::mm", "aten::addmm", "aten::linear", "ours: blocks")
"""Parts of the names of operations that multiply by weights, and do not attend."""
POSITIONS = 32_768
REST = "Python, and what else"


class Limits:
    """Loads a model when it is first needed."""

    def __init__(self, settings: dict[str, Any]) -> None:
        torch.set_num_threads(len(settings["cores"]))
        self.versions = {"torch": version("torch")}
        self.settings: dict[str, Any] = {"threads": torch.get_num_threads()}
        self._models: dict[str, Model] = {}
        self._long: tuple[Model, Pages] | None = None

    def measure(self, what: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """One of bandwidth, gemm, bytes, profile, linear."""
        found: dict[str, Any] = getattr(self, f"_{what}")(**given)
        return found

    async def close(self) -> None:
        """Nothing is left behind."""

    def _bandwidth(self, seed: str) -> dict[str, Any]:
        """Bytes by the second that all threads read from memory, far beyond any cache."""
        memory = torch.ones(128 * 2**20)
        seconds = _times(lambda: memory.sum(), 7)
        return {"value": memory.numel() * 4 / min(seconds), "seconds": seconds}

    def _gemm(self, seed: str) -> dict[str, Any]:
        """Operations by the second of the best bfloat16 product of several shapes; the last one is the model's own."""
        best: dict[str, float] = {}
        for rows, inputs, outputs in ((512, 2048, 2048), (2048, 2048, 2048), (512, 4096, 4096), (512, 576, 3072)):
            weight, given = torch.randn(outputs, inputs).bfloat16(), torch.randn(rows, inputs).bfloat16()
            seconds = min(_times(lambda w=weight, g=given: torch.nn.functional.linear(g, w), 5))  # type: ignore[misc]
            best[f"{rows} x {inputs} x {outputs}"] = 2 * rows * inputs * outputs / seconds
        return {"value": max(best.values()), "ours": list(best.values())[-1], "shapes": best}

    def _bytes(self, mode: str, seed: str) -> dict[str, Any]:
        """Bytes of weights that a step must read, and of keys and values for each token behind it."""
        model = self._model(mode)
        source = locate(None)
        if mode == "fast" and source.file is not None:
            from gguf import GGUFReader

            weights = sum(int(tensor.n_bytes) for tensor in GGUFReader(source.file).tensors)
        else:
            weights = sum(shape.numel() for name, shape in _shapes(model).items() if name != "lm_head.weight") * 2
        return {"value": weights, "of_a_token": model.shape.bytes_per_token}

    def _profile(self, mode: str, tokens: int, behind: int, seed: str) -> dict[str, Any]:
        """Where the time of a prompt, or of a step that says one token, goes."""
        model = self._model(mode)
        pages = Pages(model.shape, -(-(tokens + behind + 1) // model.shape.page))
        table, known = range(pages.room), prompt(seed, tokens + behind)
        if behind:
            model.forward([Piece(table, 0, known[:behind], wants=False)], pages)

        def work() -> None:
            for start in range(behind, behind + tokens, CHUNK):
                stop = min(start + CHUNK, behind + tokens)
                model.forward([Piece(table, start, known[start:stop], wants=tokens == 1)], pages)

        seconds = _times(work, 3 if tokens > 1 else 21)
        with profile(activities=[ProfilerActivity.CPU]) as seen, _labelled(Native), record_function(REST):
            work()
        own = {one.key: float(one.self_cpu_time_total) / 1e6 for one in seen.key_averages()}
        top = dict(sorted(own.items(), key=lambda one: -one[1])[:12])
        products = sum(took for key, took in own.items() if any(part in key for part in PRODUCTS))
        multiplied = sum(
            shape.numel()
            for name, shape in _shapes(model).items()
            if len(shape) == 2 and "embed" not in name and "lm_head" not in name
        )
        rate = 2 * multiplied * tokens / products if products else 0.0
        return {
            "value": median(seconds),
            "top": top,
            "products_s": products,
            "products_flops": rate,
            "all_s": sum(own.values()),
        }

    def _linear(self, context: int, seed: str) -> dict[str, Any]:
        """Seconds of a token behind so many, in a small model of random weights, on pages of random numbers."""
        model, pages = self._small()
        table = range(-(-(context + 1) // model.shape.page))
        seconds = _times(lambda: model.forward([Piece(table, context, [7], wants=True)], pages), 41)
        return {"value": median(seconds), "seconds": seconds}

    def _model(self, mode: str) -> Model:
        if mode not in self._models:
            named: Literal["exact", "fast"] = "fast" if mode == "fast" else "exact"
            self._models[mode] = Model.load(locate(None), way=Way(mode=named))
        return self._models[mode]

    def _small(self) -> tuple[Model, Pages]:
        if self._long is None:
            torch.manual_seed(0)
            source = locate(None)
            config = LlamaConfig(
                vocab_size=1024,
                hidden_size=256,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=8,
                num_key_value_heads=2,
                max_position_embeddings=POSITIONS,
            )
            untyped: Any = LlamaForCausalLM
            with tempfile.TemporaryDirectory() as folder:
                untyped(config).save_pretrained(folder)
                for file in Path(source.path).glob("token*"):
                    (Path(folder) / file.name).write_bytes(file.read_bytes())
                model = Model.load(Source(folder, "small"), dtype="bfloat16")
            pages = Pages(model.shape, POSITIONS // model.shape.page)
            for layer in range(model.shape.layers):
                pages.k[layer].normal_()
                pages.v[layer].normal_()
            self._long = model, pages
        return self._long


async def opened(settings: dict[str, Any]) -> Limits:
    """Nothing is loaded yet."""
    return Limits(settings)


@contextmanager
def _labelled(owner: type) -> Iterator[None]:
    """While somebody looks, operations of ours that torch does not know show under their own names."""
    own = {name: each for name, each in vars(owner).items() if callable(each) and not name.startswith("_")}
    for name, each in own.items():
        setattr(owner, name, _label(f"ours: {name}", each))
    try:
        yield
    finally:
        for name, each in own.items():
            setattr(owner, name, each)


def _label(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(work)
    def shown(*given: Any, **named: Any) -> Any:
        with record_function(name):
            return work(*given, **named)

    return shown


def _shapes(model: Model) -> dict[str, torch.Size]:
    return model._shapes


def _times(work: Callable[[], object], runs: int) -> list[float]:
    found = []
    for _ in range(runs + 2):  # the first two warm
        begun = perf_counter()
        work()
        found.append(perf_counter() - begun)
    return found[2:]
