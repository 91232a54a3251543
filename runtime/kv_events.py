"""Tells others which blocks can be found on the device and below: everything that is there, then every change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from typing import Any

from ..kvstore import DEVICE, AllBlocksCleared, BlockStored, Elsewhere, FeedEvent, Ledger, Listener
from .errors import HostClosed
from .loop import Loop

_log = logging.getLogger(__name__)


class KvEvents:
    """The listeners of one loop. Nothing is made to be told while there are none."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._listeners: list[Listener] = []

    def subscribe(self, listener: Listener) -> Callable[[], None]:
        """Tell a listener from now on, until what this returns is called. The first that it hears clears everything.

        It is called on the loop's thread and must not block; one that raises hears nothing any more.
        """

        async def join() -> None:
            self._listeners.append(listener)
            self._tell((listener,), stock(self._loop.kernel.ledger, self._loop.kernel.moves.elsewhere))
            self._listen()

        async def leave() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)
            self._listen()

        self._loop.within(join()).result()
        return lambda: self._leave(leave)

    def _leave(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with suppress(HostClosed):
            self._loop.within(leave()).result()

    def _listen(self) -> None:
        hear = self._hear if self._listeners else None
        self._loop.kernel.ledger.listen(hear)
        self._loop.kernel.moves.elsewhere.listen(hear)

    def _hear(self, event: FeedEvent) -> None:
        self._tell(tuple(self._listeners), (event,))

    def _tell(self, listeners: tuple[Listener, ...], events: Iterator[FeedEvent] | tuple[FeedEvent, ...]) -> None:
        for event in events:
            for listener in listeners:
                try:
                    if listener in self._listeners:
                        listener(event)
                except Exception:  # a stranger's code, in the middle of our books
                    self._listeners.remove(listener)
                    _log.exception("a listener to events of blocks raised: it is told nothing any more")


def stock(ledger: Ledger, elsewhere: Elsewhere) -> Iterator[FeedEvent]:
    """What is there now, as events for whoever begins with nothing."""
    yield AllBlocksCleared()
    everything = {DEVICE: ledger.blocks(), **{tier: elsewhere.blocks(tier) for tier in elsewhere.tiers}}
    for medium, blocks in everything.items():
        for name, block in blocks.items():
            for _ in range(block.copies):
                yield BlockStored((name,), block.parent, block.tokens, len(block.tokens), medium=medium)
