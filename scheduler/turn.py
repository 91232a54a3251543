"""A turn in the kernel's books."""

from __future__ import annotations

from dataclasses import dataclass

from ..kvstore import BlockHash, Branch, Grouped
from .events import Arrived
from .world import Program, Waiting


@dataclass(slots=True)
class Turn:
    """A turn between its arrival and its end: it runs while it has a branch, else it waits."""

    arrived: Arrived
    program: Program
    root: BlockHash
    tokens: list[int]
    """All that is known: the prompt, then what was said."""
    number: int
    since: float
    branch: Branch | Grouped | None = None
    preempted: bool = False
    key: tuple[float, ...] = ()
    path: float = 0.0
    """Of its program, when it arrived."""
    wanted: int = 0
    """Pages that it counts for in what all want."""
    fresh: bool = False
    """Its program had not begun when it arrived, and has not since."""
    began: float = 0.0
    """When it was started last."""
    ran: float = 0.0
    """Seconds that it has run, before that."""
    rows: int = 0
    """Tokens that were computed for it since it was started last."""

    @property
    def missing(self) -> int:
        """Tokens that are known and not computed."""
        return len(self.tokens) - (0 if self.branch is None else len(self.branch))

    def view(self, *, holds: bool) -> Waiting:
        """What policies may know of it while it waits, or wants room to go on."""
        return Waiting(
            turn=self.arrived.turn,
            program=self.program,
            arrived=self.since,
            number=self.number,
            tokens=len(self.tokens),
            holds=holds,
            preempted=self.preempted,
            running=self.branch is not None,
            path=self.path,
        )

    def shares(self, other: Turn, more: int = 0) -> int:
        """Length of the common prefix with another turn under the same root, or 0 if it is not more than `more`.

        By halving: slices compare quickly. Strangers mostly differ in the one token that is looked at before.
        """
        high = min(len(self.tokens), len(other.tokens))
        if self.root != other.root or high <= more or self.tokens[more] != other.tokens[more]:
            return 0
        low = 0
        while low < high:
            middle = (low + high + 1) // 2
            if self.tokens[low:middle] == other.tokens[low:middle]:
                low = middle
            else:
                high = middle - 1
        return low if low > more else 0
