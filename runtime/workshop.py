"""Grammars are built here, beside whoever asks: no event loop waits for one, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, InvalidStateError
from contextlib import suppress
from contextvars import copy_context
from threading import Condition, Lock, Thread, Timer
from typing import TypeAlias

from ..tools import Grammar, GrammarRefused
from .ticket import Ticket

DEADLINE = 10.0
"""Seconds that a grammar may take; those of real tools take some milliseconds."""
MOST = 16
"""Grammars that may be in the making at once, those included that nobody waits for any more."""

Build: TypeAlias = Callable[[], Grammar | None]
Built: TypeAlias = "Future[Grammar | None]"


class Workshop:
    """Of one host. What takes too long is refused, and refused at once while it still goes on.

    A thread cannot be stopped, but it can be left alone: engines build without Python's lock.
    """

    def __init__(self, deadline: float = DEADLINE, most: int = MOST) -> None:
        self._deadline = deadline
        self._most = most
        self._making: set[str] = set()
        self._late: set[str] = set()
        self._lock = Lock()
        self._coming = 0
        self._handed = Condition()

    def begin(self, key: str, build: Build) -> Built:
        """What `build` gives or raises, or GrammarRefused after the deadline. `key` is the same for equal work."""
        built: Built = Future()
        with self._lock:
            if key in self._late:
                built.set_exception(_refused(f"it has taken more than {self._deadline:g} s, and still does"))
                return built
            if len(self._making) >= self._most:
                built.set_exception(_refused(f"{self._most} others are being built: ask again later"))
                return built
            mine = f"{key} {id(built)}"
            self._making.add(mine)
        timer = Timer(self._deadline, self._give_up, (key, built))
        timer.daemon = True
        context = copy_context()  # for spans

        def work() -> None:
            try:
                _settle(built, context.run(build))
            except BaseException as error:  # whatever it is, it belongs to whoever asked
                _settle(built, error)
            finally:
                timer.cancel()
                with self._lock:
                    self._making.discard(mine)
                    self._late.discard(key)

        timer.start()
        Thread(target=work, name="sostenuto-grammar", daemon=True).start()
        return built

    def bring(self, key: str, build: Build, submit: Callable[[Grammar | None, Ticket | None], Ticket]) -> Ticket:
        """Hands a turn in with its grammar. On a thread of its own the caller waits and errors are raised; in an event
        loop this returns at once, and they come out of the ticket."""
        built = self.begin(key, build)
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return submit(built.result(), None)

        def given_up() -> None:
            if built.cancel():
                ticket.put(CancelledError("cancelled before its grammar was built"))

        ticket = Ticket(given_up)

        def done(built: Built) -> None:
            try:
                if not built.cancelled():
                    submit(built.result(), ticket)
            except BaseException as fault:  # of the grammar, or as above: the host may be closed by now
                ticket.put(fault)
            finally:
                with self._handed:
                    self._coming -= 1
                    self._handed.notify_all()

        with self._handed:
            self._coming += 1
        built.add_done_callback(done)
        return ticket

    def wait(self) -> None:
        """Until all that event loops have asked for so far is handed in, or was refused: the deadline at most."""
        with self._handed:
            self._handed.wait_for(lambda: not self._coming, self._deadline)

    def _give_up(self, key: str, built: Built) -> None:
        with self._lock:
            if not built.done():
                self._late.add(key)
        _settle(built, _refused(f"it takes more than {self._deadline:g} s to build"))


def _settle(built: Built, found: Grammar | BaseException | None) -> None:
    """The first word counts: who comes too late, or was cancelled, is not heard."""
    with suppress(InvalidStateError):
        if isinstance(found, BaseException):
            built.set_exception(found)
        else:
            built.set_result(found)


def _refused(why: str) -> GrammarRefused:
    return GrammarRefused("these tools or this schema", why)
