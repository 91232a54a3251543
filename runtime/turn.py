"""A turn between its arrival and its end, and what is told of it then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from .engines import Job, Usage
from .request import Request
from .ticket import Facts, Ticket


@dataclass(frozen=True, slots=True)
class Kept:
    """What is held of a context after its turn."""

    tokens: int = 0
    seconds: float = 0.0
    until: float = 0.0
    """Unix time."""
    why: str = ""


@dataclass(slots=True)
class Turn:
    """Kept by the loop."""

    request: Request
    number: int
    job: Job
    ticket: Ticket
    arrived: float
    timer: asyncio.TimerHandle | None = None
    started: float | None = None
    reused: int = 0
    stale: int = 0
    usage: Usage = field(default_factory=Usage)
    why: str = ""
    rows: int = 0
    text: list[str] = field(default_factory=list)

    def counted(self, kept: Kept, policy: str, version: int) -> Facts:
        """The facts as our own books have them: rows are counted where they enter the forward pass."""
        prompt = len(self.request.tokens)
        said = len(self.job.tokens) - prompt
        return Facts(
            turn=self.job.turn,
            program=self.request.program,
            policy=policy,
            prompt_tokens=prompt,
            reused_tokens=self.reused,
            computed_tokens=prompt - self.reused,
            recomputed_tokens=max(0, self.rows - (prompt - self.reused) - max(0, said - 1)),
            said_tokens=said,
            queued_s=(self.started or self.arrived) - self.arrived,
            why=self.why,
            stale_tokens=self.stale,
            version=version,
            held_s=kept.seconds,
            held_until=kept.until,
            held_tokens=kept.tokens,
            hold_why=kept.why,
        )

    def told(self, kept: Kept, policy: str, version: int) -> Facts:
        """The facts as a server tells them: what it does not say about its cache is not known, and not claimed."""
        ours, usage = self.counted(kept, policy, version), self.usage
        prompt = ours.prompt_tokens if usage.prompt is None else usage.prompt
        cached = usage.cached or 0
        return replace(
            ours,
            prompt_tokens=prompt,
            reused_tokens=cached,
            computed_tokens=prompt - cached,
            recomputed_tokens=0,
            said_tokens=ours.said_tokens if usage.said is None else usage.said,
            why="as its server says" if usage.cached is not None else "its server does not say",
        )
