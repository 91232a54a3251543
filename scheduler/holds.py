"""Which program holds which context, and until when."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

from ..kvstore import BlockHash, Branch, Grouped, Ledger
from .effects import Effect, Hold, Release, Wake
from .events import Ending, TurnId
from .policies import Retention
from .policies.worth import LONGEST_S
from .world import Program


def lease_key(program: str, branch: str) -> str:
    """Under which what a branch of a program leaves is held. Never the same for two."""
    return f"{len(program)}:{program}|{branch}"


class Holds:
    """The leases of a ledger by program and branch. Every hold has an end and a place in the budget."""

    def __init__(self, ledger: Ledger, budget: int) -> None:
        self._ledger = ledger
        self._budget = budget
        self._holders: dict[str, tuple[Program, str, BlockHash]] = {}
        self._ends: list[tuple[float, str]] = []

    def find(self, program: Program, branch: str, tokens: Sequence[int]) -> str | None:
        """The branch of the program whose held context a turn of these tokens extends, or replaces."""
        if branch in program.leases:
            return branch
        best, most = None, -1
        for name in program.leases:
            length = self.length(program, name)
            if length > most and self.extends(program, name, tokens):
                best, most = name, length
        return best

    def root(self, program: Program, branch: str) -> BlockHash:
        """Under which what a branch holds is named."""
        return self._holders[program.leases[branch]][2]

    def length(self, program: Program, branch: str) -> int:
        """Tokens that a branch holds."""
        return len(self._ledger.leases[program.leases[branch]].tokens)

    def extends(self, program: Program, branch: str, tokens: Sequence[int]) -> bool:
        """Do these tokens begin with what the branch holds?"""
        held = self._ledger.leases[program.leases[branch]].tokens
        return tuple(tokens[: len(held)]) == held

    def keep(
        self, program: Program, turn: tuple[TurnId, str], branch: Branch | Grouped, retention: Retention, now: float
    ) -> list[Effect]:
        """Hold what a turn (its id, its line of conversation) leaves behind, as far as the budget goes."""
        name, line = turn
        key = lease_key(program.id, line)
        until = now + min(retention.seconds, LONGEST_S)  # whatever its policy says
        with branch.freeze() as frozen:
            lease = self._ledger.hold(key, frozen, until=until, budget=self._budget)
        if not lease.pages:
            self._ledger.release(key)
            return []
        program.leases[line] = key
        program.expected = 1
        self._holders[key] = (program, line, branch.root)
        heapq.heappush(self._ends, (until, key))
        whole = len(lease.pages) == lease.asked
        why = retention.why + ("" if whole else f", clipped to the budget of {self._budget} pages")
        hold = Hold(program.id, name, line, len(lease.tokens), len(lease.pages), lease.asked, until, why)
        return [hold, Wake(until, "a hold ends")]

    def due(self, now: float) -> Iterator[tuple[Program, str]]:
        """The holds whose time has come, each once: as long as it is not extended, the ledger ends it."""
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            if key in self._holders and self._ledger.leases[key].until == until:
                program, branch, _ = self._holders[key]
                yield program, branch

    def extend(self, program: Program, branch: str, until: float) -> None:
        """Let a hold last until then. A step a page."""
        key = program.leases[branch]
        lease = self._ledger.leases[key]
        self._ledger.take(lease.pages)  # what is held by nobody in between may be anybody's
        self._ledger.hold(key, lease, until=until, budget=self._budget)
        self._ledger.drop(reversed(lease.pages))
        heapq.heappush(self._ends, (until, key))

    def end(self, program: Program, branch: str, why: str, how: Ending) -> Release:
        """End a hold now."""
        key = program.leases.pop(branch)
        del self._holders[key]
        tokens = len(self._ledger.leases[key].tokens)
        self._ledger.release(key, stale=how not in ("parked", "pressure", "expired"))
        return Release(program.id, branch, tokens, why, how)

    def expired(self, lease: str, tokens: int) -> tuple[Program, Release] | None:
        """The ledger ended this lease; None if it was no hold's."""
        if lease not in self._holders:
            return None
        program, branch, _ = self._holders.pop(lease)
        del program.leases[branch]
        return program, Release(program.id, branch, tokens, "its time is over", "expired")
