"""A growing context: pages shared with others, and a last one that is its own or copied when it must be.

A branch holds each of its pages once. It grows in two movements, because a forward pass lies between them: `reserve`
makes room for tokens that are about to be computed, `append` says that they have been.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import BrokenBooks, NotAnAncestor, NotHeld
from .hashes import BlockHash
from .ledger import Ledger
from .past import Past, Snapshot, let_go, pages_in, share, unrolled, written
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


class Branch:
    """A context under `root`: its tokens are computed, its pages have room for those reserved.

    Its full pages are a past, which it shares with what was forked or frozen from it; the unfinished page and those
    that are reserved it holds by itself. So a fork, a snapshot and a rollback cost the same whatever lies before.

    Invariant: there is a page for every token; whatever the branch stands on is held by it until `close`.
    """

    def __init__(self, ledger: Ledger, root: BlockHash, *, session: str | None = None) -> None:
        """`session` is whom events name as the one who computed what is published."""
        self.root = root
        self.session = session
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
        for page in match.pages:
            content = ledger.content(page)
            assert content is not None  # it was found
            branch._past = Past(branch._past, page, content.tokens, name=content.name)
        if match.tail is not None:
            whole = len(match.pages) * ledger.page
            branch._rest += tokens[whole : whole + match.tail_tokens]
            branch._own.append(match.tail)
        branch._reserved = len(branch)
        ledger.take((*match.pages, *branch._own))
        return branch

    @property
    def tokens(self) -> list[int]:
        """All that is computed: a list of its own, put together at each call."""
        return [*written(self._past), *self._rest]

    @property
    def pages(self) -> list[PageId]:
        """Where it lies, then what is reserved: a list of its own, put together at each call. Closed, it has none."""
        past, own = self.holds()
        return [*(block.page for block in unrolled(past)), *own]

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
        size, ledger = self._ledger.page, self._ledger
        at = len(self._rest)
        new = max(0, -(-(at + count) // size) - len(self._own))
        copies = self._must_copy()
        spare = ledger.available > new
        in_place = copies and not spare and ledger.refs(self._own[0]) == 1
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
        size, done = self._ledger.page, 0
        while done < len(tokens):
            more = tokens[done : done + size - len(self._rest)]
            done += len(more)
            self._rest += more
            block = tuple(self._rest)
            name = self._publish(block)
            if len(block) == size:
                self._past = Past(self._past, self._own.popleft(), block, name=name)
                self._rest.clear()

    def freeze(self) -> Snapshot:
        """This context as it is now, without copying; the caller gives it back with `Snapshot.close`."""
        own = self._shared()
        return Snapshot(self._ledger, self.root, self._past, rest=tuple(self._rest), own=own)

    def fork(self) -> Branch:
        """Another branch with the same past. Nothing is copied until one of them writes on the shared last page."""
        child = Branch(self._ledger, self.root, session=self.session)
        child._own.extend(self._shared())
        child._past, child._rest = self._past, self._rest.copy()
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

    def _shared(self) -> tuple[PageId, ...]:
        """Hold once more all that this branch stands on; returns the page of the rest, which no past holds."""
        self._alive()
        own = (self._own[0],) if self._rest else ()
        share(self._past)
        self._ledger.take(own)
        return own

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
