"""The turn clock: an engine behind a server runs a turn from its start to its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from ..scheduler import Grow, Start, TurnId
from .clock import Reports
from .engines import Job, Said, TurnEngine

_log = logging.getLogger(__name__)


class TurnClock:
    """A task for each turn that runs. Giving a turn up closes its request."""

    def __init__(self, engine: TurnEngine, reports: Reports) -> None:
        self._engine = engine
        self._reports = reports
        self._turns: dict[TurnId, asyncio.Task[None]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._stopped = asyncio.Event()

    def begin(self, job: Job, effect: Start) -> int:
        job.pages, job.computed = list(effect.pages), effect.reuse
        task = asyncio.get_running_loop().create_task(self._say(job))
        self._turns[job.turn] = task
        task.add_done_callback(lambda over: self._over(job.turn, over))
        return 0

    def grow(self, effect: Grow) -> None:
        raise AssertionError("a turn behind a server has all its pages from its start")

    def suspend(self, turn: TurnId) -> None:
        raise AssertionError("a turn behind a server cannot be taken out")

    def drop(self, turn: TurnId) -> None:
        task = self._turns.pop(turn, None)
        if task is not None and task is not asyncio.current_task():
            task.cancel()

    def rest(self, turn: TurnId) -> str:
        return ""

    def hold(self, key: str, seconds: float) -> None:
        if self._engine.can.hold:
            self._errand(self._engine.hold(key, seconds))

    def release(self, key: str) -> None:
        if self._engine.can.hold:
            self._errand(self._engine.release(key))

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        yield  # there are no steps of ours

    async def at_rest(self) -> None:
        """There are no pages of ours either."""

    async def run(self) -> None:
        await self._stopped.wait()
        tasks = [*self._turns.values(), *self._errands]
        for task in self._turns.values():
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._engine.aclose()

    def stop(self) -> None:
        self._stopped.set()

    async def _say(self, job: Job) -> None:
        async with aclosing(self._engine.say(job)) as answer:  # type: ignore[type-var]  # generators, all of them
            async for said in answer:
                if job.turn in self._turns:
                    self._settle(job, said)
                if job.turn not in self._turns:
                    return  # it has ended, or nobody wants it

    def _settle(self, job: Job, said: Said) -> None:
        computed = 0
        if said.token is not None:
            # The server does not say which rows it computed: what is known is behind it when a token comes.
            computed = len(job.tokens) - job.computed
            job.computed += computed
            job.tokens.append(said.token)
        self._reports.settle([replace(said, computed=computed)])

    def _over(self, turn: TurnId, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is None and turn not in self._turns:
            return
        known = self._turns.pop(turn, None)
        fault = None if task.cancelled() else task.exception()
        if fault is not None:
            self._reports.lost([turn], fault)
        elif known is not None and not task.cancelled():
            self._reports.lost([turn], EOFError("the answer broke off before its end"))

    def _errand(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._errands.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            # A hold that could not be had costs time, never correctness.
            _log.warning("the server's holds could not be changed: %s", fault)
