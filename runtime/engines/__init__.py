"""What an engine must do, what it may say it cannot, and what passes between it and the loop.

An engine runs on one of two clocks. On the step clock (the embedded engine) the loop tells it which turns run and on
which pages, lets it compute a step on the compute thread, and reports to the kernel what came of it. On the turn
clock (an engine behind a server) a turn is a request: it runs from its start to its end, and the books that the kernel
keeps of its cache are a belief.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from ...kvstore import Groups, Seal
from ...kvstore.record import Buffer
from ...scheduler import Grow, Pace, Start, TurnId
from ...tools import Grammar
from ..ask import Ask
from ..sampling import Sampling

Mode = Literal["exact", "fast"]
"""How the embedded engine computes. `exact`: one kind of products whatever the step, so that a row has the same bits in
any company where the processor gives that. `fast`: steps of few rows read weights in the blocks of their GGUF file,
larger ones whole."""
End = Literal["stop", "length", "abort"]
"""Why an answer ended: the model or a stop string said so; there was no more room or no more to be said; or somebody
broke it off and keeps what was made."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can honour. What it cannot it is never asked for: whoever wants it gets Unable."""

    tokens: bool = False
    """Takes and gives token ids; else messages go in and text comes out."""
    cached: bool = False
    """Tells how much of a prompt it found in its cache."""
    hold: bool = False
    """Keeps a paused context until it is released, or its time is over."""
    fork: bool = False
    """Contexts can be marked, forked and rolled back to, and share what they have in common."""
    resume: bool = False
    """Goes on with an answer that was broken off, draws and grammar included."""
    mask: bool = False
    """Our grammar decides at every token which may come."""
    logprobs: bool = False
    """Tells how likely each token was."""
    preempt: bool = False
    """A running turn can be taken out and goes on later."""
    weights: bool = False
    """Takes new weights while it runs."""
    tiers: bool = False
    """Contexts can be copied out of its pool and back, so that they may lie in host memory, on a disk or a server."""
    thin: bool = False
    """Contexts can be cut to a budget of tokens in each head, and gone on with as if that were all."""


class Watch(Protocol):
    """Looks at the logits before each token is chosen; shared by all turns of a host, so it keeps nothing of them."""

    def look(self, said: Sequence[int], logits: Any) -> Any:
        """The logits to go on with, the same or others, given the answer so far. Blocked ends the turn, no other."""
        ...


@dataclass(slots=True)
class Job:
    """A turn as the engine sees it. It outlives a preemption: what was said is not said again."""

    turn: TurnId
    tokens: list[int]
    """The prompt, then what was said; of the first `computed` all keys and values that are left lie in `pages`."""
    prompt: int
    """Tokens before the answer; behind them stands what an answer that goes on has said so far."""
    sampling: Sampling
    grammar: Grammar | None = None
    forced: tuple[int, ...] | None = None
    """Say these instead of sampling: a recorded answer is replayed."""
    ask: Ask | None = None
    """What was asked, for engines that take messages or render a grammar of their own."""
    key: str = ""
    """Under which the context that this turn leaves may be held."""
    watches: Sequence[Watch] = ()
    """Who looks at its logits."""
    salt: str = ""
    """Contexts of different salts share nothing: the root of the context's names, in hex."""
    priority: int = 0
    """Who comes first where a server schedules by priority: the smaller. Programs keep their order of arrival."""
    trace: Mapping[str, str] = field(default_factory=dict)
    """Headers that carry the trace on (W3C Trace Context), for engines behind a network."""
    mode: str = "exact"
    """Of the engine that runs it."""
    skip: int = 0
    """Tokens that were dropped: the one at position p lies in slot p - skip, behind what was kept of the others."""
    pages: list[int] = field(default_factory=list)
    """Block by block, the page of each group of layers."""
    computed: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a server counted; None where it does not say."""

    prompt: int | None = None
    cached: int | None = None
    said: int | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What a step did for one turn."""

    turn: TurnId
    computed: int
    """Rows of this turn that entered the forward pass; 0 where an engine does not say."""
    token: int | None = None
    text: str = ""
    """Text that became final with this token; a token may end inside a character and a stop string may be near."""
    logprob: float = 0.0
    """Under the model's own distribution."""
    drawn: float = 0.0
    """Under the one it was drawn from: penalties, grammar and temperature applied, before anything is cut off."""
    tempered: float = 0.0
    """Under the model's own distribution at the sampling temperature: what a policy gradient compares."""
    forced: bool = False
    """It was the only one that might come."""
    version: int = 0
    """Of the weights that said it."""
    top: tuple[tuple[int, float], ...] = ()
    end: End | None = None
    fault: Exception | None = None
    """Why this turn, and no other, cannot go on."""
    usage: Usage | None = None


