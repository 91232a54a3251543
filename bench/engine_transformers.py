"""transformers in the benchmark of engines: `generate`, and its own continuous batching over paged attention."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.metadata import version
from itertools import count as numbers
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig, StoppingCriteria

from sostenuto.bench.engine_speaking import Heard, Single

PAGE = 32
STEP = 1024
"""Tokens of a step of continuous batching at most."""


class Generate(Single):
    """`model.generate` on a batch of prompts of one length; nothing is kept from one call to the next."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._model = _model(settings)
        self._turn = asyncio.Lock()
        self.versions = _versions()
        self.settings = {"attention": "sdpa", "cache": "DynamicCache"}

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        return (await self.together([prompt], count))[0]

    async def together(self, prompts: Sequence[Sequence[int]], count: int) -> list[Heard]:
        heard = [Heard() for _ in prompts]
        async with self._turn:
            await asyncio.to_thread(self._generate, prompts, count, heard)
        return heard

    def _generate(self, prompts: Sequence[Sequence[int]], count: int, heard: list[Heard]) -> None:
        tokens = torch.tensor([list(prompt) for prompt in prompts])
        self._model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            generation_config=_generation(count),
            stopping_criteria=[_Listening(heard)],
        )


class Batching(Single):
    """A manager that runs all the time; prefixes are shared as it likes."""

    def __init__(self, settings: dict[str, Any]) -> None:
        batching = ContinuousBatchingConfig(
            num_blocks=settings["pool_tokens"] // PAGE, page_size=PAGE, max_batch_tokens=STEP
        )
        model = _model(settings)
        self._manager = model.init_continuous_batching(
            generation_config=_generation(64), continuous_batching_config=batching
        )
        self._manager.start()
        self._numbers = numbers(1)
        self.versions = _versions()
        self.settings = {"pool_tokens": settings["pool_tokens"], "page": PAGE, "step_tokens": STEP}

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        name, heard = f"request-{next(self._numbers)}", Heard()
        over = asyncio.get_running_loop().create_future()

        def came(found: Any) -> None:
            heard.hear(found.generated_tokens[len(heard.tokens) :])
            if found.is_finished() and not over.done():
                over.set_result(found.error)

        self._manager.register_result_handler(name, came)
        self._manager.add_request(list(prompt), request_id=name, max_new_tokens=count, streaming=True)
        if (fault := await over) is not None:
            raise RuntimeError(f"continuous batching: {fault}")
        return heard

    async def close(self) -> None:
        self._manager.stop(block=True, timeout=10)


class _Listening(StoppingCriteria):
    """Called once a step, when its tokens are there; stops nothing."""

    def __init__(self, heard: list[Heard]) -> None:
        self._heard = heard

    def __call__(self, input_ids: Any, scores: Any, **more: Any) -> Any:
        for one, row in zip(self._heard, input_ids, strict=True):
            one.hear([int(row[-1])])
        return torch.zeros(len(input_ids), dtype=torch.bool)


async def opened(settings: dict[str, Any]) -> Single:
    """The converted model in bfloat16."""
    return Batching(settings) if settings["batching"] else Generate(settings)


def _model(settings: dict[str, Any]) -> Any:
    torch.set_num_threads(len(settings["cores"]))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        settings["model"], dtype=torch.bfloat16, attn_implementation="sdpa", local_files_only=True
    )
    return loaded.eval()


def _generation(count: int) -> Any:
    untyped: Any = GenerationConfig
    return untyped(max_new_tokens=count, min_new_tokens=None, do_sample=False, eos_token_id=-1, pad_token_id=2)


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("transformers", "torch")}
