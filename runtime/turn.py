"""A turn between its arrival and its end, and what is told of it then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from ..scheduler import DEVICE, Arrived, Hold, ProgramId, TurnId, lease_key
from ..tracing import Place, trace_headers
from .engines import Engine, Job, StepEngine, TurnEngine, Usage
from .passages import Passages
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


def kept(hold: Hold | None, now: float, unix: float) -> Kept:
    """What a hold keeps, `now` by the loop's clock and `unix` by everybody's."""
    seconds = 0.0 if hold is None else hold.until - now
    return Kept() if hold is None else Kept(hold.tokens, seconds, unix + seconds, hold.why)


@dataclass(frozen=True, slots=True)
class Known:
    """What was computed of a turn's context before it came, by an earlier turn of the same conversation."""

    tokens: int = 0
    why: str = ""
    """Why it may be gone."""
    how: str = ""
    """What taking it up is called."""
    hold: Place | None = None
    """Its last hold."""


@dataclass(slots=True)
class Turn:
    """Kept by the loop."""

    request: Request
    job: Job
    ticket: Ticket
    passages: Passages
    timer: asyncio.TimerHandle | None = None
    started: bool = False
    reused: int = 0
    stale: int = 0
    known: Known = field(default_factory=Known)
    usage: Usage = field(default_factory=Usage)
    why: str = ""
    tier: str = DEVICE
    """The lowest tier that some of its context came from."""
    text: list[str] = field(default_factory=list)

    def counted(self, kept: Kept, policy: str, version: int) -> Facts:
        """The facts as our own books have them: rows are counted where they enter the forward pass."""
        prompt = len(self.request.tokens)
        new = prompt - self.request.dropped - self.reused
        said = len(self.job.tokens) - prompt
        rows = sum(passage.rows for passage in self.passages.all)
        return self._lost(
            Facts(
                turn=self.job.turn,
                program=self.request.program,
                policy=policy,
                prompt_tokens=prompt,
                reused_tokens=self.reused,
                computed_tokens=new,
                recomputed_tokens=max(0, rows - new - max(0, said - 1)),
                said_tokens=said,
                queued_s=self.passages.seconds("queue"),
                why=self.why,
                tier=self.tier,
                dropped_tokens=self.request.dropped,
                codec=self.request.codec,
                mode=self.job.mode,
                stale_tokens=self.stale,
                version=version,
                held_s=kept.seconds,
                held_until=kept.until,
                held_tokens=kept.tokens,
                hold_why=kept.why,
            )
        )

    def told(self, kept: Kept, policy: str, version: int) -> Facts:
        """The facts as a server tells them: what it does not say about its cache is not known, and not claimed."""
        ours, usage = self.counted(kept, policy, version), self.usage
        prompt = ours.prompt_tokens if usage.prompt is None else usage.prompt
        cached = usage.cached or 0
        facts = replace(
            ours,
            prompt_tokens=prompt,
            reused_tokens=cached,
            computed_tokens=prompt - cached,
            recomputed_tokens=0,
            said_tokens=ours.said_tokens if usage.said is None else usage.said,
            why="as its server says" if usage.cached is not None else "its server does not say",
        )
        return replace(facts, lost_tokens=0, lost_why="") if usage.cached is None else self._lost(facts)

    def _lost(self, facts: Facts) -> Facts:
        lost = max(0, self.known.tokens - facts.dropped_tokens - facts.reused_tokens)
        return replace(facts, lost_tokens=lost, lost_why=self.known.why if lost else "")


def job_of(request: Request, name: TurnId, root: str, engine: StepEngine | TurnEngine) -> Job:
    """A request as the engine sees it."""
    tokens, sampling = list(request.tokens), request.sampling
    if engine.can.tokens and not engine.can.preempt:
        # All that a turn may say is reserved at its start, so it is asked for no more than there can be.
        sampling = replace(sampling, max_tokens=max(1, min(sampling.max_tokens, left(engine, len(tokens)))))
    return Job(
        name,
        tokens,
        len(tokens) - request.said,
        sampling,
        request.grammar,
        request.forced,
        ask=request.ask,
        key=lease_key(request.program, request.branch),
        watches=request.watches,
        salt=root if request.remnant is None else request.remnant.root(root),
        mode=engine.mode if isinstance(engine, StepEngine) else "exact",
        skip=request.dropped,
        trace=trace_headers(request.place),
    )


def left(engine: Engine, tokens: int) -> int:
    """Tokens for which there is room behind so many."""
    whole = engine.longest if engine.can.preempt else min(engine.longest, engine.room * engine.page)
    return whole - tokens


def arrived(request: Request, job: Job, number: int, engine: StepEngine | TurnEngine) -> Arrived:
    """A request as the schedule sees it; its turn has this number."""
    # Without token ids a turn is one page of a pool that has a page for each turn at once.
    known, more = (request.slots, job.sampling.max_tokens) if engine.can.tokens else ((number,), 0)
    whose = ProgramId(request.program), request.branch, job.salt
    return Arrived(job.turn, *whose, known, more, request.tended, request.least, request.tenant)
