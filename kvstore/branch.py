"""A growing context: pages shared with others, and a last one that is its own or copied when it must be.

A branch holds each of its pages once. It grows in two movements, because a forward pass lies between them: `reserve`
makes room for tokens that are about to be computed, `append` says that they have been.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import BrokenBooks, NotAnAncestor, NotHeld
from .groups import NOWHERE, Group
from .hashes import BlockHash
from .index import Run
from .ledger import Ledger
from .past import Past, Snapshot, cut, doubled, let_go, pages_in, share, unrolled, written
from .snapshot import PageId


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
    others: tuple[Copy, ...] = ()
    """Of the other groups of layers, where there are any."""


_ALL = Group()


class Branch:
    """A context under `root`: its tokens are computed, its pages have room for those reserved.

    Its full pages are a past, which it shares with what was forked or frozen from it; the unfinished page and those
    that are reserved it holds by itself. So a fork, a snapshot and a rollback cost the same whatever lies before.

    Invariant: there is a page for every token; whatever the branch stands on is held by it until `close`.
    """

    def __init__(
        self, ledger: Ledger, root: BlockHash, *, session: str | None = None, group: Group | None = None
    ) -> None:
        """`session` is whom events name as the one who computed what is published.

        A branch of a `group` with a window gives back what lies left of it as it grows, and shares no past: its pages
        are few, whatever its length, and it holds each by itself.
        """
        self.root = root
        self.session = session
        self.group = group or _ALL
        self._ledger = ledger
        self._past: Past | None = None
        self._rest: list[int] = []  # tokens after the past, fewer than a page
        self._own: deque[PageId] = deque()  # the page of the rest, if there is any, then those reserved
        self._reserved = 0  # tokens there is room for and whose slots are claimed
        self._closed = False

    @classmethod
    def resume(cls, ledger: Ledger, root: BlockHash, tokens: Sequence[int], *, session: str | None = None) -> Branch:
        """A branch that stands at the end of the longest computed prefix of `tokens`."""
        branch = cls(ledger, root, session=session)
        match = ledger.match(root, tokens)
        whole = len(match.pages) * ledger.page
        branch.stand(Run(match.pages, match.names, match.tail), tokens[: whole + match.tail_tokens])
        return branch

    def stand(self, run: Run, tokens: Sequence[int]) -> None:
        """Stand at the end of what was found of these tokens; a branch that stands nowhere yet."""
        size, ledger = self._ledger.page, self._ledger
        whole = len(tokens) // size
        first = whole - len(run.pages)
        if first:
            self._past = Past.stump(first, run.names[first - 1])
        for block, page in enumerate(run.pages, first):
            content = ledger.content(page)
            assert content is not None  # it was found
            self._past = Past(self._past, page, content.tokens, name=run.names[block])
        self._rest += tokens[whole * size :]
        if run.tail is not None:
            self._own.append(run.tail)
        self._reserved = len(self)
        ledger.take((*run.pages, *self._own))

    @property
    def tokens(self) -> list[int]:
        """All that is computed: a list of its own, put together at each call."""
        return [*written(self._past), *self._rest]

    @property
    def pages(self) -> list[PageId]:
        """Where it lies, then what is reserved: a list of its own, put together at each call. Closed, it has none."""
        past, own = self.holds()
        return [*(block.page for block in unrolled(past)), *own]

    @property
    def parts(self) -> tuple[Branch, ...]:
        """The branches of its groups of layers: this one."""
        return (self,)

    @property
    def table(self) -> tuple[PageId, ...]:
        """Its pages, and NOWHERE for each that was given back."""
        given = pages_in(self._past) - len(unrolled(self._past))
        return (*[NOWHERE] * given, *self.pages)

    @property
    def room(self) -> int:
        """Tokens for which there are pages."""
        return self._reserved

    @property
    def alone(self) -> bool:
        """Does nobody else hold its last page?"""
        return self._ledger.refs(self._own[0]) == 1

    def owes(self, whole: int) -> int:
        """Pages that it wants, besides those it has, for tokens that are known: none, for it has them all."""
        return 0

    def holds(self) -> tuple[Past | None, Sequence[PageId]]:
        """What `holdings` counts: its past, and the pages that it holds by itself; nothing once it is closed."""
        return (None, ()) if self._closed else (self._past, tuple(self._own))

    def __len__(self) -> int:
        return pages_in(self._past) * self._ledger.page + len(self._rest)

    def reserve(self, count: int) -> Growth:
        """Make room for `count` more tokens, and claim the last page to its end.

        Raises OutOfPages and changes nothing if there is none.
        A last page that others have written on is copied up to here; if not a single page is to be had for that
        and nobody else holds it, what lies behind this branch's end is given up instead.
        """
        self._alive()
        if len(self) + count <= self._reserved:
            return Growth()
        new, copies = self.wanting(count)
        return self.grow(new, copies, in_place=copies and self._ledger.available <= new and self.alone)

    def wanting(self, count: int) -> tuple[int, bool]:
        """Pages that `count` more tokens need, and whether the last page has to be copied besides."""
        new = -(-(len(self._rest) + count) // self._ledger.page) - len(self._own)
        return max(0, new), self._must_copy()

    def grow(self, new: int, copies: bool, *, in_place: bool) -> Growth:
        """As `reserve`, which says how; `in_place`: what others wrote behind this branch's end is given up."""
        ledger, at = self._ledger, len(self._rest)
        fresh = ledger.alloc(new + (copies and not in_place))
        copy = None
        if in_place:
            ledger.truncate(self._own[0], at)
        elif copies:
            old, target, fresh = self._own[0], fresh[0], fresh[1:]
            copy = Copy(old, target, at)
            self._own[0] = target
            ledger.claim(target, 0, at)
            ledger.drop((old,))
        self._own.extend(fresh)
        self._claim()
        return Growth(fresh, copy)

    def append(self, tokens: Sequence[int]) -> None:
        """Say that `tokens` have been computed into the room reserved for them: others can find them from now on."""
        room = self._reserved - len(self)
        if len(tokens) > room:
            raise ValueError(f"found {len(tokens)} tokens after {len(self)}, with room for {room}: reserve it first")
        size, done, before = self._ledger.page, 0, len(self)
        while done < len(tokens):
            more = tokens[done : done + size - len(self._rest)]
            done += len(more)
            self._rest += more
            block = tuple(self._rest)
            name = self._publish(block)
            if len(block) == size:
                self._past = Past(self._past, self._own.popleft(), block, name=name)
                self._rest.clear()
        if (first := self.group.first(len(self), size)) > self.group.first(before, size):
            self._past, gone = cut(self._past, first)
            self._ledger.drop(gone, passed=True)

    def freeze(self) -> Snapshot:
        """This context as it is now, without copying; the caller gives it back with `Snapshot.close`."""
        past, own = self._shared()
        return Snapshot(self._ledger, self.root, past, rest=tuple(self._rest), own=own)

    def fork(self) -> Branch:
        """Another branch with the same past. Nothing is copied until one of them writes on the shared last page."""
        child = Branch(self._ledger, self.root, session=self.session, group=self.group)
        child._past, own = self._shared()
        child._own.extend(own)
        child._rest = self._rest.copy()
        child._reserved = len(child)
        return child

    def rollback(self, length: int) -> int:
        """Go back to the first `length` tokens; returns how many were given up. Nothing is computed.

        Raises NotAnAncestor unless 0 <= length <= len(branch).
        """
        lost = len(self) - length
        if length < 0 or lost < 0:
            raise NotAnAncestor(f"cannot roll a branch of {len(self)} tokens back to {length}: give 0 to {len(self)}")
        self._alive()
        self._unclaim()
        blocks, at = divmod(length, self._ledger.page)
        gone: list[PageId] = []
        cut, past = None, self._past
        while past is not None and past.blocks > blocks:
            cut, past = past, past.before
        if cut is not None:
            # Of the first page that is given up, what comes before `at` stays: the branch holds it by itself from now.
            self._ledger.take((cut.page,))
            share(past)
            gone += [*reversed(self._own), *let_go(self._past)]
            self._past, self._rest, self._own = past, list(cut.tokens), deque((cut.page,))
        del self._rest[at:]
        while len(self._own) > bool(at):
            gone.append(self._own.pop())
        self._reserved = length
        self._ledger.drop(gone)
        return lost

    def close(self, *, stale: bool = False) -> None:
        """Give every page back; computed ones stay findable until they are evicted. Closing twice is harmless."""
        if not self._closed:
            self._unclaim()
            self._closed = True
            self._ledger.drop((*reversed(self._own), *let_go(self._past)), stale=stale)

    def __repr__(self) -> str:
        if self._closed:
            return f"<Branch {len(self)} tokens closed>"
        return f"<Branch {len(self)} tokens in {pages_in(self._past) + len(self._own)} pages>"

    def _shared(self) -> tuple[Past | None, tuple[PageId, ...]]:
        """Hold once more all that this branch stands on: its past, and the page of the rest, which no past holds."""
        self._alive()
        own = (self._own[0],) if self._rest else ()
        self._ledger.take(own)
        past = share(self._past) if self.group.window is None else doubled(self._past, self._ledger)
        return past, own

    def _alive(self) -> None:
        if self._closed:
            raise NotHeld(f"a branch of {len(self)} tokens was closed: resume another one from its tokens")

    def _must_copy(self) -> bool:
        at = len(self._rest)
        # Reserved before and not yet written: the claim is ours already.
        return at > 0 and self._reserved == len(self) and not self._ledger.claim(self._own[0], at, at)

    def _claim(self) -> None:
        size = self._ledger.page
        done = pages_in(self._past) * size
        for index, page in enumerate(self._own):
            at = max(self._reserved - done - index * size, 0)
            if at < size and not self._ledger.claim(page, at, size):
                raise BrokenBooks(f"slot {at} of page {page} is claimed already")
        self._reserved = done + len(self._own) * size

    def _unclaim(self) -> None:
        """Give back the slots that were claimed and never written, so that others may go on from here."""
        if self._reserved > len(self) and self._rest:
            self._ledger.unclaim(self._own[0], len(self._rest))
        self._reserved = len(self)

    def _publish(self, block: tuple[int, ...]) -> BlockHash | None:
        """The name under which others can find a block; None for one that is not full, and from a collision on."""
        parent = self.root if self._past is None else self._past.name
        if parent is None:
            return None
        depth = pages_in(self._past)
        try:
            return self._ledger.publish(self._own[0], parent, block, depth=depth, session=self.session)
        except LookupError:
            return None
