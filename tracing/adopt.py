"""Async generators that only their owner closes."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Awaitable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Adopted(Generic[Item]):
    """An async generator inside another one, hidden from the event loop.

    A loop that shuts down closes every generator it has seen, all at once. It would close the inner one while
    the outer one is closing it too, and one of the two would fail. So the inner one is begun without the
    loop's hooks; its owner must close it.
    """

    def __init__(self, inner: AsyncGenerator[Item]) -> None:
        self._inner = inner
        self._begun = False

    def next(self) -> Awaitable[Item]:
        """The next item; raises StopAsyncIteration at the end."""
        if self._begun:
            return anext(self._inner)
        self._begun = True
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(None, None)  # for this thread, and only while the generator meets them
        try:
            return anext(self._inner)
        finally:
            sys.set_asyncgen_hooks(*hooks)

    async def close(self) -> None:
        """Closes it; nothing if it has ended, or never begun."""
        if self._begun:
            await self._inner.aclose()
