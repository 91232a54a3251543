"""An answer on its way: read by a thread, or by a coroutine of any asyncio loop.

The loop's thread writes, the caller reads. A blocked reader holds no thread but its own, and none at all when it is a
coroutine, so that turns which wait for admission never occupy the threads in which tools run.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from ..kvstore import RAW, is_exact
from .engines import End, Said


@dataclass(frozen=True, slots=True)
class Piece:
    """One token of an answer and the text that became final with it."""

    token: int | None
    """None where an engine tells text only, or where text was held back."""
    text: str
    logprob: float = 0.0
    """Under the model's own distribution."""
    drawn: float = 0.0
    """Under the one it was drawn from: penalties, grammar and temperature applied, before anything is cut off."""
    tempered: float = 0.0
    """Under the model's own distribution at the sampling temperature."""
    forced: bool = False
    """It was the only one that might come."""
    version: int = 0
    """Of the weights that said it."""
    top: tuple[tuple[int, float], ...] = ()

    @classmethod
    def of(cls, said: Said) -> Piece:
        """The part of a step's outcome that the reader gets."""
        rates = (said.logprob, said.drawn, said.tempered)
        return cls(said.token, said.text, *rates, said.forced, said.version, said.top)


@dataclass(frozen=True, slots=True)
class Facts:
    """What became of a turn's context, counted where rows enter the forward pass."""

    turn: str
    program: str
    policy: str
    prompt_tokens: int
    reused_tokens: int
    computed_tokens: int
    """Rows computed for the prompt at its first start."""
    recomputed_tokens: int
    """Rows computed again after preemptions; never counted as reuse."""
    said_tokens: int
    queued_s: float
    """Waiting for a start, a second one after a preemption included."""
    why: str
    """Why so much or so little was reused."""
    stale_tokens: int = 0
    """Reused tokens whose keys and values older weights made."""
    version: int = 0
    """Of the weights at the end."""
    lost_tokens: int = 0
    """Computed for an earlier turn of the same conversation, and computed once more for this one's prompt."""
    lost_why: str = ""
    """Why they were gone."""
    tier: str = "device"
    """The lowest tier from which some of what was reused had to be fetched."""
    dropped_tokens: int = 0
    """Of so many tokens of the prompt each head has no keys and values: the context was thinned before."""
    codec: str = RAW
    """How its context is stored below the device."""
    mode: str = "exact"
    """How its engine computes; any other word makes products that depend on the size of a step."""
    held_s: float = 0.0
    """For how long the context is held now; 0: not at all."""
    held_until: float = 0.0
    """The hold's end as Unix time."""
    held_tokens: int = 0
    hold_why: str = ""

    @property
    def exact(self) -> bool:
        """False where the context was thinned, keys and values may have been through a lossy codec, or the engine's
        mode is another than `exact`.

        In this turn, or in one that it shares with: whoever reuses pages on the device cannot see what they went
        through, so all turns of such a codec say no.
        """
        return not self.dropped_tokens and is_exact(self.codec) and self.mode == "exact"


@dataclass(frozen=True, slots=True)
class Ended:
    """The last of an answer."""

    reason: End
    facts: Facts


Chunk = Piece | Ended


class Ticket:
    """The chunks of one turn, in order, ending with `Ended` or with the error that ended it."""

    def __init__(self, cancel: Callable[[], object]) -> None:
        self._cancel = cancel
        self._given_up = False
        self._chunks: deque[Chunk | BaseException] = deque()
        self._ready = threading.Condition()
        self._waker: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._over = False

    def cancel(self) -> None:
        """Nobody wants the answer any more: everything it holds is freed. Harmless when it is over."""
        if not self._over:
            self._given_up = True
            self._cancel()

    def passed(self, cancel: Callable[[], object]) -> Ticket:
        """The same ticket in other hands, which are to be told of a cancellation, also of one that was before."""
        self._cancel = cancel
        if self._given_up:
            cancel()
        return self

    def put(self, chunk: Chunk | BaseException, *, wake: bool = True) -> None:
        """Called on the loop's thread. Without `wake` somebody calls that soon."""
        self._chunks.append(chunk)
        if wake:
            self.wake()

    def wake(self) -> None:
        """Let whoever waits see what there is. Called on the loop's thread."""
        with self._ready:
            self._ready.notify_all()
            if self._waker is not None:
                # The reader's loop may be closed at any moment: then nobody is left to be woken.
                with suppress(RuntimeError):
                    self._waker[0].call_soon_threadsafe(self._waker[1].set)

    def __iter__(self) -> Iterator[Chunk]:
        """For threads. Leaving before the end cancels the turn."""
        try:
            while not self._over:
                with self._ready:
                    while not self._chunks:
                        self._ready.wait()
                    chunk = self._chunks.popleft()
                yield self._open(chunk)
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        """For coroutines. Leaving before the end, or being cancelled, cancels the turn."""
        event = asyncio.Event()
        with self._ready:
            self._waker = (asyncio.get_running_loop(), event)
        try:
            while not self._over:
                with self._ready:
                    chunk = self._chunks.popleft() if self._chunks else None
                    if chunk is None:
                        event.clear()
                if chunk is None:
                    await event.wait()
                else:
                    yield self._open(chunk)
        finally:
            with self._ready:
                self._waker = None
            self.cancel()

    def _open(self, chunk: Chunk | BaseException) -> Chunk:
        if isinstance(chunk, BaseException):
            self._over = True
            raise chunk
        self._over = isinstance(chunk, Ended)
        return chunk


def wake(tickets: Iterable[Ticket]) -> None:
    """Wake the readers of several."""
    for ticket in tickets:
        ticket.wake()
