"""What is on its way between the device and the tiers below it, and the pages that it keeps meanwhile.

A copy that is made holds its pages until it is made, and so does one that is fetched until its turn starts: nothing
that is being read or written can be evicted. What was fetched is published like anything that was computed, and the
turn that it was fetched for starts by finding it. Whatever does not arrive is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..kvstore import BlockHash, Elsewhere, Found, GroupMatch, Ledger, Link, Match, OutOfPages, PageId, look
from ..kvstore import name as name_of
from .brought import Brought
from .demoting import Demoting
from .effects import CancelMove, Drop, Effect, Move
from .events import DEVICE, Lost, Moved, Moving, TurnId


@dataclass(slots=True)
class _Out:
    """A move that has not come back."""

    move: Move
    pages: tuple[PageId, ...]
    """Held until it has."""
    turn: TurnId | None
    depths: Sequence[int] = ()
    """How many blocks come before each of those that are fetched."""
    cancelled: bool = False
    gaps: bool = False
    """What its blocks go on from may be gone: no window of their layers reaches it."""


@dataclass(slots=True)
class _Wait:
    """A turn for which something is fetched, in one move or several."""

    out: set[int] = field(default_factory=set)
    tier: str = DEVICE
    pages: list[PageId] = field(default_factory=list)
    """Of the moves that are over."""


class Moves:
    """The moves of one pool. `repr` shows what is out and what lies elsewhere."""

    def __init__(self, ledger: Ledger, elsewhere: Elsewhere) -> None:
        self.elsewhere = elsewhere
        self.brought = Brought(ledger)
        self._demoting = Demoting(ledger, elsewhere)
        self._ledger = ledger
        self._out: dict[int, _Out] = {}
        self._going: set[tuple[str, str]] = set()  # (tier, name) of copies on their way
        self._fetching: dict[TurnId, _Wait] = {}
        self._fetched: dict[TurnId, tuple[str, tuple[PageId, ...]]] = {}
        self._next = 1

    def __len__(self) -> int:
        return len(self._out)

    @property
    def pages(self) -> Iterator[tuple[PageId, ...]]:
        """The pages that are held for moves, by holder."""
        yield from (out.pages for out in self._out.values())
        yield from (pages for _, pages in self._fetched.values())
        yield from (tuple(wait.pages) for wait in self._fetching.values())
        yield from self._demoting.pages

    @property
    def coming(self) -> Mapping[str, str]:
        """Blocks that are on their way to the device, by name, and what each goes on from, in hex."""
        outs = (out for out in self._out.values() if out.move.target == DEVICE and not out.cancelled)
        return {block.name: block.parent for out in outs for block in out.move.blocks}

    @property
    def waiting(self) -> Sequence[TurnId]:
        """Turns that wait for something to arrive."""
        return tuple(self._fetching)

    def fetching(self, turn: TurnId) -> bool:
        """Does a turn wait for something to arrive?"""
        return turn in self._fetching

    def fetched(self, turn: TurnId) -> str:
        """The tier from which something has arrived for a turn, the device if nothing has; "" before it was fetched."""
        return self._fetched.get(turn, ("", ()))[0]

    def keeps(self, turn: TurnId, page: PageId) -> bool:
        """Is a page held because it was fetched for this turn, and by nobody else?"""
        return page in self._fetched.get(turn, ("", ()))[1] and self._ledger.refs(page) == 1

    def store(
        self, pages: Sequence[PageId], tier: str, why: str, root: str = "", *, tail: tuple[int, ...] = ()
    ) -> list[Effect]:
        """Copy what can be found in the pages of a context to a tier, unless it lies there or is on its way.

        `root` is that of its names, in hex; it need not be given where the pages begin with the first. Others may have
        gone on in its last page: with `tail` only these tokens of it are copied, under their own name.
        """
        blocks: list[Moving] = []
        kept: list[PageId] = []
        names: list[BlockHash] = []
        for page in pages:
            content = self._ledger.content(page)
            if content is None or not content.tokens:
                break
            root = root or content.parent.hex()
            cut = page == pages[-1] and tail and content.tokens[: len(tail)] == tail
            tokens = tail if cut else content.tokens
            name = name_of(content.parent, tokens) if cut or content.name is None else content.name
            names.append(name)
            if not self.elsewhere.has(tier, name) and (tier, name.hex()) not in self._going:
                blocks.append(Moving(name.hex(), content.parent.hex(), tokens, page))
                kept.append(page)
        first = self._ledger.content(pages[0]) if names else None
        gaps = first is not None and first.depth > 0
        self.elsewhere.touch(names, gaps=gaps)
        if not blocks:
            return []
        self._ledger.take(kept)
        move = self._send(Move(0, DEVICE, tier, tuple(blocks), root, None, why), tuple(kept))
        self._out[move.id].gaps = gaps
        return [move]

    def demote(self, pages: Sequence[PageId], tier: str | None = None) -> int | None:
        """Let a context leave the device before others, where a tier is named what of it lies there.

        Returns how many pages do so from now on; None if it is being copied, and does so once it has been.
        """
        return self._demoting.demote(pages, tier, [out.move for out in self._out.values()])

    def bring(
        self, turn: TurnId, root: BlockHash, tokens: Sequence[int], match: Match | GroupMatch
    ) -> list[Effect] | None:
        """Fetch for a turn what lies elsewhere of its tokens beyond what was found on the device; None: nothing does.

        What is on its way already, for nobody in particular, it waits for.
        """
        if isinstance(match, Match):
            wanted = self.wanted(root, tokens, match)
            return self._join(turn, root, wanted, match) if wanted else None
        if not self.elsewhere.tiers:
            return None
        far = look(self._ledger, root, tokens, elsewhere=self.elsewhere)
        if far.length <= match.length:
            return None
        here = (*far.pages, *far.tails)
        self._ledger.take(here)
        try:
            fresh = iter(self._ledger.alloc(sum(map(len, far.lacking))))
        except OutOfPages:  # what is here already may be another's: then there is no room for both, and it is computed
            self._ledger.drop(reversed(here))
            return None
        self._fetching[turn] = _Wait(pages=list(here))
        effects: list[Effect] = []
        groups = self._ledger.groups
        spans = groups.spans(far.length, self._ledger.page)
        for at, span, run, lacking in zip(groups.roots(root), spans, far.runs, far.lacking, strict=True):
            found, depths = [one for _, one in lacking], [depth for depth, _ in lacking]
            used = [*run.names[span.start :], *(one.block.name for one in found)]
            self.elsewhere.touch(used, gaps=span.start > 0)
            if lacking:
                pages = tuple(next(fresh) for _ in lacking)
                effects.append(self._fetch(turn, at, found, pages=pages, depths=depths))
        return effects

    def wanted(self, root: BlockHash, tokens: Sequence[int], match: Match) -> tuple[Found, ...]:
        """What lies elsewhere of these tokens beyond what was found on the device."""
        start = len(match.pages) * self._ledger.page
        found = self.elsewhere.match(match.names[-1] if match.names else root, tokens[start:])
        return found if sum(one.use for one in found) > match.tail_tokens else ()

    def fetch(self, turn: TurnId | None, root: BlockHash, found: Sequence[Found], match: Match) -> Move:
        """Fetch blocks for a turn, or for whoever comes, into pages of their own; what comes before is kept meanwhile.

        Raises OutOfPages, and changes nothing. They come in one move, from the lowest tier that any of them is in.
        """
        kept = [page for page in match.pages if turn is None and self.brought.unused(page)]
        self._ledger.take(match.pages)  # first, for what is allocated may be whatever nobody holds
        try:
            fresh = self._ledger.alloc(len(found))
        except OutOfPages:
            self._ledger.drop(reversed(match.pages))
            raise
        self.elsewhere.touch([*match.names, *(one.block.name for one in found)])
        if turn is not None:
            self._fetching[turn] = _Wait()
        else:
            self.brought.coming((*kept, *fresh))
        depths = range(len(match.names), len(match.names) + len(fresh))
        return self._fetch(turn, root, found, pages=(*match.pages, *fresh), depths=depths)

    def arrived(self, event: Moved) -> tuple[TurnId | None, list[Effect]]:
        """A move is over: the turn that may start now, if it was for one, and what follows."""
        out = self._out.pop(event.id, None)
        if out is None:
            return None, []
        done = set(event.done)
        if out.move.target == DEVICE:
            return self._landed(out, done), []
        self._going -= {(out.move.target, block.name) for block in out.move.blocks}
        copied = [block.link for block in out.move.blocks if block.name in done]
        self.elsewhere.put(out.move.target, copied, gaps=out.gaps)
        self._ledger.drop(reversed(out.pages))
        effects: list[Effect] = []
        if out.move.source != DEVICE:
            gone = [block.link for block in out.move.blocks]
            effects += self._drop(out.move.source, gone, f"moved to {out.move.target}")
        effects += self.spill(out.move.target)
        self._demoting.over(event.id)
        return None, effects

    def spill(self, tier: str) -> list[Effect]:
        """What a tier has no room for goes to the next one down, or away."""
        surplus = [block for block in self.elsewhere.surplus(tier) if (tier, block.name.hex()) not in self._going]
        below = self.elsewhere.below(tier)
        if below is None:
            return self._drop(tier, surplus, f"{tier} is full")
        there = [block for block in surplus if self.elsewhere.has(below, block.name)]
        going = [block for block in surplus if not self.elsewhere.has(below, block.name)]
        effects = self._drop(tier, there, f"{tier} is full")
        moving = [Moving.of(block) for block in going if (below, block.name.hex()) not in self._going]
        if moving:
            effects.append(self._send(Move(0, tier, below, tuple(moving), "", None, f"{tier} is full"), ()))
        return effects

    def abandon(self, turn: TurnId) -> list[Effect]:
        """A turn that something was fetched for is gone, or starts: what it kept is free, as soon as nobody writes."""
        _, pages = self._fetched.pop(turn, ("", ()))
        wait = self._fetching.pop(turn, _Wait())
        self._ledger.drop(reversed((*pages, *wait.pages)))
        for number in wait.out:
            self._out[number].turn = None
            self._out[number].cancelled = True
        return [CancelMove(number, f"turn {turn} is gone") for number in sorted(wait.out)]

    def lost(self, event: Lost) -> None:
        """A tier has lost something."""
        if event.names is None:
            self.elsewhere.clear(event.tier)
        else:
            self.elsewhere.lose(event.tier, [BlockHash(bytes.fromhex(name)) for name in event.names])

    def give_way(self, keep: TurnId | None) -> bool:
        """The pages of one turn that has not started go back to the cache; False if there is none but `keep`."""
        turn = next((turn for turn in self._fetched if turn != keep), None)
        if turn is not None:
            self.abandon(turn)
        return turn is not None

    def give_back(self, turn: TurnId) -> bool:
        """The pages that were fetched for a turn go back to the cache before it starts; False if it keeps none.

        Somebody may have computed the same meanwhile: then it needs neither these nor pages of its own for it.
        """
        tier, pages = self._fetched.get(turn, ("", ()))
        if pages:
            self._fetched[turn] = (tier, ())
            self._ledger.drop(reversed(pages))
        return bool(pages)

    def __repr__(self) -> str:
        return f"<Moves {len(self._out)} out | {len(self._fetched)} arrived | {self.elsewhere!r}>"

    def _join(self, turn: TurnId, root: BlockHash, wanted: Sequence[Found], match: Match) -> list[Effect]:
        """Wait for what is coming of these blocks, from the first on, and fetch the rest."""
        names = [one.block.name.hex() for one in wanted]
        outs = [out for out in self._out.values() if out.move.target == DEVICE and out.turn is None]
        joined = [out for out in outs if not out.cancelled and names[0] in (block.name for block in out.move.blocks)]
        if not joined:
            return [self.fetch(turn, root, wanted, match)]
        out = joined[0]
        known = {block.name for block in out.move.blocks}
        count = next((n for n, name in enumerate(names) if name not in known), len(names))
        self._ledger.take(match.pages)
        try:
            fresh = self._ledger.alloc(len(wanted) - count)
        except OutOfPages:  # it starts with what comes, and computes the rest
            fresh, wanted = (), wanted[:count]
        self.elsewhere.touch([*match.names, *(one.block.name for one in wanted)])
        out.turn = turn
        self.brought.taken(out.pages)
        self._fetching[turn] = _Wait({out.move.id}, pages=list(match.pages))
        if count == len(wanted):
            return []
        depths = range(len(match.names) + count, len(match.names) + len(wanted))
        return [self._fetch(turn, root, wanted[count:], pages=tuple(fresh), depths=depths)]

    def _fetch(
        self,
        turn: TurnId | None,
        root: BlockHash,
        found: Sequence[Found],
        *,
        pages: tuple[PageId, ...],
        depths: Sequence[int],
    ) -> Move:
        """`pages` are held already; the last of them are those that are fetched into."""
        fresh = pages[len(pages) - len(found) :]
        blocks = [Moving.of(one.block, page, one.tier) for one, page in zip(found, fresh, strict=True)]
        source = max((one.tier for one in found), key=self.elsewhere.tiers.index)
        wanted = Move(0, source, DEVICE, tuple(blocks), root.hex(), turn, "its context lies there")
        effect = self._send(wanted, pages, depths)
        if turn is not None:
            self._fetching[turn].out.add(effect.id)
        return effect

    def _send(self, move: Move, pages: tuple[PageId, ...], depths: Sequence[int] = ()) -> Move:
        move = replace(move, id=self._next)
        self._next += 1
        self._out[move.id] = _Out(move, pages, move.turn, depths)
        if move.target != DEVICE:
            self._going |= {(move.target, block.name) for block in move.blocks}
        return move

    def _landed(self, out: _Out, done: set[str]) -> TurnId | None:
        before = len(out.pages) - len(out.move.blocks)
        whole = True
        kept = list(out.pages[:before])
        for depth, block in zip(out.depths, out.move.blocks, strict=True):
            assert block.page is not None  # what goes to the device goes to a page
            whole = whole and block.name in done and self._publish(block, depth)
            if whole:
                kept.append(block.page)
            else:
                self._ledger.drop((block.page,))
        if out.turn is None:
            self._ledger.drop(reversed(kept))
            self.brought.landed(out.pages)
            return None
        wait = self._fetching[out.turn]
        wait.out.remove(out.move.id)
        wait.pages += kept
        if len(kept) > before:
            wait.tier = max(wait.tier, out.move.source, key=(DEVICE, *self.elsewhere.tiers).index)
        if wait.out:
            return None
        del self._fetching[out.turn]
        self._fetched[out.turn] = (wait.tier, tuple(wait.pages))
        return out.turn

    def _publish(self, block: Moving, depth: int) -> bool:
        assert block.page is not None
        parent = BlockHash(bytes.fromhex(block.parent))
        try:
            self._ledger.publish(block.page, parent, block.tokens, depth=depth)
        except LookupError:
            return False  # other tokens have the name: nothing from here on may be found
        return True

    def _drop(self, tier: str, blocks: Iterable[Link], why: str) -> list[Effect]:
        names = [block.name for block in blocks]
        if not names:
            return []
        self.elsewhere.lose(tier, names)
        return [Drop(tier, tuple(name.hex() for name in names), why)]
