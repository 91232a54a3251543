"""The past of a context: full pages that all who share it hold together, at the same cost whatever its length.

A context is a past and a short rest: fewer tokens than a page, which lie in a page that it holds by itself. Forking
and freezing take hold of the end of a past; going back takes hold of an earlier one and lets go of the end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

from .errors import BrokenBooks
from .groups import NOWHERE
from .hashes import BlockHash
from .ledger import Ledger
from .snapshot import PageId


class Past:
    """A full page, and all that come before it. Nothing of it ever changes but how many hold it.

    It is held by each context that stands at it and by each past that goes on from it. While anybody does, it holds
    its page once in the ledger, and what comes before it; the last who lets go gives both back.
    """

    __slots__ = ("before", "blocks", "holders", "name", "page", "tokens")

    def __init__(self, before: Past | None, page: PageId, tokens: tuple[int, ...], *, name: BlockHash | None) -> None:
        """Held by the caller, from whom it takes over the hold on `page` and on `before`.

        `name` is None where another content had it: nothing from there on can be found by others.
        """
        self.before = before
        self.page = page
        self.tokens = tokens
        self.name = name
        self.blocks: int = 1 + pages_in(before)
        """Pages, this one included, and those that were given back before it."""
        self.holders = 1

    @classmethod
    def stump(cls, blocks: int, name: BlockHash | None) -> Past:
        """In the place of so many pages, of which the last had this name and none is held any more."""
        past = cls(None, NOWHERE, (), name=name)
        past.blocks = blocks
        return past

    def __repr__(self) -> str:
        return f"<Past of {self.blocks} pages, held by {self.holders}>"


class Holder(Protocol):
    """Who stands at a past: a branch or a snapshot."""

    def holds(self) -> tuple[Past | None, Sequence[PageId]]:
        """The past, and the pages that are held besides; nothing any more once it is closed."""
        ...


class Snapshot:
    """A prefix that does not change, kept until `close`, the unfinished page too, so that going back computes nothing.

    Making one and closing it cost the same whatever its length, unless it was the last to hold its pages. `tokens` and
    `pages` are put together when they are first asked for, and can be after it is closed.
    """

    def __init__(
        self, ledger: Ledger, root: BlockHash, past: Past | None, *, rest: tuple[int, ...], own: tuple[PageId, ...]
    ) -> None:
        """What is given is held for it already. `own` is the page of the `rest`, if there is any."""
        self.root = root
        self._ledger = ledger
        self._past = past
        self._rest = rest
        self._own = own
        self._closed = False

    def __len__(self) -> int:
        return pages_in(self._past) * self._ledger.page + len(self._rest)

    @cached_property
    def tokens(self) -> tuple[int, ...]:
        return (*written(self._past), *self._rest)

    @cached_property
    def pages(self) -> tuple[PageId, ...]:
        return (*(block.page for block in unrolled(self._past)), *self._own)

    @property
    def names(self) -> list[BlockHash]:
        """Of its full pages, from the first on, as far as others can find them."""
        names = []
        for block in unrolled(self._past):
            if block.name is None:
                break
            names.append(block.name)
        return names

    def found(self) -> list[PageId]:
        """Those of its pages in which it still lies: once it is closed they may be evicted and go to others."""
        content, blocks = self._ledger.content, unrolled(self._past)
        given = blocks[0].before if blocks else self._past
        parent = (given.name if given is not None else None) or self.root
        pages = []
        for block in blocks:
            here = content(block.page)
            if here is not None and (here.name, here.tokens) == (block.name, block.tokens):
                pages.append(block.page)
            parent = block.name or parent
        for page in self._own:
            here = content(page)
            if here is not None and (here.parent, here.tokens) == (parent, self._rest):
                pages.append(page)
        return pages

    def holds(self) -> tuple[Past | None, Sequence[PageId]]:
        """As Holder says."""
        return (None, ()) if self._closed else (self._past, self._own)

    def close(self, *, stale: bool = False) -> None:
        """Keep it no longer; what was computed stays findable until it is evicted. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._ledger.drop((*self._own, *let_go(self._past)), stale=stale)

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Snapshot {len(self)} tokens{' closed' if self._closed else ''}>"


def pages_in(past: Past | None) -> int:
    """How many pages a past has."""
    return 0 if past is None else past.blocks


def unrolled(past: Past | None) -> list[Past]:
    """All of a past that is held, from the first page on."""
    blocks = []
    while past is not None and past.page != NOWHERE:
        blocks.append(past)
        past = past.before
    blocks.reverse()
    return blocks


def written(past: Past | None) -> Iterator[int]:
    """The tokens of a past."""
    return (token for block in unrolled(past) for token in block.tokens)


def share(past: Past | None) -> Past | None:
    """One more holder."""
    if past is not None:
        past.holders += 1
    return past


def let_go(past: Past | None) -> list[PageId]:
    """One holder less; returns the pages that nobody stands on any more, the last first: they are to be dropped."""
    gone = []
    while past is not None:
        past.holders -= 1
        if past.holders or past.page == NOWHERE:
            break
        gone.append(past.page)
        past = past.before
    return gone


def doubled(past: Past | None, ledger: Ledger) -> Past | None:
    """The same past once more, with a hold of its own on every page, for who gives back its beginning by itself."""
    if past is None:
        return None
    blocks = unrolled(past)
    first = blocks[0].before if blocks else past
    again = None if first is None else Past.stump(first.blocks, first.name)
    for block in blocks:
        again = Past(again, block.page, block.tokens, name=block.name)
    ledger.take([block.page for block in blocks])
    return again


def cut(past: Past | None, first: int) -> tuple[Past | None, list[PageId]]:
    """A past that nobody shares without what comes before block `first`; and those pages, the last first."""
    later, at = None, past
    while at is not None and at.blocks > first:
        later, at = at, at.before
    if at is None or at.page == NOWHERE:
        return past, []
    stump = Past.stump(at.blocks, at.name)
    if later is not None:
        later.before = stump
    return (stump if later is None else past), let_go(at)


def holdings(contexts: Iterable[Holder]) -> Iterator[Sequence[PageId]]:
    """The pages that contexts hold, as often as the ledger has to count them: for `Ledger.check`.

    Raises BrokenBooks unless these are all who hold their pasts, and no past counts one more or less.
    """
    counts: Counter[Past] = Counter()
    for context in contexts:
        past, own = context.holds()
        yield own
        while past is not None:
            counts[past] += 1
            if counts[past] > 1 or past.page == NOWHERE:
                break
            yield (past.page,)
            past = past.before
    for past, count in counts.items():
        if past.holders != count:
            raise BrokenBooks(f"page {past.page} ends {past!r}: there are {count} who hold it")
