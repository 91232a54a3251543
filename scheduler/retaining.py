"""What stays when turns are over: holds, marks and copies in the tiers below; and what gives way when room is short."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..kvstore import BlockHash, Branch, Grouped, PageId, resume
from .books import Books
from .effects import Effect
from .events import Ending, Marked, ProgramId
from .holds import Holds
from .left import Left
from .marks import Marks
from .moves import Moves
from .policies import Policy, Retention
from .turn import Turn
from .world import Program


class Retaining:
    """Changes the books and adds to `effects`. `reorder` is called for programs whose turns wait elsewhere now."""

    def __init__(
        self, books: Books, policy: Policy, budget: int, *, effects: list[Effect], reorder: Callable[[Program], None]
    ) -> None:
        self.moves: Moves = books.moves
        self.holds = Holds(books.ledger, budget)
        self.left = Left(books.ledger)
        self._marks = Marks(books.ledger, budget)
        self._books = books
        self._policy = policy
        self._budget = budget
        self._effects = effects
        self._reorder = reorder

    # -- when a turn is over

    def retain(self, turn: Turn, branch: Branch | Grouped, tools: tuple[str, ...]) -> None:
        """A turn ended by calling tools: its program will come back for what it leaves."""
        line = turn.arrived.branch
        retention = self._policy.retain(self._books, turn.program, tools)
        if not len(branch):
            return
        pages = branch.pages
        if retention.seconds > 0:
            if line in turn.program.leases:
                self.let_go(turn.program, line, "replaced by a newer pause", "superseded")
            # Marks and holds have one budget, and a program that will come back goes before one that may.
            while self._marks and self._books.ledger.held + len(pages) > self._budget:
                self._effects += self._marks.give_way(f"a hold for {turn.program.id}")
            name = (turn.arrived.turn, line)
            self._effects += self.holds.keep(turn.program, name, branch, retention, self._books.now)
        self._copy(branch.root, pages, len(branch), retention)

    def leave(self, turn: Turn) -> None:
        """A turn lets go of its context; harmless for one that has none."""
        if turn.branch is not None:
            self.left.note(turn.program.id, turn.arrived.branch, turn.branch)
            turn.branch.close()

    def park(self, name: ProgramId) -> None:
        """A program waits for a person. What it holds is copied, and what it left behind though nothing held it."""
        left = self.left.contexts(name)
        if name not in self._books.programs and not left:
            return
        program = self._books.program(name)
        retention = self._policy.retain(self._books, program, ())
        for root, pages in left:
            self._store(root, pages, retention)
        for branch, key in program.leases.items():
            lease, root = self._books.ledger.leases[key], self.holds.root(program, branch)
            self._copy(root, lease.pages, len(lease.tokens), retention)
        if retention.seconds <= 0:
            self.let_go_all(program, retention.why, "parked")
        self._books.forget_if_idle(program)

    def _copy(
        self,
        root: BlockHash,
        pages: Sequence[PageId],
        length: int,
        retention: Retention,
        *,
        tail: tuple[int, ...] = (),
    ) -> None:
        """Copy a context of so many tokens, its last block as far as `tail` if that is said."""
        groups = self._books.ledger.groups
        for at, own in zip(groups.roots(root), groups.split(pages, length, self._books.page), strict=True):
            self._store(at, own, retention, tail=tail)

    def _store(
        self, root: BlockHash, pages: Sequence[PageId], retention: Retention, *, tail: tuple[int, ...] = ()
    ) -> None:
        """Copy what one group of layers keeps, under its own root."""
        for tier in retention.tiers:
            self._effects += self.moves.store(pages, tier, retention.why, root.hex(), tail=tail)

    # -- holds end

    def let_go_all(self, program: Program, why: str, how: Ending) -> None:
        for branch in list(program.leases):
            self.let_go(program, branch, why, how)

    def let_go(self, program: Program, branch: str, why: str, how: Ending) -> None:
        self._effects.append(self.holds.end(program, branch, why, how))
        self._reorder(program)

    def expire(self) -> None:
        """End what has come to its time."""
        for lease in self._books.ledger.expire(self._books.now):
            if forgotten := self._marks.expired(lease.key, len(lease.tokens)):
                self._effects.append(forgotten)
            elif over := self.holds.expired(lease.key, len(lease.tokens)):
                program, release = over
                self._effects.append(release)
                self._reorder(program)
                self._books.forget_if_idle(program)

    def make_way(self, wanting: Turn, *, keep: str | None = None) -> bool:
        """Let one thing go for a turn's sake; False if there is nothing more.

        What was fetched for others that have not started, then marks, then a hold of the program that came last, the
        turn's own too but `keep`.
        """
        if self.moves.give_way(wanting.arrived.turn):
            return True
        program = wanting.program
        if gone := self._marks.give_way(f"room for {program.id}"):
            self._effects += gone
            return True
        holders = [
            other
            for other in self._books.programs.values()
            if other.leases and (other is program or self._policy.yields(self._books, other, program))
        ]
        for other in sorted(holders, key=lambda holder: -holder.number):
            branch = next((branch for branch in other.leases if other is not program or branch != keep), None)
            if branch is not None:
                self.let_go(other, branch, f"room for {program.id}", "pressure")
                return True
        return False

    # -- marks

    def mark(self, event: Marked) -> None:
        """Somebody may come back to a context: keep it, and copy it where that is asked for."""
        retention = self._policy.mark(self._books)
        if retention.seconds > 0:
            self._effects += self._marks.keep(event, retention, self._books.now)
        if event.tier:
            known = self._books.ledger.groups.known(event.tokens)
            branch = resume(self._books.ledger, BlockHash(bytes.fromhex(event.root)), known)
            there = Retention(0.0, f"marked {event.key}", (event.tier,))
            tail = known[len(branch) // self._books.page * self._books.page : len(branch)]
            self._copy(branch.root, branch.pages, len(branch), there, tail=tail)
            branch.close()

    def yield_marks(self, pages: int, why: str) -> bool:
        """Let marks go until so many pages can be had; False if they cannot."""
        while self._books.available < pages and self._marks:
            self._effects += self._marks.give_way(why)
        return self._books.available >= pages

    def unmark(self, keys: tuple[str, ...]) -> None:
        self._effects += self._marks.forget(keys, "nobody will come back to it")

    def drop_all(self, why: str) -> None:
        """Nothing that is held or marked is wanted any more."""
        for program in list(self._books.programs.values()):
            self.let_go_all(program, why, "reweighted")
            self._books.forget_if_idle(program)
        self._effects += self._marks.forget_all(why)
