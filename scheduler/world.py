"""What a policy may look at: a read-only live view."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from .costs import Costs
from .events import ProgramId, TurnId
from .forecast import Forecasts
from .meters import Meters


@dataclass(frozen=True, slots=True)
class Pause:
    """A branch of a program that waits for its tools, or for a person where there are none."""

    branch: str
    tools: tuple[str, ...]
    since: float
    tokens: int
    """Of its context."""
    shape: str = ""
    """Of the tools' arguments, where somebody has told it."""


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
    pauses: dict[str, Pause] = field(default_factory=dict)
    """Its branches that wait for tools."""
    served: float = 0.0
    """Seconds that its turns have run."""
    waited: float = 0.0
    """Seconds that its turns have waited for their start."""
    path: float = 0.0
    """Seconds of the longest chain of turns that ran one after the other."""
    work: int = 0
    """Tokens that were computed for it."""
    tokens: int = 0
    """Of the context that it left last."""
    steps: int | None = None
    """Steps of its graph until it computes again; None where nobody has said."""
    owner: str = ""
    """Whose it is, where a turn of it has said so."""

    @property
    def tenant(self) -> str:
        """Whose it is: as its turns say, else what stands before the first slash of its id."""
        tenant, slash, _ = self.id.partition("/")
        return self.owner or (tenant if slash else "default")

    @property
    def pause(self) -> Pause | None:
        """The pause that it began last."""
        return next(reversed(self.pauses.values()), None)


@dataclass(frozen=True, slots=True)
class Waiting:
    """A turn that wants to run, or to go on: then it is `running` and wants room."""

    turn: TurnId
    program: Program
    arrived: float
    number: int
    tokens: int
    holds: bool
    """Does its program hold a context for it?"""
    preempted: bool = False
    running: bool = False
    path: float = 0.0
    """Of its program, when it arrived."""


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
    def waiting(self) -> int:
        """Turns that have arrived and do not run."""
        ...

    @property
    def holding(self) -> int:
        """Programs that hold something."""
        ...

    @property
    def active(self) -> int:
        """Programs that have begun and are not over: their turns run or wait, or their tools are out."""
        ...

    @property
    def programs(self) -> Mapping[ProgramId, Program]: ...
    @property
    def seen(self) -> int:
        """Tokens of the contexts of all turns in the batch."""
        ...

    @property
    def pressure(self) -> float:
        """The pages that all contexts of live programs want, those that wait for tools too, over those there are.

        What contexts share counts for each of them.
        """
        ...

    @property
    def committed(self) -> int:
        """The pages of all those contexts but of programs that have not begun."""
        ...

    @property
    def acting(self) -> float:
        """Pages of contexts that wait for tools, each worth half as much with every second that it waits."""
        ...

    @property
    def calls(self) -> int:
        """Tool calls that are out, as far as anybody says."""
        ...

    @property
    def workers(self) -> int | None:
        """How many of them can run at once; None: nobody has said."""
        ...

    @property
    def window(self) -> float:
        """How many programs may be active, where a policy keeps a window."""
        ...

    @property
    def costs(self) -> Costs: ...
    @property
    def forecasts(self) -> Forecasts: ...
    @property
    def meters(self) -> Meters: ...
    def lead(self, tenant: str) -> float:
        """Seconds of service, over its share, by which a tenant is ahead of those that were served last."""
        ...
