"""What every peer's process does for the benchmark of engines: say so many tokens after a prompt, and tell when."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

LOW, HIGH = 300, 40_000
"""Tokens of made-up prompts: none of them is special to the packaged model."""


@dataclass(slots=True)
class Heard:
    """An answer: when so many tokens of it were there, by the client's clock."""

    asked: float = field(default_factory=perf_counter)
    times: list[float] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    cached: int | None = None
    """Tokens of the prompt that the engine says it found."""
    recomputed: int = 0
    """Tokens that it says it computed once more after it took the turn out of its batch."""
    own: dict[str, float] = field(default_factory=dict)
    """What the engine measured by its own clock, in seconds."""

    def hear(self, tokens: Sequence[int], count: int | None = None) -> None:
        """More tokens are there; `count` is how many in all, where that is not their number."""
        self.tokens += tokens
        self.times.append(perf_counter())
        self.counts.append(len(self.tokens) if count is None else count)

    @property
    def first(self) -> float:
        """Seconds from the question to the first token."""
        return self.times[0] - self.asked

    def said(self, begin: float, end: float) -> int:
        """How many tokens came after the one moment, until the other."""
        before = max((count for time, count in zip(self.times, self.counts, strict=True) if time <= begin), default=0)
        until = max((count for time, count in zip(self.times, self.counts, strict=True) if time <= end), default=0)
        return until - before


class Speaker(Protocol):
    """An engine that was opened in this process, or from it."""

    versions: dict[str, str]
    settings: dict[str, Any]
    """What it was opened with, as people should know it."""

    async def together(self, prompts: Sequence[Sequence[int]], count: int) -> list[Heard]:
        """Answers of so many tokens, whatever the model would say, to prompts that come at the same moment."""
        ...

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        """A turn of a session, which pauses for a tool after it, or is over."""
        ...

    def returned(self, session: str) -> None:
        """The tool of a session is back."""
        ...

    def computing(self, begin: float, end: float) -> float | None:
        """Seconds between two moments in which a forward pass ran, where the engine can tell."""
        ...

    async def close(self) -> None: ...


@runtime_checkable
class Measuring(Protocol):
    """What is no engine, and measures something else."""

    versions: dict[str, str]
    settings: dict[str, Any]

    def measure(self, what: str, given: Mapping[str, Any]) -> dict[str, Any]: ...

    async def close(self) -> None: ...


class Single:
    """What is the same for engines that take one request at a time from many sides."""

    versions: dict[str, str]
    settings: dict[str, Any]

    async def say(self, prompt: Sequence[int], count: int, *, session: str, pauses: bool) -> Heard:
        raise NotImplementedError

    async def together(self, prompts: Sequence[Sequence[int]], count: int) -> list[Heard]:
        every = (self.say(prompt, count, session=f"alone-{at}", pauses=False) for at, prompt in enumerate(prompts))
        return list(await asyncio.gather(*every))

    def returned(self, session: str) -> None:
        """Servers are not told of tools."""

    def computing(self, begin: float, end: float) -> float | None:
        return None

    async def close(self) -> None:
        """Nothing is left behind."""


def prompt(seed: str, tokens: int) -> list[int]:
    """The same for everybody, of tokens that nobody has seen behind one another."""
    draw = random.Random(seed)
    return [draw.randrange(LOW, HIGH) for _ in range(tokens)]


@contextmanager
def own_stdout() -> Iterator[Any]:
    """Standard output for answers alone: whatever libraries print goes where errors go."""
    sys.stdout.flush()
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)
        yield out
