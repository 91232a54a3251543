"""How a tool hears that nobody waits for it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_here: ContextVar[Scope | None] = ContextVar("sostenuto_tool_scope", default=None)


class Scope:
    """One call's: may be cancelled from any thread, once, and says why."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._heard: list[Callable[[], object]] = []
        self._event = threading.Event()
        self.why = ""

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self, why: str) -> None:
        """Whoever asked to hear of it does, on this thread."""
        with self._lock:
            if self._event.is_set():
                return
            self.why = why
            self._event.set()
            heard, self._heard = self._heard, []
        for call in heard:
            call()

    def hear(self, call: Callable[[], object]) -> None:
        """Have it called when this is cancelled, at once if it is already."""
        with self._lock:
            if not self._event.is_set():
                self._heard.append(call)
                return
        call()

    def wait(self, seconds: float | None) -> bool:
        """Sleep for so long, less if it is cancelled; whether it was."""
        return self._event.wait(seconds)


def cancelled() -> bool:
    """Whether the call in which this is asked was given up: a tool that runs in a thread should then stop.

    A coroutine need not ask: it is cancelled. False outside of any call.
    """
    scope = _here.get()
    return scope is not None and scope.cancelled


def when_cancelled(call: Callable[[], object]) -> None:
    """Have it called when the call in which this is asked is given up; never outside of any call."""
    scope = _here.get()
    if scope is not None:
        scope.hear(call)


@contextmanager
def inside(scope: Scope) -> Iterator[None]:
    """In here, `cancelled` asks this scope; so does whatever thread gets this context."""
    token = _here.set(scope)
    try:
        yield
    finally:
        _here.reset(token)
