"""From a few words to an engine: what the command line and the demo call one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from .engines import Mode, StepEngine, TurnEngine
from .host import POOL_TOKENS

ENGINES = ("torch", "vllm", "openai")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which engine, and where it is."""

    kind: str = "torch"
    model: str | None = None
    """For `torch` what to load, for servers the name under which they serve it; None: the packaged, or first, one."""
    url: str | None = None
    api_key: str | None = None
    pool_tokens: int | None = None
    """None: POOL_TOKENS. A server has a pool of its own."""
    mode: Mode = "exact"
    """Of the engine `torch`."""
    tokenizer: str | None = None
    """For a vLLM server whose model is not found under the name it gives: a directory or hub id."""


def open_engine(wanted: Wanted) -> StepEngine | TurnEngine:
    """Load or reach the engine. ValueError for words that do not go together, and whatever the engine raises."""
    if wanted.kind not in ENGINES:
        raise ValueError(f"there is no engine {wanted.kind!r}: choose one of {', '.join(ENGINES)}")
    if wanted.kind == "torch":
        if wanted.url is not None:
            raise ValueError(f"the engine torch runs here and has no url (found {wanted.url}): choose vllm or openai")
        # Each engine brings its own libraries: only who asks for it pays for them.
        from .engines.torch.engine import TorchEngine
        from .engines.torch.model import Model
        from .engines.torch.ways import Way
        from .engines.torch.weights import locate

        model = Model.load(locate(wanted.model), way=Way(mode=wanted.mode))
        return TorchEngine(model, pool_tokens=wanted.pool_tokens or POOL_TOKENS)
    if wanted.mode != "exact":
        raise ValueError(f"the mode {wanted.mode} is the engine torch's: leave it out for {wanted.kind}")
    if wanted.pool_tokens is not None:
        raise ValueError(f"a server has a pool of its own: found {wanted.pool_tokens} pool tokens for {wanted.kind}")
    if wanted.url is None:
        such = "http://127.0.0.1:8000" + ("/v1" if wanted.kind == "openai" else "")
        raise ValueError(f"the engine {wanted.kind} is behind a server: give its url, such as {such}")
    if wanted.kind == "vllm":
        from .engines.vllm.engine import VllmEngine

        return VllmEngine.connect(wanted.url, model=wanted.model, tokenizer=wanted.tokenizer, api_key=wanted.api_key)
    from .engines.openai import OpenAIEngine

    engine = OpenAIEngine(wanted.url, model=wanted.model, api_key=wanted.api_key)
    asyncio.run(engine.probe())
    return engine
