"""What a call does one after the other, and the two ways of doing it: in a thread, and in an event loop.

The rules of a call are a generator that yields what it wants done. So they stand in one place, wait nowhere, and are
the same for graphs that are invoked and for graphs that are awaited.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Awaitable, Callable, Generator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures import TimeoutError as Late
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import anyio

from .cancel import Scope, inside
from .deadline import ToolTimedOut

Done = TypeVar("Done")


class Stopped(Exception):
    """The call was given up, by somebody else than its caller, while something of it ran."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Until something is done, or `seconds` are over: then ToolTimedOut."""

    on: Future[Any]
    seconds: float | None


@dataclass(frozen=True, slots=True)
class Sleep:
    """For so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of the tool, and perhaps a second one beside it after `hedge` seconds; the first answer counts.

    A thread cannot be ended from outside. `left` is told of each that still ran when its attempt was over, by a future
    that is done when the thread is.
    """

    seconds: float | None
    left: Callable[[Future[Any]], object]
    hedge: float | None = None


@dataclass(frozen=True, slots=True)
class Consult:
    """Ask somebody, in the caller's own context: `here` in a thread, `there` in an event loop."""

    here: Callable[[], Any]
    there: Callable[[], Awaitable[Any]]


Step: TypeAlias = Wait | Sleep | Attempt | Consult
Steps: TypeAlias = Generator[Step, Any, Done]


def drive(steps: Steps[Done], attempt: Callable[[], Any], scope: Scope) -> Done:
    """Does the steps in this thread. Each attempt has a thread of its own, which is left behind if it does not end."""
    result: Any = None
    fault: BaseException | None = None
    while True:
        try:
            step = steps.send(result) if fault is None else steps.throw(fault)
        except StopIteration as done:
            value: Done = done.value
            return value
        result, fault = None, None
        try:
            match step:
                case Wait(on, seconds):
                    result = _until(on, seconds, scope)
                case Sleep(seconds):
                    if scope.wait(seconds):
                        raise Stopped(scope.why)
                case Consult(here, _):
                    result = here()
                case Attempt():
                    result = _in_threads(attempt, step, scope)
        except BaseException as error:  # handed over whole: the steps know what to make of it
            fault = error


async def adrive(steps: Steps[Done], attempt: Callable[[], Awaitable[Any]], scope: Scope) -> Done:
    """As `drive`, in an event loop: an attempt that is given up is cancelled."""
    result: Any = None
    fault: BaseException | None = None
    while True:
        try:
            step = steps.send(result) if fault is None else steps.throw(fault)
        except StopIteration as done:
            value: Done = done.value
            return value
        result, fault = None, None
        try:
            result = await _stoppable(step, attempt, scope)
        except BaseException as error:  # as above; the steps raise a cancellation again
            fault = error


def _until(on: Future[Any], seconds: float | None, scope: Scope) -> Any:
    if on.done() and not scope.cancelled:
        return on.result()
    stop: Future[None] = Future()
    scope.hear(lambda: stop.set_result(None))
    wait([on, stop], timeout=seconds, return_when=FIRST_COMPLETED)
    if on.done():
        return on.result()
    if stop.done():
        raise Stopped(scope.why)
    raise ToolTimedOut(f"it could not begin within {seconds:g} s")


class _Race:
    """Attempts side by side: decided by the first that answers, or when the last has failed."""

    def __init__(self, scope: Scope) -> None:
        self.verdict: Future[Any] = Future()
        self.threads: list[Future[Any]] = []
        self._scope = scope
        self._lock = threading.Lock()
        self._open = 0

    def start(self, attempt: Callable[[], Any]) -> None:
        """In a thread of its own, with this context; it does not keep the process from ending."""
        ended: Future[Any] = Future()
        with inside(self._scope):
            context = contextvars.copy_context()
        with self._lock:
            self._open += 1

        def work() -> None:
            result, fault = None, None
            try:
                result = context.run(attempt)
            except BaseException as error:  # handed over whole: the waiting side raises it
                fault = error
            ended.set_result(None)  # first: who hears the verdict must not find this still running
            self._over(result, fault)

        self.threads.append(ended)
        threading.Thread(target=work, name="sostenuto-tool", daemon=True).start()

    def stop(self, error: BaseException) -> None:
        with self._lock:
            if not self.verdict.done():
                self.verdict.set_exception(error)

    def _over(self, result: Any, error: BaseException | None) -> None:
        with self._lock:
            self._open -= 1
            if self.verdict.done():
                return
            if error is None:
                self.verdict.set_result(result)
            elif not self._open:
                self.verdict.set_exception(error)


def _in_threads(attempt: Callable[[], Any], step: Attempt, scope: Scope) -> Any:
    own, seconds = Scope(), step.seconds
    if seconds is None and step.hedge is None:  # nothing to watch: no thread is needed
        scope.hear(lambda: own.cancel(scope.why))
        with inside(own):
            return attempt()
    race = _Race(own)
    scope.hear(lambda: race.stop(Stopped(scope.why)))
    race.start(attempt)
    if step.hedge is not None and (seconds is None or step.hedge < seconds):
        wait([race.verdict], timeout=step.hedge)
        if not race.verdict.done():
            race.start(attempt)
            seconds = None if seconds is None else seconds - step.hedge
    try:
        return race.verdict.result(timeout=seconds)
    except Late:
        if race.verdict.done():
            raise  # the tool's own TimeoutError
        raise ToolTimedOut(f"it did not answer within {step.seconds:g} s") from None
    finally:
        own.cancel("nobody waits for it any more")  # a tool that asks will stop
        for thread in race.threads:
            if not thread.done():
                step.left(thread)


async def _stoppable(step: Step, attempt: Callable[[], Awaitable[Any]], scope: Scope) -> Any:
    loop = asyncio.get_running_loop()
    with anyio.CancelScope() as limit:

        def stop() -> None:
            with suppress(RuntimeError):  # the loop is closed, and with it the step is over
                loop.call_soon_threadsafe(limit.cancel)

        scope.hear(stop)
        match step:
            case Wait(on, seconds):
                with anyio.move_on_after(seconds):
                    return await asyncio.wrap_future(on)
                raise ToolTimedOut(f"it could not begin within {seconds:g} s")
            case Sleep(seconds):
                await anyio.sleep(seconds)
                return None
            case Consult(_, there):
                return await there()
            case Attempt():
                return await _in_tasks(attempt, step)
    raise Stopped(scope.why)


async def _in_tasks(attempt: Callable[[], Awaitable[Any]], step: Attempt) -> Any:
    own = Scope()
    try:
        with inside(own), anyio.move_on_after(step.seconds):
            return await (attempt() if step.hedge is None else _hedged(attempt, step.hedge))
    finally:
        own.cancel("nobody waits for it any more")  # what it runs in threads may ask
    raise ToolTimedOut(f"it did not answer within {step.seconds:g} s")


async def _hedged(attempt: Callable[[], Awaitable[Any]], hedge: float) -> Any:
    answers: list[Any] = []
    faults: list[Exception] = []
    running = 0
    over = anyio.Event()

    async def one() -> None:
        nonlocal running
        running += 1
        try:
            answers.append(await attempt())
        except Exception as error:  # whatever it raises is raised where the race is decided
            faults.append(error)
        running -= 1
        if answers or not running:
            over.set()

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        with anyio.move_on_after(hedge):
            await over.wait()
        if not over.is_set():
            group.start_soon(one)
            await over.wait()
        group.cancel_scope.cancel()
    if not answers:
        raise faults[-1]
    return answers[0]
