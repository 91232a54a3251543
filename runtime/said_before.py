"""Answers that are given again to the very same question of the same tenant, and to no other."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from .ask import Ask
from .ticket import Chunk, Ended, Ticket

WHY = "the very same question was answered before, and its answer was kept"


def key_of(ask: Ask, tokens: Sequence[int], made_with: Callable[[], str]) -> str | None:
    """What decides an answer, all of it; None where the same question may be answered otherwise the next time.

    A question with tools is none: what is called depends on the world, and its context is held while it is.
    """
    drawn = ask.sampling.temperature == 0 or ask.sampling.seed is not None
    if ask.tools or not drawn:
        return None
    sampling = {name: getattr(ask.sampling, name) for name in type(ask.sampling).__slots__}
    messages = [
        [each.role, each.text, each.tool, [[one.name, one.text] for one in each.calls]] for each in ask.messages
    ]
    told = [made_with(), list(tokens), messages, sampling, ask.schema, ask.constrain, ask.choice.mode]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


class SaidBefore:
    """For each tenant so many answers; the one used longest ago goes."""

    def __init__(self, room: int) -> None:
        """Raises ValueError for a number below 0."""
        if room < 0:
            raise ValueError(f"keep: found {room}; expected 0, for none, or more")
        self.room = room
        self._lock = threading.Lock()
        self._tenants: dict[str, OrderedDict[str, tuple[Chunk, ...]]] = {}

    def look(self, tenant: str, key: str) -> Ticket | None:
        """The answer once more, as if it came; nothing of it was computed."""
        with self._lock:
            mine = self._tenants.get(tenant, OrderedDict())
            if key not in mine:
                return None
            mine.move_to_end(key)
            chunks = mine[key]
        ticket = Ticket(lambda: None)
        for chunk in chunks:
            ticket.put(chunk)
        return ticket

    def keep(self, tenant: str, key: str, chunks: Sequence[Chunk]) -> None:
        with self._lock:
            mine = self._tenants.setdefault(tenant, OrderedDict())
            mine[key] = tuple(_again(chunk) for chunk in chunks)
            mine.move_to_end(key)
            if len(mine) > self.room:
                mine.popitem(last=False)

    def __repr__(self) -> str:
        return f"<SaidBefore {sum(map(len, self._tenants.values()))} answers>"


def _again(chunk: Chunk) -> Chunk:
    if not isinstance(chunk, Ended):
        return chunk
    facts = replace(chunk.facts, why=WHY, reused_tokens=0, computed_tokens=0, recomputed_tokens=0, queued_s=0.0)
    facts = replace(facts, lost_tokens=0, lost_why="", held_s=0.0, held_until=0.0, held_tokens=0, hold_why="")
    return Ended(chunk.reason, facts)
