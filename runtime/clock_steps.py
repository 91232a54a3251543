"""The step clock: a forward pass at a time, computed on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from ..scheduler import Grow, Start, TurnId
from .clock import Reports
from .engines import Job, Paced, StepEngine


class StepClock:
    """Plans a step, lets it be computed, reports what came of it, and again."""

    def __init__(
        self, engine: StepEngine, reports: Reports, compute: ThreadPoolExecutor, *, now: Callable[[], float]
    ) -> None:
        self._engine = engine
        self._paced = engine if isinstance(engine, Paced) else None  # once: asking a protocol takes long
        self._reports = reports
        self._compute = compute
        self._now = now
        self._work = asyncio.Event()
        self._stepping = asyncio.Lock()
        self._stopped = asyncio.Event()

    def begin(self, job: Job, effect: Start) -> int:
        self._work.set()
        return self._engine.start(job, effect)

    def grow(self, effect: Grow) -> None:
        self._engine.grow(effect)

    def suspend(self, turn: TurnId) -> None:
        self._engine.suspend(turn)

    def drop(self, turn: TurnId) -> None:
        self._engine.drop(turn)

    def rest(self, turn: TurnId) -> str:
        return self._engine.rest(turn)

    def hold(self, key: str, seconds: float) -> None:
        """Books only: the kernel has changed them already."""

    def release(self, key: str) -> None:
        """As with holds."""

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        async with self._stepping:  # fair: whoever waits is next when the step is over
            yield

    async def at_rest(self) -> None:
        async with self.paused():
            self._engine.flush()

    async def run(self) -> None:
        while not self._stopped.is_set():
            async with self._stepping:
                if await self._step():
                    continue
            self._work.clear()
            await self._work.wait()

    def stop(self) -> None:
        self._stopped.set()
        self._work.set()

    async def _step(self) -> bool:
        """One step; False when there is nothing to do."""
        if self._stopped.is_set():
            return True
        if short := self._engine.short():
            self._reports.need(short)
        step = self._engine.plan()
        if step is None:
            return False
        begun = self._now()
        try:
            future = asyncio.get_running_loop().run_in_executor(self._compute, self._engine.run, step)
        except RuntimeError:
            self._stopped.set()  # the interpreter is shutting down and takes no new work
            return True
        await asyncio.wait([future])
        if self._paced is not None:
            self._paced.pace.took(self._now() - begun)
        fault = future.exception()
        if self._stopped.is_set():
            return True
        if fault is not None:
            self._reports.lost(None, fault)
        else:
            self._reports.settle(future.result())
        return True
