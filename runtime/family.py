"""What sessions that were forked from each other have in common, and a moment of one of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import count
from uuid import uuid4

from .history import History
from .host import Host
from .remnant import Remnant


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment of a conversation. It is a value: it stays true whatever becomes of the session."""

    key: str
    history: History
    model: str
    """The fingerprint of the model that it belongs to."""
    tenant: str
    remnant: Remnant | None = None
    """What is left of its context, if that was thinned."""

    def __len__(self) -> int:
        return len(self.history.tokens)


class Family:
    """A session and all that were forked from it: one program to the scheduler."""

    def __init__(self, host: Host, program: str, *, exact: bool) -> None:
        self.host = host
        self.program = program
        self.exact = exact
        self.salt = uuid4().hex[:8]  # others may have a program of the same name
        self.numbers = count()
        self.alive = 0
        host.begin(program)


def let_go(family: Family, name: str, marks: dict[str, Mark]) -> None:
    """A session of the family is closed, and the program with the last of them."""
    family.host.unmark(name, *(marked(name, key) for key in marks))
    family.alive -= 1
    if family.alive == 0:
        family.host.end(family.program)


def marked(session: str, key: str) -> str:
    """Under which a session's mark is kept."""
    return f"{session}@{key}"


def seed_of(seed: int, number: int) -> int:
    """A child's seed: a hash, so that neighbours have nothing in common."""
    return int.from_bytes(hashlib.blake2b(f"{seed} {number}".encode(), digest_size=7).digest())
