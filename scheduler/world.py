"""What a policy may look at: a read-only live view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .events import ProgramId, TurnId


@dataclass(slots=True)
class Program:
    """What the kernel knows of a program. Policies read it and never write."""

    id: ProgramId
    arrived: float
    number: int
    """Programs are numbered as they arrive; never two alike."""
    tended: bool = True
    """Somebody will say when it is over."""
    running: int = 0
    turns: int = 0
    """Turns it has started so far."""
    live: set[TurnId] = field(default_factory=set)
    """Its turns that have arrived and not ended."""
    leases: dict[str, str] = field(default_factory=dict)
    """Branch to the ledger's key for what it holds."""
    tools: dict[str, tuple[str, float]] = field(default_factory=dict)
    """Tool calls that are out: call id to (tool, since)."""
    expected: int = 1
    """Branches that are about to start from what it holds."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A turn that wants to run."""

    turn: TurnId
    program: Program
    arrived: float
    number: int
    tokens: int
    holds: bool
    """Does its program hold a context for it?"""
    preempted: bool = False


class World(Protocol):
    """The state behind a decision. Nothing here is a copy; reading is constant time."""

    @property
    def now(self) -> float: ...
    @property
    def room(self) -> int:
        """Pages of the pool."""
        ...

    @property
    def available(self) -> int:
        """Pages that are free or may be evicted."""
        ...

    @property
    def held(self) -> int:
        """Pages under leases."""
        ...

    @property
    def page(self) -> int: ...
    def growth(self, tokens: int, more: float) -> float:
        """Pages, and parts of one, by which a context of so many tokens grows with so many more."""
        ...

    @property
    def grows(self) -> bool:
        """Do turns take pages as they grow? Else they have all they may need from their start."""
        ...

    @property
    def tiers(self) -> tuple[str, ...]:
        """Where copies can be made, nearest first: host memory, a disk, a server."""
        ...

    @property
    def running(self) -> int:
        """Turns in the batch."""
        ...

    @property
    def programs(self) -> Mapping[ProgramId, Program]: ...
