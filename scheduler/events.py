"""The vocabulary: what can happen. What the kernel can ask for is in `effects`.

All of it is plain frozen data, so that a journal can hold it and a replay can compare it. Every effect says `why`,
for people and for spans.

A *program* is one agent's run of work: (tenant, thread, checkpoint namespace). A *turn* is one generation in it.
A *branch* of a program is one line of conversation: parallel siblings and sub-agents are branches of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NewType, Protocol

from ..kvstore import DEVICE as DEVICE
from ..kvstore import BlockHash, Link, PageId

TurnId = NewType("TurnId", str)
ProgramId = NewType("ProgramId", str)

KvPolicy = Literal["salt", "drop", "recompute", "keep"]
"""What becomes of keys and values when the weights change: `salt`: whoever comes computes anew, whoever runs keeps
what it has; `drop`: and what nobody uses is freed at once; `recompute`: and whoever runs computes anew too; `keep`:
they are used on, though other weights would have made others."""

Ending = Literal["resumed", "superseded", "travelled", "closed", "reweighted", "parked", "pressure", "expired"]
"""How a hold comes to its end. With the first five nobody will come back for what was held."""


class Named(Protocol):
    """A block by its name: a link, a tier's entry, a whole block."""

    @property
    def name(self) -> BlockHash: ...

    @property
    def parent(self) -> BlockHash: ...

    @property
    def tokens(self) -> tuple[int, ...]: ...


@dataclass(frozen=True, slots=True)
class Moving:
    """A block on its way: its name and what it goes on from, in hex, and its tokens."""

    name: str
    parent: str
    tokens: tuple[int, ...]
    page: PageId | None = None
    """Where on the device it comes from or goes to, if it does."""
    tier: str = ""
    """Where it is fetched from."""

    @classmethod
    def of(cls, block: Named, page: PageId | None = None, tier: str = "") -> Moving:
        """A block that lies somewhere."""
        return cls(block.name.hex(), block.parent.hex(), block.tokens, page, tier)

    @property
    def link(self) -> Link:
        """As the books of tiers know it."""
        return Link(BlockHash(bytes.fromhex(self.name)), BlockHash(bytes.fromhex(self.parent)), self.tokens)


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
    least: int = 0
    """So many of the first tokens cannot be computed from what is known of them, for they stand for a thinned context:
    they are found, or the turn is refused."""
    tenant: str = ""
    """Whose it is; "": what stands before the first slash of its program's id."""


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
    shape: str = ""
    """Of the tools' arguments: pauses of one shape are alike."""


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
class Planned:
    """A program's graph computes with the model again in so many steps, at the soonest."""

    program: ProgramId
    steps: int


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

    tier: str = ""
    """Where a copy of it is to be made; "" for nowhere."""


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
class Moved:
    """A move is over, one that was cancelled too."""

    id: int
    done: tuple[str, ...] = ()
    """The names of the blocks that have arrived; the others are not to be had."""


@dataclass(frozen=True, slots=True)
class Known:
    """These blocks lie in a tier, and nobody here has put them there: a disk that was written by an earlier process."""

    tier: str
    blocks: tuple[Moving, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """These blocks, or all, lie in a tier no longer."""

    tier: str
    names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Thinning:
    """A running turn is about to end, and what it has computed is to be thinned: it stays until that is done."""

    turn: TurnId


@dataclass(frozen=True, slots=True)
class Thinned:
    """It is known what stays of that context; without tokens: it is given up, also after it was known."""

    turn: TurnId
    root: str = ""
    """Of the names of what stays, in hex."""
    tokens: tuple[int, ...] = ()
    """They name its slots."""


@dataclass(frozen=True, slots=True)
class Placed:
    """What stays lies in its pages, and can be found from now on."""

    turn: TurnId
    key: str
    """Under which it is kept, as a mark is."""


@dataclass(frozen=True, slots=True)
class Hinted:
    """Somebody wishes something for contexts of a tenant."""

    id: int
    tenant: str
    root: str
    """Of the tenant's names, in hex."""
    message: str
    """The envelope, as JSON."""


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
    | Planned
    | Travelled
    | Closed
    | Marked
    | Unmarked
    | Reweighted
    | Moved
    | Known
    | Lost
    | Thinning
    | Thinned
    | Placed
    | Hinted
    | Tick
)
