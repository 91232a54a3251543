"""What stays when turns are over: holds, marks and copies in the tiers below; and what gives way when room is short."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from ..kvstore import BlockHash, Branch, Grouped, PageId, resume
from .books import Books
from .effects import Effect, Extend, Wake
from .events import Ending, Marked, ProgramId
from .givers import Givers
from .holds import Holds
from .left import Left
from .marks import Marks
from .moves import Moves
from .policies import Policy
from .policies.worth import LONGEST_S
from .prefetching import Prefetching
from .turn import Turn
from .world import Pause, Program, Waiting


class Retaining:
    """Changes the books and adds to `effects`. `reorder` is called for programs whose turns wait elsewhere now."""

    def __init__(
        self, books: Books, policy: Policy, *, effects: list[Effect], reorder: Callable[[Program], None]
    ) -> None:
        self.books = books
        self.moves: Moves = books.moves
        self._budget = int(books.room * books.setting.hold_budget)
        self.holds = Holds(books.ledger, self._budget)
        self.left = Left(books.ledger)
        self.prefetching = Prefetching(books, self.left, effects)
        self._givers = Givers(lambda program: policy.gives(books, program))
        self._marks = Marks(books.ledger, self._budget)
        self._policy = policy
        self._effects = effects
        self._reorder = reorder

    # -- when a turn is over

    def retain(self, turn: Turn, branch: Branch | Grouped, pause: Pause) -> None:
        """A turn ended by calling tools: its program will come back for what it leaves."""
        line, program = pause.branch, turn.program
        retention = self._policy.retain(self.books, program, pause)
        if not len(branch):
            return
        pages = branch.pages
        if retention.seconds > 0:
            if line in program.leases:
                self.let_go(program, line, "replaced by a newer pause", "superseded")
            # Marks and holds have one budget, and a program that will come back goes before one that may.
            while self._marks and self.books.ledger.held + len(pages) > self._budget:
                self._effects += self._marks.give_way(f"a hold for {program.id}")
            name = (turn.arrived.turn, line)
            self._effects += self.holds.keep(program, name, branch, retention, self.books.now)
            self._giving(program)
        self.copy(branch.root, pages, len(branch), tiers=retention.tiers, why=retention.why)
        if line not in program.leases:
            self._gone(program, line)

    def leave(self, turn: Turn) -> None:
        """A turn lets go of its context; harmless for one that has none."""
        if turn.branch is not None:
            self.left.note(turn.program.id, turn.arrived.branch, turn.branch)
            turn.branch.close()

    def park(self, name: ProgramId) -> None:
        """A program waits for a person. What it holds is copied, and what it left behind though nothing held it."""
        left = self.left.contexts(name)
        if name not in self.books.programs and not left:
            return
        program = self.books.program(name)
        retention = self._policy.retain(self.books, program, Pause("", (), self.books.now, program.tokens))
        for root, pages in left:
            self._store(root, pages, retention.tiers, retention.why)
        for branch, key in program.leases.items():
            lease, root = self.books.ledger.leases[key], self.holds.root(program, branch)
            self.copy(root, lease.pages, len(lease.tokens), tiers=retention.tiers, why=retention.why)
        for branch in list(program.pauses):
            self.books.chronicle.returned(program, branch, self.books.now)  # it waits for no tool any more
        if retention.seconds <= 0:
            self.let_go_all(program, retention.why, "parked")
        self.books.forget_if_idle(program)

    def copy(self, root: BlockHash, pages: Sequence[PageId], length: int, *, tiers: Sequence[str], why: str) -> None:
        """Copy a context of so many tokens."""
        for at, own in self._parts(root, pages, length):
            self._store(at, own, tiers, why)

    def _parts(
        self, root: BlockHash, pages: Sequence[PageId], length: int
    ) -> Iterator[tuple[BlockHash, Sequence[PageId]]]:
        """What each group of layers keeps of a context of so many tokens, under its own root."""
        groups = self.books.ledger.groups
        return zip(groups.roots(root), groups.split(pages, length, self.books.page), strict=True)

    def _store(self, root: BlockHash, pages: Sequence[PageId], tiers: Sequence[str], why: str) -> None:
        """Copy what one group of layers keeps, under its own root."""
        for tier in tiers:
            self._effects += self.moves.store(pages, tier, why, root.hex())

    # -- holds end

    def let_go_all(self, program: Program, why: str, how: Ending) -> None:
        for branch in list(program.leases):
            self.let_go(program, branch, why, how)

    def let_go(self, program: Program, branch: str, why: str, how: Ending) -> None:
        self._effects.append(self.holds.end(program, branch, why, how))
        self._giving(program)
        if how == "pressure":
            self._gone(program, branch)
        self._reorder(program)

    def expire(self) -> None:
        """End what has come to its time, unless a hold is to go on."""
        self._renew()
        for lease in self.books.ledger.expire(self.books.now):
            self.books.changes += 1
            if forgotten := self._marks.expired(lease.key, len(lease.tokens)):
                self._effects.append(forgotten)
            elif over := self.holds.expired(lease.key, len(lease.tokens)):
                program, release = over
                self._effects.append(release)
                self._giving(program)
                self._gone(program, release.branch)
                self._reorder(program)
                self.books.forget_if_idle(program)

    def make_way(self, wanting: Turn, *, keep: str | None = None) -> bool:
        """Let one thing go for a turn's sake; False if there is nothing more.

        What was fetched for others that have not started, then marks, then a hold of whoever gives way first, then
        one of the turn's own program, but `keep`.
        """
        if self.moves.give_way(wanting.arrived.turn):
            return True
        program = wanting.program
        if gone := self._marks.give_way(f"room for {program.id}"):
            self._effects += gone
            return True
        view = wanting.view(holds=keep is not None)
        giver = next((one for one in self._givers.first() if self._yields(one, view)), program)
        branch = next((branch for branch in giver.leases if giver is not program or branch != keep), None)
        if branch is None:
            return False
        self.let_go(giver, branch, f"room for {program.id}", "pressure")
        return True

    def _yields(self, holder: Program, wanting: Waiting) -> bool:
        return holder is not wanting.program and self._policy.yields(self.books, holder, wanting)

    def _renew(self) -> None:
        """Holds whose time is over go on if their policy wants that, now that their tools have been out for so long."""
        for program, branch in self.holds.due(self.books.now):
            pause = program.pauses.get(branch)
            if pause is None:
                continue
            more = self._policy.renew(self.books, program, pause)
            until = min(self.books.now + more.seconds, pause.since + LONGEST_S)  # whatever its policy says
            if until > self.books.now:  # late on a clock a few picoseconds more are none, and would be due for ever
                self.holds.extend(program, branch, until)
                self._effects += [Extend(program.id, branch, until, more.why), Wake(until, "a hold ends")]
                self._giving(program)

    def _giving(self, program: Program) -> None:
        """What a program holds has changed."""
        if program.leases:
            self._givers.put(program)
        else:
            self._givers.remove(program)
        self.books.holding = len(self._givers)
        self.books.changes += 1

    def _gone(self, program: Program, branch: str) -> None:
        """Nothing holds any more what a branch will come back for."""
        pause = program.pauses.get(branch)
        if pause is not None and self.books.tiers:
            self.prefetching.plan(program, branch, self._policy.prefetch(self.books, program, pause))

    # -- marks

    def mark(self, event: Marked) -> None:
        """Somebody may come back to a context: keep it, and copy it where that is asked for."""
        retention = self._policy.mark(self.books)
        if retention.seconds > 0:
            self._effects += self._marks.keep(event, retention, self.books.now)
        if event.tier:
            known = self.books.ledger.groups.known(event.tokens)
            branch = resume(self.books.ledger, BlockHash(bytes.fromhex(event.root)), known)
            tail, why = known[len(branch) // self.books.page * self.books.page : len(branch)], f"marked {event.key}"
            for at, own in self._parts(branch.root, branch.pages, len(branch)):
                self._effects += self.moves.store(own, event.tier, why, at.hex(), tail=tail)
            branch.close()

    def yield_marks(self, pages: int, why: str) -> bool:
        """Let marks go until so many pages can be had; False if they cannot."""
        while self.books.available < pages and self._marks:
            self._effects += self._marks.give_way(why)
        return self.books.available >= pages

    def unmark(self, keys: tuple[str, ...]) -> None:
        self._effects += self._marks.forget(keys, "nobody will come back to it")

    def drop_all(self, why: str) -> None:
        """Nothing that is held or marked is wanted any more."""
        for program in list(self.books.programs.values()):
            self.let_go_all(program, why, "reweighted")
            self.books.forget_if_idle(program)
        self._effects += self._marks.forget_all(why)
