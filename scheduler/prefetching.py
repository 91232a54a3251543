"""Contexts that gave way and are expected back: fetched to the device shortly before."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

from ..kvstore import BlockHash, Found, Match, PageId
from .books import Books
from .effects import Effect, Wake
from .left import Left
from .moves import Moves
from .world import Program


class Lacking(NamedTuple):
    """A context told by its blocks: what of it is on the device, on its way, and to be had from below."""

    here: tuple[PageId, ...]
    coming: int
    found: tuple[Found, ...]


def lacking(moves: Moves, books: Books, root: BlockHash, names: Sequence[BlockHash]) -> Lacking:
    """Where the blocks of a context lie, as far as one goes on from the other."""
    here, coming = books.ledger.chain(root, names), moves.coming
    at = len(here)
    while at < len(names) and coming.get(names[at].hex()) == (names[at - 1] if at else root).hex():
        at += 1
    found = moves.elsewhere.chain(names[at - 1] if at else root, names[at:])
    wanted = next((n for n, one in enumerate(found) if one.block.name.hex() in coming), len(found))
    return Lacking(here, at - len(here), tuple(found[:wanted]))


def spare(books: Books, here: Sequence[PageId]) -> int:
    """Pages that a fetch for nobody in particular may take: whoever runs keeps one to grow into."""
    growth = books.running if books.grows else 0
    return max(0, books.ledger.available - books.ledger.idle(here) - growth)


class Prefetching:
    """What is to be fetched, and when. Changes the books and adds to `effects`."""

    def __init__(self, books: Books, left: Left, effects: list[Effect]) -> None:
        self._books = books
        self._left = left
        self._effects = effects
        self._due: list[tuple[float, int, Program, str]] = []
        self._count = 0

    @property
    def soonest(self) -> float | None:
        """When the next is due."""
        return self._due[0][0] if self._due else None

    def plan(self, program: Program, branch: str, seconds: float) -> None:
        """Fetch what a branch left in so many seconds; not at all if that is never."""
        if seconds == inf or not self._books.tiers or not self._books.ledger.groups.plain:
            return
        self._count += 1
        at = self._books.now + max(seconds, 0.0)
        heapq.heappush(self._due, (at, self._count, program, branch))
        self._effects.append(Wake(at, "a context is expected back"))

    def fetch_due(self) -> None:
        """Fetch what is due, unless its program has come back or there is no room that nobody uses."""
        while self._due and self._due[0][0] <= self._books.now:
            _, _, program, branch = heapq.heappop(self._due)
            if branch in program.pauses and branch not in program.leases:
                self._fetch(program, branch)

    def _fetch(self, program: Program, branch: str) -> None:
        chain = self._left.chain(program.id, branch)
        if chain is None:
            return
        moves, (root, names) = self._books.moves, chain
        here, coming, found = lacking(moves, self._books, root, names)
        count = min(len(found), spare(self._books, here))
        # Half a context is of use only to who fetches the rest: all or nothing.
        if not coming and count and count == len(found):
            self._effects.append(moves.fetch(None, root, found, Match(here, tuple(names[: len(here)]), None, 0)))
