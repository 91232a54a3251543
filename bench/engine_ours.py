"""Ours, in the benchmark of engines: the host as anybody opens it, asked below its doors, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from time import perf_counter
from typing import Any, cast

import torch

from sostenuto.bench.engine_speaking import Heard, Single
from sostenuto.kvstore.pages import Pages
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.model import Piece as Part
from sostenuto.runtime.host import Host
from sostenuto.runtime.request import Request
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.ticket import Ended, Piece
from sostenuto.scheduler import Closed, ProgramId, ToolEnded, ToolStarted

TOOL = "tool"


class Ours(Single):
    """Sessions are programs that tell of their tools, as a wrapped graph does."""

    def __init__(self, settings: dict[str, Any]) -> None:
        torch.set_num_threads(len(settings["cores"]))
        self._host = Host.open(mode=settings["mode"], pool_tokens=settings["pool_tokens"])
        engine = cast(TorchEngine, self._host.engine)
        model = engine.model
        model.eos = ()  # answers are as long as is asked for, at every peer
        self._spans: list[tuple[float, float]] = []
        forward = model.forward

        def timed(pieces: Sequence[Part], pages: Pages) -> torch.Tensor:
            begun = perf_counter()
            logits = forward(pieces, pages)
            self._spans.append((begun, perf_counter()))
            return logits

        model.forward = timed  # type: ignore[method-assign]
        self.versions = {name: version(name) for name in ("torch", "transformers")}
        chosen = model.chosen
        self.settings = {"path": chosen.path.name, "kernels": chosen.kernels, "mode": chosen.mode}
        self.settings |= {"pool_tokens": engine.room * engine.page, "page": engine.page}

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        tools = (TOOL,) if pauses else ()
        request = Request(
            session, "main", tuple(prompt), Sampling(max_tokens=count), tools_called=lambda text, reason: tools
        )
        heard = Heard()
        async for each in self._host.loop.submit(request):
            if isinstance(each, Piece) and each.token is not None:
                heard.hear([each.token])
            elif isinstance(each, Ended):
                heard.cached, heard.recomputed = each.facts.reused_tokens, each.facts.recomputed_tokens
        program = ProgramId(session)
        self._host.tell(ToolStarted(program, TOOL, session) if pauses else Closed(program))
        return heard

    def returned(self, session: str) -> None:
        self._host.tell(ToolEnded(ProgramId(session), TOOL, session))

    def computing(self, begin: float, end: float) -> float | None:
        return sum(max(0.0, min(end, after) - max(begin, before)) for before, after in self._spans)

    async def close(self) -> None:
        self._host.close()


async def opened(settings: dict[str, Any]) -> Ours:
    """The packaged model in the mode that was asked for."""
    return Ours(settings)
