"""Which pages were fetched for nobody in particular, and have not been used since: what a prefetch has cost so far."""

from __future__ import annotations

from collections.abc import Sequence

from ..kvstore import Ledger, PageId


class Brought:
    """Told by the number of the release that let go of a page: a later one was that of somebody who came for it."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._pages: dict[PageId, int | None] = {}  # None while they are on their way

    def unused(self, page: PageId) -> bool:
        """Is a page on its way, or has come, and nobody has used it yet?"""
        return page in self._pages and self._pages[page] == self._ledger.released(page)

    def coming(self, pages: Sequence[PageId]) -> None:
        """These are held by a move for nobody in particular."""
        self._pages |= dict.fromkeys(pages)

    def taken(self, pages: Sequence[PageId]) -> None:
        """Somebody has come for these while they were on their way."""
        for page in pages:
            self._pages.pop(page, None)

    def landed(self, pages: Sequence[PageId]) -> None:
        """A move that held these is over, and has let go of them. Others than those that were coming are ignored."""
        for page in pages:
            if page in self._pages and self._pages[page] is None and not self._ledger.refs(page):
                number = self._ledger.released(page)
                if number is None:
                    del self._pages[page]  # what was to lie in it did not arrive
                else:
                    self._pages[page] = number
