"""A growing context: pages shared with others, and a last one that is its own or copied when it must be.

A branch holds each of its pages once. It grows in two movements, because a forward pass lies between them: `reserve`
makes room for tokens that are about to be computed, `append` says that they have been.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .errors import BrokenBooks, NotAnAncestor
from .hashes import BlockHash
from .ledger import Ledger
from .snapshot import PageId, Snapshot


@dataclass(frozen=True, slots=True)
class Copy:
    """Work for whoever owns the tensors: the first `tokens` slots of page `source` belong into page `target`."""

    source: PageId
    target: PageId
    tokens: int


@dataclass(frozen=True, slots=True)
class Growth:
    """What `reserve` changed: pages added at the end, and at most one copy to be made before anything is written."""

    pages: tuple[PageId, ...] = ()
    copy: Copy | None = None


class Branch:
    """A context under `root`: its tokens are computed, its pages have room for those reserved.

    Invariant: `len(pages) * page >= len(tokens)`; each page is held once by this branch until `close`.
    """

    def __init__(self, ledger: Ledger, root: BlockHash, *, session: str | None = None) -> None:
        """`session` is whom events name as the one who computed what is published."""
        self.root = root
        self.session = session
        self.tokens: list[int] = []
        self.pages: list[PageId] = []
        self._ledger = ledger
        self._names: list[BlockHash] = []
        self._reserved = 0  # tokens there is room for and whose slots are claimed
        self._hidden = False  # a name collided: nothing from there on may be found by others
        self._closed = False

    @classmethod
    def resume(cls, ledger: Ledger, root: BlockHash, tokens: Sequence[int], *, session: str | None = None) -> Branch:
        """A branch that stands at the end of the longest computed prefix of `tokens`."""
        branch = cls(ledger, root, session=session)
        match = ledger.match(root, tokens)
        branch.pages = list(match.pages)
        branch._names = list(match.names)
        if match.tail is not None:
            branch.pages.append(match.tail)
        branch.tokens = list(tokens[: match.tokens(ledger.page)])
        branch._reserved = len(branch)
        ledger.take(branch.pages)
        return branch

    def __len__(self) -> int:
        return len(self.tokens)

    def reserve(self, count: int) -> Growth:
        """Make room for `count` more tokens, and claim the last page to its end.

        Raises OutOfPages and changes nothing if there is none.
        A last page that others have written on is copied up to here; if not a single page is to be had for that
        and nobody else holds it, what lies behind this branch's end is given up instead.
        """
        if len(self) + count <= self._reserved:
            return Growth()
        size, ledger = self._ledger.page, self._ledger
        at = len(self) % size
        new = max(0, -(-(len(self) + count) // size) - len(self.pages))
        copies = self._must_copy()
        spare = ledger.available > new
        in_place = copies and not spare and ledger.refs(self._last()) == 1
        fresh = ledger.alloc(new + (copies and not in_place))
        copy = None
        if in_place:
            ledger.truncate(self._last(), at)
        elif copies:
            old, target, fresh = self._last(), fresh[0], fresh[1:]
            copy = Copy(old, target, at)
            self.pages[len(self) // size] = target
            ledger.claim(target, 0, at)
            ledger.drop((old,))
        self.pages.extend(fresh)
        self._claim()
        return Growth(fresh, copy)

    def append(self, tokens: Sequence[int]) -> None:
        """Say that `tokens` have been computed into the room reserved for them: others can find them from now on."""
        size = self._ledger.page
        if len(self) + len(tokens) > len(self.pages) * size:
            raise ValueError(
                f"{len(tokens)} tokens after {len(self)} do not fit into {len(self.pages)} pages: reserve them first"
            )
        if not tokens:
            return
        first = len(self) // size
        self.tokens.extend(tokens)
        for index in range(first, -(-len(self) // size)):
            self._publish(index)

    def freeze(self) -> Snapshot:
        """This context as it is now, without copying; the caller gives it back with `Ledger.drop(snapshot.pages)`."""
        used = self.pages[: -(-len(self) // self._ledger.page)]
        self._ledger.take(used)
        return Snapshot(self.root, tuple(self.tokens), tuple(used))

    def fork(self) -> Branch:
        """Another branch with the same past. Nothing is copied until one of them writes on the shared last page."""
        child = Branch(self._ledger, self.root, session=self.session)
        child.tokens = list(self.tokens)
        child._reserved = len(child)
        child.pages = self.pages[: -(-len(self) // self._ledger.page)]
        child._names = list(self._names)
        child._hidden = self._hidden
        self._ledger.take(child.pages)
        return child

    def rollback(self, length: int) -> int:
        """Go back to the first `length` tokens; returns how many were given up. Nothing is computed.

        Raises NotAnAncestor unless 0 <= length <= len(branch).
        """
        if not 0 <= length <= len(self):
            raise NotAnAncestor(f"cannot roll a branch of {len(self)} tokens back to {length}: give 0 to {len(self)}")
        self._unclaim()
        lost = len(self) - length
        size = self._ledger.page
        keep = -(-length // size)
        gone, self.pages = self.pages[keep:], self.pages[:keep]
        del self.tokens[length:]
        del self._names[length // size :]
        self._reserved = length
        self._ledger.drop(reversed(gone))
        return lost

    def close(self, *, stale: bool = False) -> None:
        """Give every page back; computed ones stay findable until they are evicted. Closing twice is harmless."""
        if not self._closed:
            self._closed = True
            self._unclaim()
            self._ledger.drop(reversed(self.pages), stale=stale)
            self.pages = []

    def __repr__(self) -> str:
        return f"<Branch {len(self)} tokens in {len(self.pages)} pages{' closed' if self._closed else ''}>"

    def _last(self) -> PageId:
        return self.pages[len(self) // self._ledger.page]

    def _must_copy(self) -> bool:
        at = len(self) % self._ledger.page
        # Reserved before and not yet written: the claim is ours already.
        return at > 0 and self._reserved == len(self) and not self._ledger.claim(self._last(), at, at)

    def _claim(self) -> None:
        size = self._ledger.page
        start, stop = max(len(self), self._reserved), len(self.pages) * size
        for index in range(start // size, stop // size):
            at = start % size if index == start // size else 0
            if not self._ledger.claim(self.pages[index], at, size):
                raise BrokenBooks(f"slot {at} of page {self.pages[index]} is claimed already")
        self._reserved = stop

    def _unclaim(self) -> None:
        """Give back the slots that were claimed and never written, so that others may go on from here."""
        at = len(self) % self._ledger.page
        if self._reserved > len(self) and at:
            self._ledger.unclaim(self._last(), at)
        self._reserved = len(self)

    def _publish(self, index: int) -> None:
        if self._hidden:
            return
        size = self._ledger.page
        parent = self._names[index - 1] if index else self.root
        block = self.tokens[index * size : (index + 1) * size]
        try:
            name = self._ledger.publish(self.pages[index], parent, block, depth=index, session=self.session)
        except LookupError:
            self._hidden = True
            return
        if name is not None:
            self._names.append(name)
