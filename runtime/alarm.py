"""One timer for all that ends by itself: one for each hold would leave thousands behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarm:
    """Rings at the earliest time it was set to; whoever hears it sets it anew. For one event loop."""

    def __init__(self, now: Callable[[], float], ring: Callable[[], object]) -> None:
        self._now = now
        self._ring = ring
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def set(self, at: float | None) -> None:
        """Ring at this time of the clock, or before; None changes nothing."""
        if at is None or (self._timer is not None and at >= self._at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(max(0.0, at - self._now()) + 0.001, self._rung)

    def _rung(self) -> None:
        self._timer = None
        self._ring()
