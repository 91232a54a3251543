"""A tool that never returns must not stop its agent: calls with a time limit."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from typing import TypeVar

import anyio

Result = TypeVar("Result")


class ToolTimedOut(Exception):
    """A tool did not come back in time. A thread cannot be ended from outside: it may still be running."""


def within(seconds: float | None, call: Callable[[], Result]) -> Result:
    """The result of `call`, or ToolTimedOut after `seconds`; None waits for ever.

    The call runs in a thread of its own, with the caller's context, so that a tool which never returns costs that
    thread and nothing else; the thread does not keep the process from ending.
    """
    if seconds is None:
        return call()
    future: Future[Result] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:  # handed over whole: the waiting side raises it
            future.set_exception(error)

    threading.Thread(target=work, name="sostenuto-tool", daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except Late:
        if future.done():
            raise  # the tool's own TimeoutError
        raise ToolTimedOut(f"it did not answer within {seconds:g} s") from None


async def awithin(seconds: float | None, call: Callable[[], Awaitable[Result]]) -> Result:
    """As `within`, for coroutines: the call is cancelled when its time is over."""
    if seconds is None:
        return await call()
    with anyio.move_on_after(seconds):
        return await call()
    raise ToolTimedOut(f"it did not answer within {seconds:g} s")