class Cutting(Protocol):
    """A context on its way to a budget. `step` and `write` are called on the compute thread."""

    def read(self, pages: Sequence[int], tokens: Sequence[int]) -> None:
        """What is to be thinned; nobody changes it until the last step."""
        ...

    def step(self) -> bool:
        """A part of the work, as long as a step of the model at most; True when the last one is done."""
        ...

    @property
    def kept(self) -> Sequence[int]:
        """Of which positions the slots of the first head are."""
        ...

    @property
    def digest(self) -> bytes:
        """Says of all heads what they keep."""
        ...

    def write(self, pages: Sequence[int]) -> None:
        """Fill pages that nobody uses yet."""
        ...


class Engine(Protocol):
    """What the host needs of any engine."""

    @property
    def can(self) -> Capabilities: ...
    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str:
        """Names everything that makes keys and values differ: model, weights, dtype."""
        ...

    @property
    def page(self) -> int:
        """Tokens of a page."""
        ...

    @property
    def room(self) -> int:
        """Pages of the pool; without token ids a turn takes one page, and this is how many may run at once."""
        ...

    @property
    def longest(self) -> int:
        """The longest context the model takes, in tokens."""
        ...


class Speaker(Protocol):
    """What an engine that takes token ids lets others know of its vocabulary."""

    @property
    def eos(self) -> tuple[int, ...]:
        """Tokens that end an answer."""
        ...

    @property
    def vocab(self) -> int:
        """Rows of logits are so long."""
        ...

    @property
    def tokenizer(self) -> Any: ...


@runtime_checkable
class StepEngine(Engine, Speaker, Protocol):
    """An engine on the step clock. All but `run` are called on the loop's own thread."""

    @property
    def groups(self) -> Groups:
        """Of the model's layers: each has a page of its own for every block of a context."""
        ...

    @property
    def mode(self) -> str:
        """`exact`, or in a word why not: how its products are made depends on the size of a step."""
        ...

    @property
    def rows(self) -> int:
        """Tokens that have entered the forward pass so far, counted where they enter."""
        ...

    def start(self, job: Job, effect: Start) -> int:
        """Put a turn into the batch; returns how many of its reused tokens older weights computed."""
        ...

    def grow(self, effect: Grow) -> None: ...
    def suspend(self, turn: TurnId) -> None:
        """Take a turn out of the batch; it may be started again and goes on where it stood."""
        ...

    def drop(self, turn: TurnId) -> None:
        """Forget a turn; unknown ones are ignored."""
        ...

    def rest(self, turn: TurnId) -> str:
        """Text of a turn that is still held back, because it might have become part of a stop string."""
        ...

    def short(self) -> tuple[TurnId, ...]:
        """Turns of the batch whose pages have no room for what they have to compute."""
        ...

    def plan(self) -> object | None:
        """The next step, or None when there is nothing to do."""
        ...

    def run(self, step: Any) -> Sequence[Said]:
        """Compute a planned step; called on the compute thread."""
        ...

    def settle(self, said: Sequence[Said]) -> None:
        """Take over what a step did."""
        ...

    def flush(self) -> None:
        """Make the copies that are waiting for the next step; no step may run."""
        ...

    def read(self, page: int, tokens: int) -> memoryview:
        """The keys and values of the first so many tokens of a page; called beside steps, on a thread of its own.

        Raises LookupError for a page that was written under weights that are gone: it must not be stored.
        """
        ...

    def write(self, page: int, tokens: int, data: Buffer) -> None:
        """Fill a page that no turn uses yet; called like `read`."""
        ...

    def cutting(self, policy: str, budget: int) -> Cutting:
        """Cut a context to so many tokens in each head, where the engine can.

        Raises ValueError for a policy that is unknown or needs a greater budget.
        """
        ...

    def seal(self, tenant: str, weights: str, codec: str, group: int | None = None) -> Seal:
        """What must agree before anybody may read a tenant's keys and values, stored by this codec.

        Those of all layers, or of a group of them.
        """
        ...

    def load(self, tensors: Mapping[str, Any], version: int) -> None:
        """New weights by name, called on the compute thread while no step runs.

        Raises ValueError, and changes nothing, for what does not fit the model.
        """
        ...


@runtime_checkable
class Paced(Protocol):
    """An engine that lets others choose how many tokens of prompts a step holds."""

    pace: Pace


class TurnEngine(Engine, Protocol):
    """An engine on the turn clock; everything runs in the loop's own event loop and must not block it."""

    def say(self, job: Job) -> AsyncIterator[Said]:
        """The answer as it comes; the last has an `end`. Closing the iterator gives the request up.

        Raises EngineFailed when the server dies or refuses, with what it said.
        """
        ...

    async def hold(self, key: str, seconds: float) -> None:
        """Keep the context that the last turn of this key left for so long from now."""
        ...

    async def release(self, key: str) -> None:
        """Keep it no longer; unknown keys are ignored."""
        ...

    async def aclose(self) -> None: ...
