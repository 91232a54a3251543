"""What lies in which page: from names and tokens to pages.

Names only lead to candidates; tokens are compared before anything is answered, so a collision is a miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from .hashes import BlockHash

_Key = TypeVar("_Key")
_TAIL_CANDIDATES = 64
"""Pages looked at for a match inside a block; a bound, so that a root with many conversations stays cheap."""


@dataclass(frozen=True, slots=True)
class Content:
    """Computed tokens of one page, and where in a context they stand."""

    parent: BlockHash
    tokens: tuple[int, ...]
    name: BlockHash | None
    """None while the page is not full."""
    depth: int
    """How many pages come before it."""


class Index:
    """Pages by content. Equal content may lie in several pages (twins); the one published first is found first."""

    def __init__(self) -> None:
        self._contents: dict[int, Content] = {}
        self._named: dict[BlockHash, dict[int, None]] = {}
        self._children: dict[tuple[BlockHash, int], dict[int, None]] = {}

    def get(self, page: int) -> Content | None:
        """What can be found in a page."""
        return self._contents.get(page)

    def put(self, page: int, content: Content) -> None:
        """Make a page findable; whatever was there before is forgotten first.

        Raises LookupError, and changes nothing, if other tokens already have the content's name.
        """
        name = content.name
        if name is not None:
            others = (self._contents[other] for other in self._named.get(name, ()) if other != page)
            if any((other.parent, other.tokens) != (content.parent, content.tokens) for other in others):
                raise LookupError(f"another content has the name of page {page}")
        self.forget(page)
        self._contents[page] = content
        if content.tokens:
            self._children.setdefault((content.parent, content.tokens[0]), {})[page] = None
        if name is not None:
            self._named.setdefault(name, {})[page] = None

    def forget(self, page: int) -> None:
        """Nothing is found in this page any more; harmless if nothing was."""
        content = self._contents.pop(page, None)
        if content is None:
            return
        if content.name is not None:
            _discard(self._named, content.name, page)
        if content.tokens:
            _discard(self._children, (content.parent, content.tokens[0]), page)

    def full(self, name: BlockHash, parent: BlockHash, block: tuple[int, ...]) -> int | None:
        """A page that holds exactly this block after this parent."""
        for page in self._named.get(name, ()):
            content = self._contents[page]
            if content.parent == parent and content.tokens == block:
                return page
        return None

    def part(self, parent: BlockHash, rest: Sequence[int]) -> tuple[int | None, int]:
        """The page after `parent` that shares the longest beginning with `rest`, and how much it shares."""
        best, most = None, 0
        if not rest:
            return best, most
        siblings = self._children.get((parent, rest[0]), {})
        # The newest candidates first: a conversation goes on from where it last was.
        for page in islice(reversed(siblings), _TAIL_CANDIDATES):
            shared = 0
            for mine, theirs in zip(rest, self._contents[page].tokens, strict=False):
                if mine != theirs:
                    break
                shared += 1
            if shared > most:
                best, most = page, shared
        return best, most


def _discard(index: dict[_Key, dict[int, None]], key: _Key, page: int) -> None:
    entries = index[key]
    del entries[page]
    if not entries:
        del index[key]
