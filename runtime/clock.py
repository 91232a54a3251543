"""What drives an engine, and what it reports to."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from ..scheduler import Grow, Start, TurnId
from .engines import Job, Said


class Reports(Protocol):
    """The loop, as a clock sees it."""

    def need(self, turns: tuple[TurnId, ...]) -> None:
        """These cannot go on without more pages."""
        ...

    def settle(self, said: Sequence[Said]) -> None:
        """This was computed and said."""
        ...

    def lost(self, turns: Sequence[TurnId] | None, fault: BaseException) -> None:
        """These turns cannot be finished; None: all that run."""
        ...


class Clock(Protocol):
    """Carries out the kernel's effects on an engine. Everything happens on the loop's own thread."""

    def begin(self, job: Job, effect: Start) -> int:
        """Run a turn; returns how many reused tokens have keys and values that older weights made."""
        ...

    def grow(self, effect: Grow) -> None: ...
    def suspend(self, turn: TurnId) -> None: ...
    def drop(self, turn: TurnId) -> None:
        """Forget a turn, an unknown one too."""
        ...

    def rest(self, turn: TurnId) -> str:
        """Text of a turn that is still held back; no step may run."""
        ...

    def hold(self, key: str, seconds: float) -> None: ...
    def release(self, key: str) -> None: ...
    def paused(self) -> AbstractAsyncContextManager[None]:
        """In here no step runs."""
        ...

    async def at_rest(self) -> None:
        """Returns when every step that was planned is over, and every copy that was asked for is made.

        Until then somebody who is gone may still write on pages that have another owner by now.
        """
        ...

    async def run(self) -> None:
        """Drive the engine until `stop`."""
        ...

    def stop(self) -> None: ...
