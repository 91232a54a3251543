"""Which contexts are kept so that somebody can come back to them, and until when.

A mark belongs to no program: a thread's checkpoints outlive its runs. Marks are the first to give way, oldest first,
because losing one costs time and no more.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from ..kvstore import BlockHash, Ledger, resume
from .effects import Effect, Forget, Keep, Wake
from .events import Marked
from .policies import Retention

_OURS = "mark|"  # leases of marks and of programs lie in one ledger


def lease_of(mark: str) -> str:
    """The ledger's key for what a mark keeps."""
    return _OURS + mark


class Marks:
    """The marks of a ledger, in the order in which they were set."""

    def __init__(self, ledger: Ledger, budget: int) -> None:
        self._ledger = ledger
        self._budget = budget
        self._keys: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def keep(self, mark: Marked, retention: Retention, now: float) -> list[Effect]:
        """Keep as much of a context as is computed and the budget allows; a mark of the same key is replaced.

        What only that one kept is given up: a conversation went back, or took another way.
        """
        self._keys.pop(mark.key, None)
        replaced = self._ledger.leases.get(_OURS + mark.key)
        known = self._ledger.groups.known(mark.tokens)
        branch = resume(self._ledger, BlockHash(bytes.fromhex(mark.root)), known)
        until = now + retention.seconds
        with branch.freeze() as frozen:
            lease = self._ledger.hold(_OURS + mark.key, frozen, until=until, budget=self._budget)
        branch.close()
        if replaced is not None:
            self._ledger.demote(replaced.pages)
        if not lease.pages:
            self._ledger.release(_OURS + mark.key)
            return []
        self._keys[mark.key] = None
        kept = Keep(mark.key, len(lease.tokens), len(lease.pages), lease.asked, until, retention.why)
        return [kept, Wake(until, "a mark ends")]

    def forget(self, keys: Iterable[str], why: str, *, stale: bool = True) -> list[Effect]:
        """Keep these no longer; unknown ones are ignored."""
        gone: list[Effect] = []
        for key in keys:
            if key in self._keys:
                del self._keys[key]
                lease = self._ledger.release(_OURS + key, stale=stale)
                gone.append(Forget(key, len(lease.tokens) if lease else 0, why))
        return gone

    def forget_all(self, why: str) -> list[Effect]:
        return self.forget(tuple(self._keys), why)

    def give_way(self, why: str) -> list[Effect]:
        """The oldest mark lets its pages go; they stay findable until they are wanted."""
        return self.forget(tuple(islice(self._keys, 1)), why, stale=False)

    def expired(self, lease: str, tokens: int) -> Forget | None:
        """The ledger ended this lease; None if it was no mark's."""
        key = lease.removeprefix(_OURS)
        if key == lease or key not in self._keys:
            return None
        del self._keys[key]
        return Forget(key, tokens, "its time is over")
