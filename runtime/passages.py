"""The stretches of a turn's life: it waits, its prompt is computed, it speaks; and again if it is taken out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..tracing import names

Kind = Literal["queue", "prefill", "decode"]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened on the way, at this second of the loop's clock."""

    what: str
    at: float
    why: str
    pages: int = 0


@dataclass(slots=True)
class Passage:
    """One stretch, in seconds of the loop's clock."""

    kind: Kind
    begun: float
    why: str = ""
    ended: float = 0.0
    rows: int = 0
    """Rows that entered the forward pass."""
    said: int = 0
    """Tokens that came out."""
    forced: int = 0
    """Of these, the grammar's own: no other might have come."""
    incidents: list[Incident] = field(default_factory=list)


class Passages:
    """A turn's passages in order; the last one is open until `end`."""

    def __init__(self, now: float) -> None:
        self.all = [Passage("queue", now)]

    @property
    def present(self) -> Passage:
        """Where the turn is."""
        return self.all[-1]

    def enter(self, kind: Kind, now: float, why: str = "") -> None:
        """The turn goes on to its next passage."""
        self.present.ended = now
        self.all.append(Passage(kind, now, why))

    def step(self, rows: int) -> None:
        """A step has computed so many rows for the turn."""
        self.present.rows += rows

    def spoke(self, now: float, tokens: int, *, forced: bool) -> None:
        """Something came out: the prompt is behind the turn."""
        if self.present.kind == "prefill":
            self.enter("decode", now)
        self.present.said += tokens
        self.present.forced += forced

    def preempted(self, now: float, why: str) -> None:
        """The turn was taken out and waits again."""
        self.present.incidents.append(Incident(names.PREEMPT, now, why))
        self.enter("queue", now, why)

    def evicted(self, now: float, why: str, pages: int) -> None:
        """Cached pages had to go for the turn's sake."""
        self.present.incidents.append(Incident(names.KV_EVICT, now, why, pages))

    def end(self, now: float) -> None:
        """The turn is over."""
        self.present.ended = now

    @property
    def first_token(self) -> float | None:
        """Seconds from the arrival to the first token; None if none came."""
        return next((one.begun - self.all[0].begun for one in self.all if one.kind == "decode"), None)

    def seconds(self, kind: Kind | None = None) -> float:
        """Time spent in passages of a kind, or in all of them. They are over."""
        return sum(one.ended - one.begun for one in self.all if kind in (None, one.kind))
