"""Carries hints from outside out: each is answered, and none can do more than its tenant's budget allows."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
from .books import Books
from .effects import Answered, Effect
from .events import DEVICE, Hinted, ProgramId
from .marks import lease_of
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

    def hear(self, event: Hinted) -> None:
        """A message of hints: one `Answered` follows, with a reply to each."""
        try:
            data = json.loads(event.message)
        except ValueError:
            data = event.message
        heard = hear(data, now=self._books.now)
        root = BlockHash(bytes.fromhex(event.root))
        replies = [self._carry(action, verb, event.tenant, root) for action, verb in heard.wishes]
        self._effects.append(Answered(event.id, heard.message_id, (*heard.answers, *replies)))

    def _carry(self, action: KvHintAction, verb: Verb, tenant: str, root: BlockHash) -> Reply:
        pages = self._pages(verb.target, tenant, root)
        if not pages:
            return self._fetch(action, verb, root)
        asked, name = len(pages), _name(tenant, verb.target)
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
            case Pin(until=until, ranges=ranges):
                prefix = _Found(self._tokens(pages), pages)
                grant = self._pins.pin(name, prefix, Wish(tenant, until, ranges), now=self._books.now)
                return answer(action, asked=asked, granted=grant.granted, why=grant.why, cap=grant.cap)
            case Retain(ranges=ranges):
                granted = self._books.ledger.retain(name, pages, ranges)
                return answer(action, asked=asked, granted=granted, why="it leaves later, or sooner, than others")

    def _demote(
        self, action: KvHintAction, target: Target, tenant: str, pages: tuple[PageId, ...], tier: str | None
    ) -> Reply:
        if tier is not None and tier not in self._books.tiers:
            there = ", ".join(self._books.tiers) or "none"
            return Reply(action.action_id, "rejected", f"there is no tier {tier!r} here: {there}", len(pages))
        if tier is not None:
            self._effects += self._kept.moves.store(pages, tier, "asked for by a hint")
        program = self._program(target, tenant)
        if program is not None and target.branch in program.leases:
            self._kept.let_go(program, target.branch, "asked for by a hint", "parked")
        granted = self._books.ledger.demote(pages)
        if tier is not None:
            return deferred(action, asked=len(pages), why=f"it is copied to {tier}")
        return answer(action, asked=len(pages), granted=granted, why="it leaves before others do")

    def _fetch(self, action: KvHintAction, verb: Verb, root: BlockHash) -> Reply:
        """What is not on the device can be prefetched, if it is told by its blocks."""
        if not isinstance(verb, Prefetch) or not verb.target.blocks:
            return answer(action, asked=0, granted=0, why="nothing of it is on the device")
        if verb.tier != DEVICE:
            why = f"what lies below the device is brought to the device, not to {verb.tier!r}"
            return Reply(action.action_id, "rejected", why)
        found = self._kept.moves.elsewhere.chain(root, verb.target.blocks)
        room = min(len(found), self._books.ledger.free)
        if not room:
            why = "no pages are free" if found else "nobody here knows these blocks"
            return answer(action, asked=len(found), granted=0, why=why)
        self._effects.append(self._kept.moves.fetch(None, root, found[:room], Match((), (), None, 0)))
        return deferred(action, asked=len(found), why=f"{room} blocks are on their way")

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
