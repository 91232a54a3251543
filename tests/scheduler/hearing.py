"""A kernel that is told hints, and what its replies say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from sostenuto.kvstore import BlockHash, Elsewhere, PageId, root
from sostenuto.kvstore.hints import Reply
from sostenuto.kvstore.record import links
from sostenuto.scheduler import (
    Answered,
    Arrived,
    Finished,
    Hinted,
    Move,
    Moved,
    Moving,
    ProgramId,
    Progress,
    Start,
    Stepped,
    TurnId,
)

from .stage import PAGE, ROOT, Stage

OTHER = root(model="m", tenant="other").hex()
ROOM = 16
EACH, ALL = 4, 8
"""Pages that the prefetches of a tenant, and of all, may take of this pool; as many may be raised."""


def blocks(start: int, size: int, at: str = ROOT) -> tuple[Moving, ...]:
    """A chain of full blocks of the tokens from `start` on."""
    tokens = range(start, start + size * PAGE)
    found = links(tokens, PAGE, BlockHash(bytes.fromhex(at)))
    return tuple(Moving(link.name.hex(), link.parent.hex(), link.tokens) for link in found)


class Hearing(Stage):
    """A stage that is also told hints."""

    def __init__(self, room: int = ROOM, **rooms: int | None) -> None:
        super().__init__(room=room, elsewhere=Elsewhere(PAGE, rooms or {"host": None}))
        self._ids = count(1)

    def hint(self, verb: str, *, tenant: str = "default", at: str = ROOT, **payload: Any) -> tuple[Reply, list[Move]]:
        action = {"action_id": "1", "action_type": verb, "action_version": "1", "payload": payload}
        message = json.dumps({"protocol_version": "0.1", "message_id": "m", "actions": [action]})
        effects = self.tell(Hinted(next(self._ids), tenant, at, message))
        ((reply,),) = [effect.replies for effect in effects if isinstance(effect, Answered)]
        return reply, [effect for effect in effects if isinstance(effect, Move)]

    def prefetch(self, wanted: Iterable[Moving], **rest: Any) -> tuple[Reply, list[Move]]:
        return self.hint("Prefetch", target={"blocks": [block.name for block in wanted]}, **rest)

    def here(self, wanted: Sequence[Moving], at: str = ROOT) -> int:
        """How many blocks of a chain lie on the device."""
        names = [block.link.name for block in wanted]
        return len(self.kernel.ledger.chain(BlockHash(bytes.fromhex(at)), names))

    def arrived(self, move: Move) -> None:
        self.tell(Moved(move.id, tuple(block.name for block in move.blocks)))

    def leave(self, start: int, size: int, at: str = ROOT) -> tuple[Moving, ...]:
        """A context of so many blocks, computed and held by nobody; one that fills the pool lacks a token."""
        turn, found = TurnId(f"left {start} {at}"), blocks(start, size, at)
        tokens = tuple(range(start, start + size * PAGE))[: self.kernel.ledger.room * PAGE - 1]
        effects = self.tell(Arrived(turn, ProgramId(turn), "main", at, tokens, 4))
        (begun,) = [effect for effect in effects if isinstance(effect, Start)]
        self.tell(Stepped((Progress(turn, len(tokens) - begun.reuse),)))
        self.tell(Finished(turn))
        return found

    def session(self, name: str, start: int, size: int) -> tuple[PageId, ...]:
        """A session that paused for a tool; the pages that it holds."""
        self.run(name, range(start, start + size * PAGE), program=f"default/{name}")
        self.pause(name)
        return self.kernel.ledger.leases[self.kernel.books.programs[ProgramId(f"default/{name}")].leases["main"]].pages


def counts(reply: Reply) -> tuple[str, int, int]:
    return reply.outcome, reply.asked, reply.granted
