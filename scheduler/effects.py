"""What the kernel asks for. All of it is plain frozen data, and every effect says `why`, for people and for spans."""

from __future__ import annotations

from dataclasses import dataclass

from ..kvstore import Copy, PageId
from ..kvstore.hints import Reply
from .events import DEVICE, Ending, Moving, ProgramId, TurnId


@dataclass(frozen=True, slots=True)
class Start:
    """Run this turn: its first `reuse` tokens are computed already and lie in `pages`.

    Those stand block by block, one for each group of layers; NOWHERE for what no window reaches any more.
    """

    turn: TurnId
    reuse: int
    pages: tuple[PageId, ...]
    copy: Copy | None
    why: str
    taken: str | None = None
    """The branch of its program whose hold it takes up, which may be another than its own."""
    tier: str = DEVICE
    """The lowest tier that some of it had to be fetched from."""
    others: tuple[Copy, ...] = ()
    """The copies of the other groups of layers, where there are any."""


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
    others: tuple[Copy, ...] = ()


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
    lost: bool = False
    """What it stands on is gone. Thinned anew, it can be asked once more."""


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
class Extend:
    """A hold goes on for longer than was said: its program's tools are not back."""

    program: ProgramId
    branch: str
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
class Move:
    """Copy blocks from one tier to another; `Moved` says that it is over."""

    id: int
    source: str
    target: str
    blocks: tuple[Moving, ...]
    root: str
    """Of the context that they are of, in hex; "" where they go from one tier below the device to another."""
    turn: TurnId | None
    """The turn that waits for them."""
    why: str


@dataclass(frozen=True, slots=True)
class CancelMove:
    """Nobody waits for a move any more. It still ends with a `Moved`, perhaps sooner."""

    id: int
    why: str


@dataclass(frozen=True, slots=True)
class Drop:
    """Blocks leave a tier; they lie there no longer as far as the books know."""

    tier: str
    names: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Thin:
    """Read this context, which nobody changes meanwhile, and choose what stays of it; `Thinned` says what that is."""

    turn: TurnId
    """Who has computed it."""
    root: str
    """Of its names, in hex."""
    pages: tuple[PageId, ...]
    tokens: int
    why: str


@dataclass(frozen=True, slots=True)
class Place:
    """Write what stays of a context into these pages, and say `Placed`; without pages: there is no room for it."""

    turn: TurnId
    pages: tuple[PageId, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of each hint of a message."""

    id: int
    message: str
    replies: tuple[Reply, ...]


@dataclass(frozen=True, slots=True)
class Wake:
    """Send a `Tick` at this time."""

    at: float
    why: str


Effect = (
    Start
    | Evict
    | Grow
    | Preempt
    | Stop
    | Refuse
    | Hold
    | Extend
    | Release
    | Keep
    | Forget
    | Move
    | CancelMove
    | Drop
    | Thin
    | Place
    | Answered
    | Wake
)
