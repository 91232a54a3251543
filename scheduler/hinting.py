"""Carries hints from outside out: each is answered, and none can do more than its tenant's budget allows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from ..kvstore import BlockHash, Match, PageId
from ..kvstore.hints import (
    Demote,
    KvHintAction,
    Pin,
    Prefetch,
    Reply,
    Retain,
    Share,
    Target,
    Verb,
    answer,
    deferred,
    hear,
)
from ..kvstore.pins import Pins, Wish
from ..kvstore.quota import Quota
from ..kvstore.ranges import DEFAULT_PRIORITY, Range, told, unraised
from .books import Books
from .effects import Answered, Effect
from .events import DEVICE, Hinted, ProgramId
from .marks import lease_of
from .prefetching import lacking, spare
from .retaining import Retaining
from .world import Program


class _Found(NamedTuple):
    """A prefix that a hint told of."""

    tokens: tuple[int, ...]
    pages: tuple[PageId, ...]


class Hinting:
    """Changes the books and adds to `effects`."""

    def __init__(self, books: Books, kept: Retaining, pins: Pins, effects: list[Effect]) -> None:
        self._books = books
        self._kept = kept
        self._pins = pins
        self._effects = effects
        ledger = books.ledger
        self._raised = Quota(ledger.room, lasts=lambda page: ledger.priority(page) > DEFAULT_PRIORITY)
        self._prefetched = Quota(ledger.room, lasts=kept.moves.brought.unused)

    def hear(self, event: Hinted) -> None:
        """A message of hints: one `Answered` follows, with a reply to each."""
        self._kept.expire()  # what has come to its end is in nobody's way
        try:
            data = json.loads(event.message)
        except (ValueError, RecursionError):  # nonsense may be nested as deep as it likes
            data = event.message
        heard = hear(data, now=self._books.now)
        root = BlockHash(bytes.fromhex(event.root))
        replies = [self._carry(action, verb, event.tenant, root) for action, verb in heard.wishes]
        self._effects.append(Answered(event.id, heard.message_id, (*heard.answers, *replies)))

    def _carry(self, action: KvHintAction, verb: Verb, tenant: str, root: BlockHash) -> Reply:
        if not self._books.ledger.groups.plain:
            return Reply(action.action_id, "rejected", "contexts of layers with windows take no hints yet")
        if isinstance(verb, Prefetch) and verb.target.blocks:
            return self._prefetch(action, verb, tenant, root)
        pages = self._pages(verb.target, tenant, root)
        if not pages:
            return answer(action, asked=0, granted=0, why="nothing of it is on the device")
        asked = len(pages)
        match verb:
            case Share(width=width):
                if (program := self._program(verb.target, tenant)) is None:
                    return Reply(action.action_id, "rejected", "only what a session holds can be shared", asked)
                program.expected = width
                return answer(action, asked=asked, granted=asked, why=f"held for {width} branches")
            case Prefetch():
                return answer(action, asked=asked, granted=asked, why="it is on the device")
            case Demote(tier=tier):
                return self._demote(action, verb.target, tenant, pages, tier)
            case Pin():
                return self._pin(action, verb, tenant, pages)
            case Retain():
                return self._retain(action, verb, tenant, pages)

    def _pin(self, action: KvHintAction, pin: Pin, tenant: str, pages: tuple[PageId, ...]) -> Reply:
        name, ranges, why = _name(tenant, pin.target), pin.ranges, ""
        if ranges:
            self._pins.unpin(name, tenant=tenant)  # what it has raised so far is in its own way no more
            ranges, over, _ = self._within(tenant, pages, ranges)
            why = f"; {over} pages keep their priority, {self._raised.why(tenant)}" if over else ""
        prefix = _Found(self._tokens(pages), pages)
        grant = self._pins.pin(name, prefix, Wish(tenant, pin.until, ranges), now=self._books.now)
        reply = answer(action, asked=len(pages), granted=grant.granted, why=grant.why + why, cap=grant.cap)
        return replace(reply, outcome="clipped") if why and reply.outcome == "accepted" else reply

    def _retain(self, action: KvHintAction, retain: Retain, tenant: str, pages: tuple[PageId, ...]) -> Reply:
        ledger, name = self._books.ledger, _name(tenant, retain.target)
        ledger.forgo(name)  # as above
        ranges, over, asked = self._within(tenant, pages, retain.ranges)
        ledger.retain(name, pages, ranges)
        if over:
            why, cap = self._raised.why(tenant), self._raised.each
            return answer(action, asked=asked, granted=asked - over, why=why, cap=cap)
        why = "it leaves later, or sooner, than others" if asked else "none of its pages begins in these ranges"
        return answer(action, asked=asked, granted=asked, why=why)

    def _within(
        self, tenant: str, pages: tuple[PageId, ...], ranges: tuple[Range, ...]
    ) -> tuple[tuple[Range, ...], int, int]:
        """These ranges, as much of a context's beginning raised above the default as the tenant may.

        Beside them, how many pages are not raised that should be, and how many the ranges are about.
        """
        size = self._books.page
        which = told(ranges, len(pages), size=size)
        up = [
            depth for depth, each in enumerate(which) if each is not None and ranges[each].priority > DEFAULT_PRIORITY
        ]
        new = [depth for depth in up if not self._raised.has(tenant, pages[depth])]
        spare = self._raised.spare(tenant, len(new))
        stop = new[spare] if spare < len(new) else len(pages)
        granted = [depth for depth in up if depth < stop]
        self._raised.add(tenant, (pages[depth] for depth in granted))
        about = len(pages) - which.count(None)
        return (ranges if stop == len(pages) else unraised(ranges, stop * size)), len(up) - len(granted), about

    def _demote(
        self, action: KvHintAction, target: Target, tenant: str, pages: tuple[PageId, ...], tier: str | None
    ) -> Reply:
        moves = self._kept.moves
        if tier is not None and tier not in self._books.tiers:
            there = ", ".join(self._books.tiers) or "none"
            return Reply(action.action_id, "rejected", f"there is no tier {tier!r} here: {there}", len(pages))
        if tier is not None:
            self._effects += moves.store(pages, tier, "asked for by a hint")
        program = self._program(target, tenant)
        if program is not None and target.branch in program.leases:
            self._kept.let_go(program, target.branch, "asked for by a hint", "parked")
        granted = moves.demote(pages, tier)
        if granted is None:
            why = "it is being copied" + (f" to {tier}" if tier else "") + ", and leaves before others do after that"
            return deferred(action, asked=len(pages), granted=len(pages), why=why)
        return answer(action, asked=len(pages), granted=granted, why="it leaves before others do")

    def _prefetch(self, action: KvHintAction, verb: Prefetch, tenant: str, root: BlockHash) -> Reply:
        """A context that is told by its blocks: what of it is neither on the device nor on its way is fetched."""
        if verb.tier != DEVICE:
            why = f"what lies below the device is brought to the device, not to {verb.tier!r}"
            return Reply(action.action_id, "rejected", why)
        moves, names = self._kept.moves, verb.target.blocks
        here, coming, found = lacking(moves, self._books, root, names)
        at, wanted = len(here) + coming, len(found)
        if not wanted:
            return self._there(action, len(here), coming)
        room = spare(self._books, here)  # it is not for a wish to take anybody out of the batch
        within = self._prefetched.spare(tenant, wanted)
        count = min(within, room)
        if count:
            move = moves.fetch(None, root, found[:count], Match(here, names[:at], None, 0))
            self._effects.append(move)
            self._prefetched.add(tenant, (block.page for block in move.blocks if block.page is not None))
        if count == wanted:
            return deferred(action, asked=at + count, granted=at + count, why=f"{count} blocks are on their way")
        why = self._prefetched.why(tenant) if within < room else f"there is room for {room} pages more"
        cap = self._prefetched.each if within < room else None
        return answer(action, asked=at + wanted, granted=at + count, why=why, cap=cap)

    def _there(self, action: KvHintAction, here: int, coming: int) -> Reply:
        """The answer to a prefetch that has nothing to do."""
        if coming:
            why = f"{coming} blocks are on their way already"
            return deferred(action, asked=here + coming, granted=here + coming, why=why)
        why = "it is on the device" if here else "nobody here knows these blocks"
        return answer(action, asked=here, granted=here, why=why)

    def _pages(self, target: Target, tenant: str, root: BlockHash) -> tuple[PageId, ...]:
        """What lies on the device of a context, if it is this tenant's."""
        ledger = self._books.ledger
        if target.blocks:
            return ledger.chain(root, target.blocks)
        program = self._program(target, tenant)
        key = lease_of(target.mark or "") if program is None else program.leases.get(target.branch, "")
        lease = ledger.leases.get(key)
        pages = () if lease is None else lease.pages
        first = ledger.content(pages[0]) if pages else None
        return pages if first is not None and first.parent == root else ()

    def _program(self, target: Target, tenant: str) -> Program | None:
        return None if target.session is None else self._books.programs.get(ProgramId(f"{tenant}/{target.session}"))

    def _tokens(self, pages: Sequence[PageId]) -> tuple[int, ...]:
        contents = (self._books.ledger.content(page) for page in pages)
        return tuple(token for content in contents if content is not None for token in content.tokens)


def _name(tenant: str, target: Target) -> str:
    """Under which a target's pins and priorities are kept; asking again replaces them."""
    if target.blocks:
        return f"blocks|{len(tenant)}:{tenant}|{target.blocks[-1].hex()}"
    told = f"session|{target.session}|{target.branch}" if target.mark is None else f"mark|{target.mark}"
    return f"{len(tenant)}:{tenant}|{told}"
