"""Keeps the lease table and the server's block pool in step.

The pool belongs to the scheduler's thread, the table also to whoever asks in between: so the table is locked, and
what it gives up goes back to the pool when the scheduler comes by next. An idle scheduler needs no blocks, and the
table tells the truth at any time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from .leases import Leases, Offer, Terms
from .wishes import Nonsense, perform, read_wish

RELIEF = 32
"""A running request that is short of room gets this part of the pool at a time from the leases."""


class Block(Protocol):
    """As vLLM's KVCacheBlock."""

    ref_cnt: int
    is_null: bool

    @property
    def block_hash(self) -> object | None:
        """None while nobody could find the block."""
        ...


class Pool(Protocol):
    """As vLLM's BlockPool."""

    @property
    def blocks(self) -> Sequence[Any]: ...
    @property
    def num_gpu_blocks(self) -> int: ...
    def touch(self, blocks: Sequence[Any]) -> None: ...
    def free_blocks(self, ordered_blocks: Iterable[Any]) -> None: ...
    def get_num_free_blocks(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Shape:
    """How the server cuts contexts into blocks."""

    block: int
    """Tokens of one."""
    groups: int = 1
    """Kinds of layers that keep tables of their own; with several a lease is kept whole or not at all."""


class Keeper:
    """All but `answer` is called on the scheduler's thread."""

    def __init__(self, pool: Pool, shape: Shape, terms: Terms, clock: Callable[[], float]) -> None:
        self._pool = pool
        self._shape = shape
        self._terms = terms
        self._clock = clock
        self._lock = threading.Lock()
        self._room = pool.num_gpu_blocks - 1  # one block stands for none
        self._turns: dict[str, int] = {}
        self.leases = Leases(int(terms.share * self._room), longest=terms.longest_s)

    def arrive(self, request: str, params: object) -> None:
        """A request has come; one that asks nothing of us costs nothing."""
        with self._lock:
            self._tick()
            if isinstance(params, Mapping) and params:
                self._turns[request] = self.leases.arrive()

    def finish(
        self, request: str, params: object, tables: Sequence[Sequence[int]], *, broken: bool
    ) -> dict[str, Any] | None:
        """A request has ended and its blocks are about to be freed: hold what it wants held.

        Returns the answer for the response, or None when it asked nothing.
        """
        with self._lock:
            self._tick()
            turn = self._turns.pop(request, 0)
            try:
                wish = read_wish(params)
            except Nonsense as error:
                return self._told(self.leases.refuse("", "lease", str(error)).json())
            if wish is None:
                return None
            seconds = self._terms.lease_s if wish.seconds is None else wish.seconds
            most = None if wish.tokens is None else wish.tokens // self._shape.block
            found = self._found(tables)
            whole = self._shape.groups > 1
            offer = Offer(wish.session, turn, found, seconds, most=most, whole=whole, broken=broken)
            answer, fresh = self.leases.lease(offer, self._clock())
            self._pool.touch([self._pool.blocks[block] for block in fresh])
            self._give_back()
            return self._told(answer.json())

    def tick(self) -> None:
        """Time has passed: what is over goes back to the pool."""
        with self._lock:
            self._tick()

    def admit(self, need: int, hits: Collection[int] = (), *, patient: bool = False) -> None:
        """A request wants `need` free blocks beside the `hits` it shares; leases give way if that lets it in.

        A patient one can wait: others run and will make room, so no lease is broken for it in vain.
        """
        with self._lock:
            self._tick()
            short = need - self._pool.get_num_free_blocks()
            if short <= 0 or not len(self.leases):
                return

            def gains(block: int) -> bool:
                return block not in hits and self._pool.blocks[block].ref_cnt == 1

            if not patient or self.leases.gain(gains) >= short:
                self.leases.relieve(short, gains)
                self._give_back()

    def relieve(self) -> bool:
        """A running request is short of room: did leases give some?"""
        with self._lock:
            self._tick()
            need = max(1, self._room // RELIEF)
            gained = self.leases.relieve(need, lambda block: self._pool.blocks[block].ref_cnt == 1)
            self._give_back()
            return gained > 0

    def clear(self) -> None:
        """End every lease."""
        with self._lock:
            self.leases.clear()
            self._give_back()

    def answer(self, message: object) -> dict[str, Any]:
        """From any thread: a list of actions is carried out, anything else asks for the table."""
        with self._lock:
            now = self._clock()
            if isinstance(message, list):
                return {"answers": [self._told(perform(self.leases, action, now).json()) for action in message]}
            self.leases.expire(now)
            return self._table(now)

    def _table(self, now: float) -> dict[str, Any]:
        leases = self.leases
        rows = [
            {
                "session": lease.key,
                "blocks": len(lease.blocks),
                "of": lease.of,
                "tokens": self._tokens(len(lease.blocks)),
                "seconds": lease.until - now,
                "demoted": lease.demoted,
            }
            for lease in leases
        ]
        answers: dict[str, dict[str, int]] = {}
        for (verb, result), count in leases.results.items():
            answers.setdefault(verb or "unknown", {})[result] = count
        return {
            "leases": rows,
            "pool": {
                "block": self._shape.block,
                "blocks": self._room,
                "free": self._pool.get_num_free_blocks(),
                "budget": leases.budget,
                "held": leases.held,
                "returning": leases.returning,
            },
            "answers": answers,
            "ends": dict(leases.ends),
            "yielded": leases.yielded,
        }

    def _told(self, answer: dict[str, Any]) -> dict[str, Any]:
        return answer | {"tokens": self._tokens(answer["blocks"])}

    def _tokens(self, blocks: int) -> int:
        return blocks * self._shape.block // self._shape.groups

    def _found(self, tables: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """The full blocks of a request, in order, as far as another one could find them."""
        blocks = self._pool.blocks
        found: dict[int, None] = {}
        for table in tables:
            for number in table:
                if blocks[number].is_null:
                    continue  # outside a sliding window
                if blocks[number].block_hash is None:
                    break
                found[number] = None
        return tuple(found)

    def _tick(self) -> None:
        self.leases.expire(self._clock())
        self._give_back()

    def _give_back(self) -> None:
        returned = self.leases.take()
        if returned:
            self._pool.free_blocks([self._pool.blocks[block] for block in returned])
