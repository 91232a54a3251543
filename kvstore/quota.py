"""Quotas: how many pages the wishes of one tenant may reach at once, and those of all tenants together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from .snapshot import PageId

ALL_SHARE = 0.5
"""Of a pool, for the wishes of all tenants: half of it goes on serving those who wish for nothing."""
TENANT_SHARE = 0.25
"""Of a pool, for the wishes of one tenant: half of what there is for all, so that none can use up what others may."""


class Quota:
    """Counts each page once, for the tenant that won it last, as long as it `lasts`.

    That is asked page by page and not kept here, so nothing can come apart from it: whatever ended, whoever ended it,
    counts no more. It is asked only when a wish would not fit otherwise, at a step for each page that is counted.
    """

    def __init__(self, room: int, *, lasts: Callable[[PageId], bool]) -> None:
        """For a pool of `room` pages."""
        self.total = int(room * ALL_SHARE)
        self.each = int(room * TENANT_SHARE)
        self._lasts = lasts
        self._tenants: dict[PageId, str] = {}
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """Pages that are counted; some of them may have ended."""
        return len(self._tenants)

    def spare(self, tenant: str, wanted: int) -> int:
        """How many of so many further pages a tenant may have."""
        if self._spare(tenant) < wanted:
            for page in [page for page in self._tenants if not self._lasts(page)]:
                self._forget(page)
        return max(0, min(wanted, self._spare(tenant)))

    def has(self, tenant: str, page: PageId) -> bool:
        """Is a page counted for a tenant already?"""
        return self._tenants.get(page) == tenant and self._lasts(page)

    def add(self, tenant: str, pages: Iterable[PageId]) -> None:
        """A tenant has won these."""
        for page in pages:
            self._forget(page)
            self._tenants[page] = tenant
            self._counts[tenant] += 1

    def why(self, tenant: str) -> str:
        """What is in the way of more."""
        if self._counts[tenant] >= self.each:
            return f"clipped to the tenant's budget of {self.each} pages"
        return f"clipped to the budget of {self.total} pages for all tenants"

    def __repr__(self) -> str:
        return f"<Quota {len(self)}/{self.total} pages | {self.each} a tenant>"

    def _spare(self, tenant: str) -> int:
        return min(self.each - self._counts[tenant], self.total - len(self))

    def _forget(self, page: PageId) -> None:
        tenant = self._tenants.pop(page, None)
        if tenant is not None:
            self._counts[tenant] -= 1
            if not self._counts[tenant]:
                del self._counts[tenant]
