"""A context of a model whose layers lie in groups: a branch for each, all of them at the same place.

Every group's blocks are a chain of its own in the same ledger, so whatever is true of chains is true of them. What is
common is the place: a context stands where every group can go on, and where one cannot, what is missing is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from .branch import Branch, Copy, Growth
from .elsewhere import Elsewhere, Found
from .errors import NotAnAncestor, OutOfPages
from .hashes import BlockHash
from .index import Match, Run
from .ledger import Ledger
from .past import Snapshot
from .snapshot import PageId


@dataclass(frozen=True, slots=True)
class GroupMatch:
    """The longest known beginning of some tokens that all groups can go on from."""

    length: int
    runs: tuple[Run, ...]
    lacking: tuple[tuple[tuple[int, Found], ...], ...] = ()
    """Blocks of each group that lie elsewhere, each with how many come before it."""

    def tokens(self, page: int) -> int:
        return self.length

    @property
    def pages(self) -> tuple[PageId, ...]:
        """Whole pages, group by group."""
        return tuple(page for run in self.runs for page in run.pages)

    @property
    def tails(self) -> tuple[PageId, ...]:
        """The pages of which only the first tokens are of use: one a group, or none."""
        return tuple(run.tail for run in self.runs if run.tail is not None)


class Grouped:
    """A context under `root`, as `Branch` is one. Forking copies the numbers of its tokens, and no keys or values.

    Invariant: all branches have computed the same tokens and have room for as many more.
    """

    def __init__(self, ledger: Ledger, root: BlockHash, *, session: str | None = None) -> None:
        self.root = root
        self._ledger = ledger
        self._tokens: list[int] = []
        pairs = zip(ledger.groups.each, ledger.groups.roots(root), strict=True)
        self._session = session
        self.parts = tuple(Branch(ledger, at, session=session, group=group) for group, at in pairs)

    @classmethod
    def resume(cls, ledger: Ledger, root: BlockHash, tokens: Sequence[int], *, session: str | None = None) -> Self:
        """A context that stands at the longest computed prefix of `tokens` which every group can go on from."""
        context = cls(ledger, root, session=session)
        match = look(ledger, root, tokens)
        context._tokens += tokens[: match.length]
        for part, run in zip(context.parts, match.runs, strict=True):
            part.stand(run, context._tokens)
        return context

    @property
    def tokens(self) -> list[int]:
        """All that is computed: a list of its own."""
        return self._tokens.copy()

    @property
    def pages(self) -> list[PageId]:
        """Where what it keeps lies, one group behind the other; what is reserved is not among them."""
        size, spans = self._ledger.page, self._ledger.groups.spans(len(self), self._ledger.page)
        assert all(span.stop == -(-len(self) // size) for span in spans)
        return [page for part, span in zip(self.parts, spans, strict=True) for page in part.pages[: len(span)]]

    @property
    def table(self) -> tuple[PageId, ...]:
        """Block by block the page of each group, those that are reserved too; NOWHERE for what was given back."""
        return _by_block([part.table for part in self.parts])

    def __len__(self) -> int:
        return len(self._tokens)

    def reserve(self, count: int) -> Growth:
        """Make room for `count` more tokens in all groups. Raises OutOfPages, and changes nothing, if there is none.

        The pages that were added stand block by block, one for each group.
        """
        if not any(len(part) + count > part.room for part in self.parts):
            return Growth()
        wanted = [part.wanting(count) for part in self.parts]
        alone = [copies and part.alone for part, (_, copies) in zip(self.parts, wanted, strict=True)]
        new = sum(count for count, _ in wanted)
        must = sum(copies for _, copies in wanted) - sum(alone)
        spare = self._ledger.available - new - must
        if spare < 0:
            raise OutOfPages(new + must, self._ledger.available)
        grown = []
        for part, (fresh, copies), single in zip(self.parts, wanted, alone, strict=True):
            in_place = single and spare <= 0
            spare -= single and not in_place
            grown.append(part.grow(fresh, copies, in_place=in_place))
        copied = tuple(growth.copy for growth in grown if growth.copy is not None)
        return Growth(_by_block([growth.pages for growth in grown]), _first(copied), copied[1:])

    def append(self, tokens: Sequence[int]) -> None:
        """Say that `tokens` have been computed; what no window reaches any more is given back."""
        for part in self.parts:
            part.append(tokens)
        self._tokens += tokens

    def owes(self, whole: int) -> int:
        """Pages that it still wants, besides those it has, to grow to so many tokens."""
        size, groups = self._ledger.page, self._ledger.groups
        total = 0
        for part, group in zip(self.parts, groups.each, strict=True):
            more, most = -(-whole // size) - part.room // size, group.most(groups.stride, size)
            total += max(0, more if most is None else min(more, most - len(part.pages)))
        return total

    def freeze(self) -> GroupSnapshot:
        """This context as it is now, without copying; the caller gives it back with `GroupSnapshot.close`."""
        return GroupSnapshot(self.root, tuple(self._tokens), tuple(part.freeze() for part in self.parts))

    def fork(self) -> Grouped:
        """Another context with the same past."""
        child = Grouped(self._ledger, self.root, session=self._session)
        child.parts = tuple(part.fork() for part in self.parts)
        child._tokens += self._tokens
        return child

    def rollback(self, length: int) -> int:
        """Go back to the first `length` tokens, or before that to where every group can still go on.

        Returns how many were given up: what a window has left behind, and others have taken the room of, is to be
        computed again. Raises NotAnAncestor unless 0 <= length <= len(context).
        """
        if not 0 <= length <= len(self):
            raise NotAnAncestor(f"cannot roll {len(self)} tokens back to {length}: give 0 to {len(self)}")
        before = len(self)
        earlier = Grouped.resume(self._ledger, self.root, self._tokens[:length], session=self._session)
        self.close()
        self.parts, self._tokens = earlier.parts, earlier._tokens
        return before - len(self)

    def close(self, *, stale: bool = False) -> None:
        """Give every page back. Closing twice is harmless."""
        for part in self.parts:
            part.close(stale=stale)

    def __repr__(self) -> str:
        return f"<Grouped {len(self)} tokens in {len(self.parts)} groups: {', '.join(map(repr, self.parts))}>"


class GroupSnapshot:
    """A prefix of a grouped context that does not change, kept until `close`."""

    def __init__(self, root: BlockHash, tokens: tuple[int, ...], parts: tuple[Snapshot, ...]) -> None:
        self.root = root
        self.tokens = tokens
        self.parts = parts
        self.pages = tuple(page for part in parts for page in part.pages)

    def __len__(self) -> int:
        return len(self.tokens)

    def close(self, *, stale: bool = False) -> None:
        """Keep it no longer. Closing twice is harmless."""
        for part in self.parts:
            part.close(stale=stale)

    def __enter__(self) -> GroupSnapshot:
        return self

    def __exit__(self, *fault: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GroupSnapshot {len(self)} tokens in {len(self.parts)} groups>"


def find(ledger: Ledger, root: BlockHash, tokens: Sequence[int]) -> Match | GroupMatch:
    """The longest computed prefix of `tokens` under `root`, whatever kinds of layers there are; takes nothing."""
    return ledger.match(root, tokens) if ledger.groups.plain else look(ledger, root, tokens)


def resume(ledger: Ledger, root: BlockHash, tokens: Sequence[int]) -> Branch | Grouped:
    """A context that stands at the end of what `find` finds."""
    return Branch.resume(ledger, root, tokens) if ledger.groups.plain else Grouped.resume(ledger, root, tokens)


def look(ledger: Ledger, root: BlockHash, tokens: Sequence[int], *, elsewhere: Elsewhere | None = None) -> GroupMatch:
    """What all groups know of `tokens` under `root`, also of what lies `elsewhere`, if that is asked for.

    Costs a hash for each full block and group, and looks at each.
    """
    size, groups = ledger.page, ledger.groups
    blocks = [tuple(tokens[at : at + size]) for at in range(0, len(tokens), size)]
    rows: list[_Row] = []
    for number, at in enumerate(groups.roots(root)):
        row = _Row(ledger, elsewhere)
        row.fill(at, blocks, gaps=groups.each[number].window is not None)
        rows.append(row)
        blocks = blocks[: len(row.have)]
    length = groups.agreed([row.have for row in rows], size)
    spans = list(zip(rows, groups.spans(length, size), strict=True))
    runs = tuple(row.run(span, length) for row, span in spans)
    return GroupMatch(length, runs, tuple(row.lacking(span, length) for row, span in spans))


class _Row:
    """What was found of one group's chain, block by block."""

    def __init__(self, ledger: Ledger, elsewhere: Elsewhere | None) -> None:
        self.have: list[int] = []  # tokens that are anywhere, of each block the first
        self._ledger = ledger
        self._elsewhere = elsewhere
        self._names: list[BlockHash] = []
        self._pages: list[tuple[int | None, int]] = []  # and how many tokens of the block are there
        self._found: list[Found | None] = []

    def fill(self, root: BlockHash, blocks: Sequence[tuple[int, ...]], *, gaps: bool) -> None:
        """`gaps` are looked beyond; without them the row ends where the first block is not whole."""
        size, parent = self._ledger.page, root
        for block in blocks:
            name = self._ledger.name(parent, block) if len(block) == size else None
            self.have.append(self._note(name, parent, block))
            if name is None or (self.have[-1] < size and not gaps):
                break
            self._names.append(name)
            parent = name

    def run(self, span: range, length: int) -> Run:
        """What is on the device of the blocks that a context of this length keeps."""
        size = self._ledger.page
        whole = length // size
        here = [block for block in span if self._here(block, length)]
        pages = [PageId(page) for block in here if block < whole and (page := self._pages[block][0]) is not None]
        tail = self._pages[whole][0] if whole in here else None
        return Run(tuple(pages), tuple(self._names[:whole]), None if tail is None else PageId(tail))

    def lacking(self, span: range, length: int) -> tuple[tuple[int, Found], ...]:
        """What has to be fetched of them."""
        found = ((block, self._found[block]) for block in span if not self._here(block, length))
        return tuple((block, one) for block, one in found if one is not None)

    def _here(self, block: int, length: int) -> bool:
        size = self._ledger.page
        return self._pages[block][1] >= min(size, length - block * size)

    def _note(self, name: BlockHash | None, parent: BlockHash, block: tuple[int, ...]) -> int:
        index, shared, found = self._ledger.index, len(block), None
        page = None if name is None else index.full(name, parent, block)
        if page is None:
            page, shared = index.part(parent, block)
            if self._elsewhere is not None and shared < len(block):
                found = self._elsewhere.at(parent, block)
        self._pages.append((page, shared))
        self._found.append(found)
        return max(shared, 0 if found is None else found.use)


def _by_block(rows: Sequence[Sequence[PageId]]) -> tuple[PageId, ...]:
    """From the pages of each group to those of each block."""
    return tuple(page for block in zip(*rows, strict=True) for page in block)


def _first(copies: Sequence[Copy]) -> Copy | None:
    return copies[0] if copies else None
