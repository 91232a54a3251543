"""What lies in which page: from names and tokens to pages.

Names only lead to candidates; tokens are compared before anything is answered, so a collision is a miss.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from . import hashes
from .errors import BrokenBooks
from .feed import DEVICE, AllBlocksCleared, BlockRemoved, BlockStored, Indexed, Listener
from .hashes import BlockHash
from .snapshot import PageId

_Key = TypeVar("_Key")
_Pages = int | dict[int, None]  # mostly there is one, and a million small dicts are half a gigabyte
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
    session: str | None = None
    """Who computed it, if that is known."""


@dataclass(frozen=True, slots=True)
class Match:
    """The longest known prefix of some tokens: whole pages, then a part of one more."""

    pages: tuple[PageId, ...]
    names: tuple[BlockHash, ...]
    tail: PageId | None
    tail_tokens: int

    def tokens(self, page: int) -> int:
        return len(self.pages) * page + self.tail_tokens

    @property
    def tails(self) -> tuple[PageId, ...]:
        """The pages of which only the first tokens are of use."""
        return () if self.tail is None else (self.tail,)


@dataclass(frozen=True, slots=True)
class Run:
    """Where the end of a chain lies: its last whole pages, and perhaps a part of one more."""

    pages: tuple[PageId, ...]
    names: tuple[BlockHash, ...]
    """Of all whole blocks, those that come before these pages too."""
    tail: PageId | None


class Index:
    """Pages by content. Equal content may lie in several pages (twins); the one published first is found first.

    A listener is told what appears under a name and what leaves. What was given up (`age`) can be found like
    everything else, but is no reason to keep what comes before it.
    """

    def __init__(
        self,
        name: Callable[[BlockHash, Sequence[int]], BlockHash] = hashes.name,
    ) -> None:
        self.listener: Listener | None = None
        self._name = name
        self._given_up: set[int] = set()
        self._followers: dict[BlockHash, int] = {}
        self._contents: dict[int, Content] = {}
        self._named: dict[BlockHash, _Pages] = {}
        self._children: dict[tuple[BlockHash, int], _Pages] = {}

    def get(self, page: int) -> Content | None:
        """What can be found in a page."""
        return self._contents.get(page)

    def put(self, page: int, content: Content) -> None:
        """Make a page findable; whatever was there before is forgotten first.

        Raises LookupError, and changes nothing, if other tokens already have the content's name.
        """
        name = content.name
        if name is not None:
            others = (self._contents[other] for other in _under(self._named, name) if other != page)
            if any((other.parent, other.tokens) != (content.parent, content.tokens) for other in others):
                raise LookupError(f"another content has the name of page {page}")
        self.forget(page)
        self._contents[page] = content
        self._followers[content.parent] = self._followers.get(content.parent, 0) + 1
        if content.tokens:
            _enter(self._children, (content.parent, content.tokens[0]), page)
        if name is not None:
            _enter(self._named, name, page)
            if self.listener is not None:
                parent, tokens = content.parent, content.tokens
                self.listener(BlockStored((name,), parent, tokens, len(tokens), session_id=content.session))

    def forget(self, page: int) -> None:
        """Nothing is found in this page any more; harmless if nothing was."""
        name = self._forget(page)
        if name is not None and self.listener is not None:
            self.listener(BlockRemoved((name,)))

    def forget_all(self, pages: Iterable[int]) -> None:
        """Nothing is found in these pages any more: one event, whatever their number."""
        names = tuple(name for page in pages if (name := self._forget(page)) is not None)
        if names and self.listener is not None:
            self.listener(BlockRemoved(names) if self._named else AllBlocksCleared(DEVICE))

    def followed(self, page: int) -> bool:
        """Does anything go on from a page that was not given up?"""
        content = self._contents.get(page)
        return content is not None and content.name in self._followers

    def age(self, page: int) -> None:
        """What lies in a page is given up; harmless if it is already."""
        if page not in self._given_up and page in self._contents:
            self._given_up.add(page)
            parent = self._contents[page].parent
            self._followers[parent] -= 1
            if not self._followers[parent]:
                del self._followers[parent]

    def renew(self, page: int) -> None:
        """Somebody came back for what had been given up; harmless if it had not."""
        if page in self._given_up:
            self._given_up.remove(page)
            parent = self._contents[page].parent
            self._followers[parent] = self._followers.get(parent, 0) + 1

    def blocks(self) -> Mapping[BlockHash, Indexed]:
        """All that can be found under a name: a copy, at a step a block."""
        copies = Counter(content.name for content in self._contents.values())
        return {
            content.name: Indexed(content.parent, content.tokens, copies[content.name])
            for content in self._contents.values()
            if content.name is not None
        }

    def match(self, root: BlockHash, tokens: Sequence[int], size: int) -> Match:
        """The longest prefix of `tokens` under `root` that can be found in pages of `size` tokens."""
        pages: list[PageId] = []
        names: list[BlockHash] = []
        parent = root
        for start in range(0, len(tokens) - size + 1, size):
            block = tuple(tokens[start : start + size])
            step = self._step(parent, block)
            if step is None:
                break
            pages.append(PageId(step[0]))
            names.append(step[1])
            parent = step[1]
        rest = tokens[len(pages) * size : (len(pages) + 1) * size]
        tail, shared = self.part(parent, rest)
        return Match(tuple(pages), tuple(names), None if tail is None else PageId(tail), shared)

    def _step(self, parent: BlockHash, block: tuple[int, ...]) -> tuple[int, BlockHash] | None:
        """The page of a block and its name. Where only one page goes on from its parent, nothing is hashed."""
        only = self._children.get((parent, block[0]))
        if only is None:
            return None
        if isinstance(only, int):
            content = self._contents[only]
            return None if content.name is None or content.tokens != block else (only, content.name)
        name = self._name(parent, block)
        found = self.full(name, parent, block)
        return None if found is None else (found, name)

    def full(self, name: BlockHash, parent: BlockHash, block: tuple[int, ...]) -> int | None:
        """A page that holds exactly this block after this parent."""
        for page in _under(self._named, name):
            content = self._contents[page]
            if content.parent == parent and content.tokens == block:
                return page
        return None

    def chain(self, root: BlockHash, names: Sequence[BlockHash]) -> tuple[PageId, ...]:
        """Pages told by their names, as far as they are here and one goes on from the other, the first from root."""
        pages: list[PageId] = []
        parent = root
        for name in names:
            found = next((page for page in _under(self._named, name) if self._contents[page].parent == parent), None)
            if found is None:
                break
            pages.append(PageId(found))
            parent = name
        return tuple(pages)

    def part(self, parent: BlockHash, rest: Sequence[int]) -> tuple[int | None, int]:
        """The page after `parent` that shares the longest beginning with `rest`, and how much it shares."""
        best, most = None, 0
        if not rest:
            return best, most
        siblings = _under(self._children, (parent, rest[0]))
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

    def check(self, given_up: Set[int]) -> None:
        """Raise BrokenBooks unless exactly these pages are given up, and all others counted where they go on from."""
        if self._given_up != given_up:
            raise BrokenBooks(f"{sorted(self._given_up)} are given up, {sorted(given_up)} should be")
        counted = Counter(content.parent for page, content in self._contents.items() if page not in given_up)
        if self._followers != counted:
            raise BrokenBooks(f"{len(self._followers)} blocks are said to be gone on from, {len(counted)} are")

    def _forget(self, page: int) -> BlockHash | None:
        content = self._contents.get(page)
        if content is None:
            return None
        self.age(page)
        self._given_up.discard(page)
        del self._contents[page]
        if content.name is not None:
            _discard(self._named, content.name, page)
        if content.tokens:
            _discard(self._children, (content.parent, content.tokens[0]), page)
        return content.name


def _under(index: dict[_Key, _Pages], key: _Key) -> dict[int, None] | tuple[int, ...]:
    """The pages under a key, first come first."""
    found = index.get(key)
    return () if found is None else found if isinstance(found, dict) else (found,)


def _enter(index: dict[_Key, _Pages], key: _Key, page: int) -> None:
    found = index.get(key)
    if found is None:
        index[key] = page
    elif isinstance(found, dict):
        found[page] = None
    else:
        index[key] = {found: None, page: None}


def _discard(index: dict[_Key, _Pages], key: _Key, page: int) -> None:
    found = index[key]
    if isinstance(found, dict):
        del found[page]
    if not isinstance(found, dict) or not found:
        del index[key]
