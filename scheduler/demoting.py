"""Contexts that are to leave the device before others, as soon as the copies that are being made of them are there.

A page that is being copied is held, and what is held ranks nowhere. So a demotion waits for the copies, holds the
whole context meanwhile, lest a part of it be evicted and another context take its place, and ranks it afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ..kvstore import BlockHash, Elsewhere, Ledger, PageId
from ..kvstore import name as name_of
from .effects import Move
from .events import DEVICE


@dataclass(frozen=True, slots=True)
class _Demoted:
    """A context that waits for these moves to be over."""

    pages: tuple[PageId, ...]
    tier: str | None
    awaited: set[int]


class Demoting:
    """What waits to be demoted on one pool."""

    def __init__(self, ledger: Ledger, elsewhere: Elsewhere) -> None:
        self._ledger = ledger
        self._elsewhere = elsewhere
        self._waiting: list[_Demoted] = []

    @property
    def pages(self) -> Iterator[tuple[PageId, ...]]:
        """The pages that are held, by holder."""
        yield from (demoted.pages for demoted in self._waiting)

    def demote(self, pages: Sequence[PageId], tier: str | None, out: Iterable[Move]) -> int | None:
        """Rank a context so that it leaves before others; where a tier is named, only what of it lies there by then.

        `out` are the moves that are not over. Returns how many pages rank so from now on; None if they have to wait.
        """
        mine = {page: name.hex() for name, page in self._named(pages)}  # what was never computed is nobody's loss
        names = set(mine.values())
        awaited = {
            move.id
            for move in out
            if move.source == DEVICE
            and any(block.page in mine or (move.target == tier and block.name in names) for block in move.blocks)
        }
        if not awaited:
            return self._rank(pages, tier)
        self._ledger.take(mine)
        self._waiting.append(_Demoted(tuple(mine), tier, awaited))
        return None

    def over(self, move: int) -> None:
        """A move is over: what waited for it, and for no other, is ranked."""
        for demoted in tuple(self._waiting):
            demoted.awaited.discard(move)
            if not demoted.awaited:
                self._waiting.remove(demoted)
                self._ledger.drop(reversed(demoted.pages))
                self._rank(demoted.pages, demoted.tier)

    def _rank(self, pages: Sequence[PageId], tier: str | None) -> int:
        if tier is not None:
            pages = [page for name, page in self._named(pages) if self._elsewhere.has(tier, name)]
        return self._ledger.demote(pages)

    def _named(self, pages: Sequence[PageId]) -> Iterator[tuple[BlockHash, PageId]]:
        for page in pages:
            content = self._ledger.content(page)
            if content is not None:
                yield content.name or name_of(content.parent, content.tokens), page
