"""The vocabulary: what can happen, and what the kernel can ask for.

All of it is plain frozen data, so that a journal can hold it and a replay can compare it. Every effect says `why`,
for people and for spans.

A *program* is one agent's run of work: (tenant, thread, checkpoint namespace). A *turn* is one generation in it.
A *branch* of a program is one line of conversation: parallel siblings and sub-agents are branches of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NewType

from ..kvstore import Copy, PageId

TurnId = NewType("TurnId", str)
ProgramId = NewType("ProgramId", str)

KvPolicy = Literal["salt", "drop", "recompute", "keep"]
"""What becomes of keys and values when the weights change: `salt`: whoever comes computes anew, whoever runs keeps
what it has; `drop`: and what nobody uses is freed at once; `recompute`: and whoever runs computes anew too; `keep`:
they are used on, though other weights would have made others."""

Ending = Literal["resumed", "superseded", "travelled", "closed", "reweighted", "parked", "pressure", "expired"]
"""How a hold comes to its end. With the first five nobody will come back for what was held."""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A turn wants to run."""

    turn: TurnId
    program: ProgramId
    branch: str
    root: str
    """The root of its context's names, in hex: tenant, model, weights."""
    tokens: tuple[int, ...]
    max_tokens: int
    tended: bool = True
    """Somebody will say when its program is over, as a wrapped graph does."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one step did for one turn."""

    turn: TurnId
    computed: int
    """Rows that entered the forward pass."""
    said: tuple[int, ...] = ()
    """Tokens sampled; they are known now, and computed in a later step."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """A forward pass is over. The step clock tells the kernel, because without it the books could not be replayed."""

    progress: tuple[Progress, ...]


@dataclass(frozen=True, slots=True)
class NeedRoom:
    """Running turns have filled their pages and cannot step without more."""

    turns: tuple[TurnId, ...]


@dataclass(frozen=True, slots=True)
class Paused:
    """A turn ended by calling tools: its program will come back."""

    turn: TurnId
    tools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A turn ended with an answer."""

    turn: TurnId


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody wants a turn any more, or it failed."""

    turn: TurnId


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool of a program began to run."""

    program: ProgramId
    tool: str
    call: str


@dataclass(frozen=True, slots=True)
class ToolEnded:
    """It came back, or failed."""

    program: ProgramId
    tool: str
    call: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A program waits for a person."""

    program: ProgramId


@dataclass(frozen=True, slots=True)
class Forking:
    """A program is about to fan out: `width` branches will start from where it stands."""

    program: ProgramId
    width: int


@dataclass(frozen=True, slots=True)
class Travelled:
    """A program was set back to an earlier checkpoint: what it holds is no longer its future."""

    program: ProgramId
    checkpoint: str


@dataclass(frozen=True, slots=True)
class Closed:
    """A program is over: finished, failed or cancelled."""

    program: ProgramId
    why: str = "finished"


@dataclass(frozen=True, slots=True)
class Marked:
    """Somebody may want to come back to this context: a checkpoint, a fork's origin. It outlives its program."""

    key: str
    root: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unmarked:
    """Nobody will come back to these marks. Unknown ones are ignored."""

    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reweighted:
    """The model has new weights."""

    kv: KvPolicy
    roots: tuple[tuple[str, str], ...] = ()
    """Each root that was in use, and the one that takes its place."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: the loop sends one whenever a `Wake` is due."""


Event = (
    Arrived
    | Stepped
    | NeedRoom
    | Paused
    | Finished
    | Cancelled
    | ToolStarted
    | ToolEnded
    | Interrupted
    | Forking
    | Travelled
    | Closed
    | Marked
    | Unmarked
    | Reweighted
    | Tick
)


@dataclass(frozen=True, slots=True)
class Start:
    """Run this turn: its first `reuse` tokens are computed already and lie in `pages`."""

    turn: TurnId
    reuse: int
    pages: tuple[PageId, ...]
    copy: Copy | None
    why: str
    taken: str | None = None
    """The branch of its program whose hold it takes up, which may be another than its own."""


@dataclass(frozen=True, slots=True)
class Evict:
    """Cached pages that nobody held were given to a turn: what lay in them is lost."""

    turn: TurnId
    pages: int
    why: str


@dataclass(frozen=True, slots=True)
class Grow:
    """A running turn has room for more tokens."""

    turn: TurnId
    pages: tuple[PageId, ...]
    copy: Copy | None
    why: str


@dataclass(frozen=True, slots=True)
class Preempt:
    """Take a running turn out of the batch; it waits for another `Start`."""

    turn: TurnId
    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    """End a running turn where it stands: it can never grow further."""

    turn: TurnId
    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """A turn will never run."""

    turn: TurnId
    why: str


@dataclass(frozen=True, slots=True)
class Hold:
    """A paused context stays on the device."""

    program: ProgramId
    turn: TurnId
    branch: str
    tokens: int
    pages: int
    asked: int
    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Release:
    """A held context is held no longer; it may be evicted."""

    program: ProgramId
    branch: str
    tokens: int
    why: str
    how: Ending
    """`resumed`: a turn takes it up. Else it was given up, though it can be found until its pages are wanted."""


@dataclass(frozen=True, slots=True)
class Keep:
    """A marked context stays on the device until nobody wants it, its time is over or its pages are wanted."""

    key: str
    tokens: int
    pages: int
    asked: int
    until: float
    why: str


@dataclass(frozen=True, slots=True)
class Forget:
    """A mark keeps nothing any more. Going back to it still works: its tokens are computed again."""

    key: str
    tokens: int
    why: str


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a `Tick` at this time."""

    at: float
    why: str


Effect = Start | Evict | Grow | Preempt | Stop | Refuse | Hold | Release | Keep | Forget | Wake
