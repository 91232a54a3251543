"""An engine of a script, for the benchmark of engines, in this process or in one of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sostenuto.bench.engine_speaking import Heard, Single


class Scripted(Single):
    """Says 7, at times of its own, and finds so many tokens of each prompt."""

    def __init__(self, times: Sequence[Sequence[float]] = (), cached: int = 0) -> None:
        self.asked: list[list[int]] = []
        self.back: list[str] = []
        self.versions: dict[str, str] = {}
        self.settings: dict[str, Any] = {}
        self._times, self._cached = list(times), cached

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        self.asked.append(list(prompt))
        heard = Heard(cached=self._cached)
        for _ in range(count):
            heard.hear([7])
        if count > 1 and self._times:
            heard.asked, heard.times = 0.0, list(self._times.pop(0))
        return heard

    def returned(self, session: str) -> None:
        self.back.append(session)

    def computing(self, begin: float, end: float) -> float | None:
        return 0.75 * (end - begin)


async def opened(settings: dict[str, Any]) -> Scripted:
    """What a worker opens. It finds as many tokens as the pool has."""
    return Scripted(cached=settings["pool_tokens"])
