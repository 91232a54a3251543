"""What turns left behind that nobody holds, so that it can be given up once nobody will come back to it."""

from __future__ import annotations

from ..kvstore import BlockHash, Branch, Grouped, Ledger, PageId, Snapshot
from .events import ProgramId

_POOLS = 4


class Left:
    """What the last turn of each line of each program stood on. It holds nothing: eviction goes on as if it were not.

    Remembering costs the same whatever the length, where layers have windows a step for each page there, giving up a
    step a page. As many pages are remembered as four pools have, since many may share a beginning; then whoever left
    first is forgotten, and goes in its turn like all others.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._lines: dict[ProgramId, dict[str, tuple[Snapshot, ...]]] = {}  # one for each group of layers
        self._pages = 0

    def __len__(self) -> int:
        return self._pages

    def note(self, program: ProgramId, line: str, branch: Branch | Grouped) -> None:
        """A turn of this line is about to close its branch."""
        left = tuple(part.freeze() for part in branch.parts)
        for part in left:
            part.close()
        self._forget(program, line)
        self._lines.setdefault(program, {})[line] = left
        self._pages += self._size(left)
        while self._pages > _POOLS * self._ledger.room:
            first = next(iter(self._lines))
            self._forget(first, next(iter(self._lines[first])))

    def give_up(self, program: ProgramId, line: str | None = None) -> None:
        """Nobody comes back to this line, or to any of the program: what nobody else stands on ranks below the rest."""
        for each in list(self._lines.get(program, ())) if line is None else [line]:
            left = self._forget(program, each)
            if left is not None:
                self._ledger.demote([page for part in left for page in part.found()])

    def contexts(self, program: ProgramId) -> list[tuple[BlockHash, list[PageId]]]:
        """The pages in which what each line of a program stood on still lies, from the beginning on, under its root.

        Groups of layers stand beside each other as lines do.
        """
        return [(part.root, part.found()) for left in self._lines.get(program, {}).values() for part in left]

    def chain(self, program: ProgramId, line: str) -> tuple[BlockHash, list[BlockHash]] | None:
        """The root and the names of the full blocks on which a line stood; None if it is not known or has windows."""
        left = self._lines.get(program, {}).get(line)
        return None if left is None or len(left) > 1 else (left[0].root, left[0].names)

    def __repr__(self) -> str:
        return f"<Left {self._pages} pages of {len(self._lines)} programs>"

    def _forget(self, program: ProgramId, line: str) -> tuple[Snapshot, ...] | None:
        lines = self._lines.get(program, {})
        left = lines.pop(line, None)
        if left is not None:
            self._pages -= self._size(left)
            if not lines:
                del self._lines[program]
        return left

    def _size(self, left: tuple[Snapshot, ...]) -> int:
        return self._ledger.groups.blocks(len(left[0]), self._ledger.page)
