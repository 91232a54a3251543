"""Sessions that may be thinned, a crowd that takes their pages, and an engine that waits while it thins."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from sostenuto.runtime.engines import Said
from sostenuto.runtime.engines.torch.engine import Step, TorchEngine
from sostenuto.runtime.engines.torch.thinning import Cut
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session

from .conftest import Pair, draw

COLD = Sampling(max_tokens=8, logprobs=5)


def session(host: Host, prompt: Sequence[int] = (), **rest: Any) -> Session:
    """One of 90 tokens that may be thinned, unless something else is said."""
    opened = Session(host, sampling=rest.pop("sampling", COLD), **{"exact": False, **rest})
    opened.feed(prompt or draw(90))
    return opened


def rows(host: Host) -> int:
    assert isinstance(host.engine, TorchEngine)
    return host.engine.rows


def crowd(host: Host) -> None:
    """Somebody who needs all of a pool of 128 tokens."""
    with Session(host, sampling=Sampling(max_tokens=4)) as rival:
        rival.feed(draw(118, seed=50))
        rival.generate()


class Slow(TorchEngine):
    """Waits before it thins anything, until it is let; logs what the compute thread does."""

    def __init__(self, pair: Pair, chunk: int = 512) -> None:
        super().__init__(pair.ours, pool_tokens=2048, chunk=chunk)
        self.begun, self.let = threading.Event(), threading.Event()
        self.log: list[str] = []

    def run(self, step: Step) -> Sequence[Said]:
        self.log.append("step")
        return super().run(step)

    def cutting(self, policy: str, budget: int) -> Cut:
        cut = super().cutting(policy, budget)
        step = cut.step

        def waits() -> bool:
            self.begun.set()
            self.let.wait()
            self.log.append("cut")
            return step()

        cut.step = waits  # type: ignore[method-assign]
        return cut


def aside(work: Callable[[], object]) -> tuple[threading.Thread, list[BaseException | object]]:
    """Begins something on a thread of its own; what came of it, or was raised, is in the list in the end."""
    came: list[BaseException | object] = []

    def run() -> None:
        try:
            came.append(work())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, came
