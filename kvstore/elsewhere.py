"""What lies in the tiers below the device, by name and tokens: plain bookkeeping that forgets when it is told to.

The device's pages are the ledger's affair; this is a belief about host memory, disks and servers. It may be wrong
without harm: what is not there after all is computed again. Each tier has room for so many blocks; the least recently
used leave first, and what a block goes on from never before it, because nothing behind a gap can be found; unless a
window has left it behind: then nobody looks at it any more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .feed import BlockRemoved, BlockStored, Indexed, Listener
from .hashes import BlockHash
from .hashes import name as name_of
from .index import Content, Index
from .record import Link


@dataclass(frozen=True, slots=True)
class Found:
    """A block that can be fetched, and where the nearest copy is."""

    block: Link
    use: int
    """How many of its tokens are wanted: all but perhaps in the last block of a context."""
    tier: str


@dataclass(slots=True)
class _Entry:
    block: Link
    gaps: bool = False
    """What it goes on from may be gone: no window of its layers reaches so far."""
    tiers: set[str] = field(default_factory=set)


class Elsewhere:
    """The books of the tiers, nearest first; a room of None is as good as endless. `repr` shows how full they are."""

    def __init__(self, page: int, rooms: Mapping[str, int | None]) -> None:
        self.page = page
        self.rooms = dict(rooms)
        self._entries: dict[int, _Entry] = {}
        self._numbers: dict[BlockHash, int] = {}
        self._used: dict[str, OrderedDict[int, None]] = {tier: OrderedDict() for tier in rooms}
        self._index = Index()
        self._listener: Listener | None = None
        self._next = 0

    def listen(self, listener: Listener | None) -> None:
        """Have one listener told of every full block that lies in a tier from now on, and of each that leaves it."""
        self._listener = listener

    def blocks(self, tier: str) -> Mapping[BlockHash, Indexed]:
        """All full blocks that lie there: a copy, at a step a block."""
        links = (self._entries[number].block for number in self._used[tier])
        return {link.name: Indexed(link.parent, link.tokens, 1) for link in links if len(link.tokens) == self.page}

    @property
    def tiers(self) -> tuple[str, ...]:
        """Their names, nearest first."""
        return tuple(self.rooms)

    def count(self, tier: str) -> int:
        """Blocks that lie there."""
        return len(self._used[tier])

    def has(self, tier: str, name: BlockHash) -> bool:
        """Does a block lie there?"""
        number = self._numbers.get(name)
        return number is not None and tier in self._entries[number].tiers

    def put(self, tier: str, blocks: Iterable[Link], *, gaps: bool = False) -> None:
        """These lie there now, and were used in this order, the last of them just now, and what they go on from there
        after them. A name that is taken by other tokens is refused silently, for nothing could be found under it.

        `gaps`: what they go on from is not used with them, because a window has left it behind.
        """
        numbers: list[int] = []
        for block in blocks:
            number = self._numbers.get(block.name)
            if number is None:
                number = self._enter(block)
            if number is not None and self._entries[number].block == block:
                self._arrive(tier, number)
                numbers.append(number)
        self._use(numbers, (tier,), gaps)

    def lose(self, tier: str, names: Iterable[BlockHash]) -> None:
        """These lie there no longer; unknown ones are ignored."""
        for name in names:
            number = self._numbers.get(name)
            if number is not None and tier in self._entries[number].tiers:
                self._leave(tier, number)

    def clear(self, tier: str) -> int:
        """Nothing lies there any more; returns how many blocks that were."""
        gone = list(self._used[tier])
        for number in gone:
            self._leave(tier, number)
        return len(gone)

    def match(self, parent: BlockHash, tokens: Sequence[int]) -> tuple[Found, ...]:
        """Blocks that hold the beginning of `tokens` after `parent`, in order; takes note of nothing."""
        return tuple(self._match(parent, tokens))

    def at(self, parent: BlockHash, block: tuple[int, ...]) -> Found | None:
        """What holds the most of a block's first tokens after `parent`; None for none of them."""
        number = self._index.full(name_of(parent, block), parent, block)
        shared = len(block)
        if number is None:
            number, shared = self._index.part(parent, block)
        return None if number is None else self._found(number, shared)

    def chain(self, root: BlockHash, names: Sequence[BlockHash]) -> tuple[Found, ...]:
        """Blocks told by their names, as far as they lie here and one goes on from the other, the first from root."""
        found: list[Found] = []
        parent = root
        for name in names:
            number = self._numbers.get(name)
            if number is None or self._entries[number].block.parent != parent:
                break
            found.append(self._found(number, len(self._entries[number].block.tokens)))
            parent = name
        return tuple(found)

    def touch(self, names: Iterable[BlockHash], *, gaps: bool = False) -> None:
        """They were used in this order, the last of them just now, wherever they lie, and what they go on from after
        them, as with `put`; unknown ones are ignored."""
        self._use([self._numbers[name] for name in names if name in self._numbers], self.tiers, gaps)

    def age(self, blocks: Sequence[Link]) -> None:
        """Nobody is expected to come back for them: they leave before everything else."""
        for block in blocks:
            number = self._numbers.get(block.name)
            if number is not None:
                for tier in self._entries[number].tiers:
                    self._used[tier].move_to_end(number, last=False)

    def surplus(self, tier: str) -> tuple[Link, ...]:
        """What must leave a tier for it to keep to its room, first to last."""
        room = self.rooms[tier]
        over = 0 if room is None else len(self._used[tier]) - room
        numbers = iter(self._used[tier])
        return tuple(self._entries[next(numbers)].block for _ in range(max(0, over)))

    def below(self, tier: str) -> str | None:
        """The next tier down; None for the last."""
        at = self.tiers.index(tier) + 1
        return self.tiers[at] if at < len(self.tiers) else None

    def __repr__(self) -> str:
        parts = (f"{tier} {self.count(tier)}/{'-' if room is None else room}" for tier, room in self.rooms.items())
        return f"<Elsewhere {' | '.join(parts)}>"

    def _match(self, parent: BlockHash, tokens: Sequence[int]) -> Iterator[Found]:
        for start in range(0, len(tokens), self.page):
            found = self.at(parent, tuple(tokens[start : start + self.page]))
            if found is None:
                return
            yield found
            if found.use < self.page:
                return
            parent = found.block.name

    def _use(self, numbers: Sequence[int], tiers: Sequence[str], gaps: bool) -> None:
        """Used in this order, in these tiers. Costs a step for each block and each that they go on from, once."""
        latest: dict[int, None] = {}  # the one used last first, and each behind what it goes on from
        for number in reversed(numbers):
            self._entries[number].gaps |= gaps
            line: dict[int, None] = {}
            at: int | None = number
            while at is not None and at not in latest and at not in line:
                line[at] = None
                entry = self._entries[at]
                at = None if entry.gaps else self._numbers.get(entry.block.parent)
            latest |= dict.fromkeys(reversed(line))
        for number in reversed(latest):
            for tier in tiers:
                if number in self._used[tier]:
                    self._used[tier].move_to_end(number)

    def _found(self, number: int, use: int) -> Found:
        entry = self._entries[number]
        return Found(entry.block, use, next(tier for tier in self.rooms if tier in entry.tiers))

    def _enter(self, block: Link) -> int | None:
        number = self._next
        try:
            self._index.put(number, Content(block.parent, block.tokens, block.name, 0))
        except LookupError:
            return None
        self._next += 1
        self._entries[number] = _Entry(block)
        self._numbers[block.name] = number
        return number

    def _arrive(self, tier: str, number: int) -> None:
        entry = self._entries[number]
        if tier not in entry.tiers:
            entry.tiers.add(tier)
            self._used[tier][number] = None
            if self._listener is not None and len(entry.block.tokens) == self.page:
                block = entry.block
                self._listener(BlockStored((block.name,), block.parent, block.tokens, self.page, medium=tier))

    def _leave(self, tier: str, number: int) -> None:
        entry = self._entries[number]
        if self._listener is not None and len(entry.block.tokens) == self.page:
            self._listener(BlockRemoved((entry.block.name,), medium=tier))
        entry.tiers.discard(tier)
        del self._used[tier][number]
        if not entry.tiers:
            del self._entries[number]
            del self._numbers[entry.block.name]
            self._index.forget(number)
