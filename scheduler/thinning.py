"""Contexts that are cut to a budget of tokens: held while they are read, then put under names of their own.

What is thinned lies in its pages until it was read. Then it is let go before what stays of it gets pages, so thinning
needs no room beyond the context itself. What stays is kept like a mark, because it cannot be computed from its tokens:
who stands on it and does not find it is refused, and told so.
"""

from __future__ import annotations

from ..kvstore import BlockHash, PageId
from .books import Books
from .effects import Effect, Place, Thin
from .events import Marked, Placed, Thinned, Thinning, TurnId
from .retaining import Retaining

GONE = BlockHash(b"")
"""A root under which nothing is ever found."""


class Thinnings:
    """Changes the books and adds to `effects`."""

    def __init__(self, books: Books, kept: Retaining, effects: list[Effect]) -> None:
        self._books = books
        self._kept = kept
        self._effects = effects
        self._known: dict[TurnId, Thinned] = {}

    def hear(self, event: Thinning | Thinned | Placed) -> None:
        """One more step of a thinning; a step out of its order, such as one of a turn that does not run, is ignored."""
        match event:
            case Thinning(turn=name):
                self._begin(name)
            case Thinned(turn=name, tokens=tokens) if name in self._books.thinning:
                # Nobody is expected to come back for the whole of it: it was thinned because it is too large.
                self._let_go(name, stale=bool(tokens))
                if tokens:
                    self._place(event)
            case Placed(turn=name, key=key) if name in self._known:
                self._keep(name, key)

    def _begin(self, name: TurnId) -> None:
        turn = self._books.batch.get(name)
        if turn is None or turn.branch is None or not len(turn.branch) or name in self._books.thinning:
            return
        length = len(turn.branch)
        pages = tuple(turn.branch.pages[: -(-length // self._books.page)])
        self._books.ledger.take(pages)
        self._books.thinning[name] = pages
        self._effects.append(Thin(name, turn.root.hex(), pages, length, f"asked for by {turn.program.id}"))

    def _place(self, event: Thinned) -> None:
        count = -(-len(event.tokens) // self._books.page)
        if not self._kept.yield_marks(count, "room for a thinned context"):
            why = f"what stays needs {count} pages, and {self._books.available} are free or may be evicted"
            self._effects.append(Place(event.turn, (), why))
            return
        pages = self._books.ledger.alloc(count)
        self._books.thinning[event.turn] = pages
        self._known[event.turn] = event
        self._effects.append(Place(event.turn, pages, f"{len(event.tokens)} tokens stay"))

    def _keep(self, name: TurnId, key: str) -> None:
        known = self._known[name]
        self._publish(known, self._books.thinning[name])
        self._kept.mark(Marked(key, known.root, known.tokens))
        self._let_go(name)

    def _publish(self, known: Thinned, pages: tuple[PageId, ...]) -> None:
        parent, size = BlockHash(bytes.fromhex(known.root)), self._books.page
        for depth, page in enumerate(pages):
            block = known.tokens[depth * size : (depth + 1) * size]
            try:
                name = self._books.ledger.publish(page, parent, block, depth=depth)
            except LookupError:
                return  # other tokens have the name: nothing from here on may be found
            parent = name or parent

    def _let_go(self, name: TurnId, *, stale: bool = False) -> None:
        self._known.pop(name, None)
        self._books.ledger.drop(reversed(self._books.thinning.pop(name)), stale=stale)
