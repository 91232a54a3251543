"""How callers on other threads enter an event loop: never blocking, in order, and not after its end."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from .errors import HostClosed

Result = TypeVar("Result")


class Portal:
    """The way into one event loop, which opens it from inside and may be shut from anywhere."""

    def __init__(self) -> None:
        self.closed = False
        self.why = ""
        """What it was closed by, if nobody asked for it."""
        self._door = threading.Lock()  # nobody comes in between the look at `closed` and the loop's end
        self._loop: asyncio.AbstractEventLoop | None = None

    def open(self) -> None:
        """Called in the loop, before anybody comes."""
        self._loop = asyncio.get_running_loop()

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Have it called in the loop; if that is closed, nothing is left that could be changed."""
        with suppress(RuntimeError):
            self._inside.call_soon_threadsafe(function, *arguments)

    @contextmanager
    def entering(self) -> Iterator[None]:
        """In here the loop does not close. Raises HostClosed if it has been."""
        with self._door:
            if self.closed:
                raise HostClosed(f"this host is closed{self.why}: open another one")
            yield

    def within(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Let the loop do something, after everything it was told so far. Raises HostClosed."""
        try:
            with self.entering():
                return asyncio.run_coroutine_threadsafe(work, self._inside)
        except HostClosed:
            work.close()
            raise

    def shut(self, last: Callable[[], object]) -> None:
        """Nobody comes in any more; `last` is the last that is called."""
        with self._door:
            self.closed = True
            self.call(last)

    @property
    def _inside(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None  # whoever made the portal waits until it is open
        return self._loop
