"""Conversations under a name on a disk: another process goes on with them, and computes nothing of what they were."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from ..kvstore import RAW, BlockHash, Incomplete, TierFull, find
from ..kvstore.parked import Parked
from ..kvstore.tiers import DiskTier, Shelf
from ..scheduler import Known, Lost, Moving
from .copying import copied, sealed
from .loop import Loop

_T = TypeVar("_T")


class Saved:
    """The saved conversations of a host. All methods block until the disk has answered."""

    def __init__(self, loop: Loop, disk: DiskTier) -> None:
        self._loop = loop
        self._disk = disk

    def keep(self, key: str, tokens: tuple[int, ...], *, tenant: str, note: Mapping[str, Any], codec: str = RAW) -> int:
        """Save a conversation, in place of what had the key; returns of how many tokens keys and values are saved.

        When it returns, all of that survives the process and the machine. What was not computed, or was evicted, is
        not saved, and computed when somebody goes on. Raises TierFull where the store is too small for it or the disk
        is full, TierGone when the disk fails, and Incomplete where it loses what it has just been given, twice.
        """
        return self._wait(self._keep(key, tokens, (tenant, codec), note))

    def find(self, key: str, *, tenant: str, codec: str = RAW) -> Parked | None:
        """What was saved under a key, by this tenant; None for nothing.

        Raises Mismatch, which names each field, where it was saved under another model or codec, and BadRecord where
        the disk has damaged it.
        """
        return self._wait(self._find(key, (tenant, codec)))

    def keys(self, *, tenant: str) -> list[str]:
        """The keys under which this tenant has saved something."""
        return self._wait(self._shelf(tenant).keys())

    def forget(self, key: str, *, tenant: str) -> None:
        """Let a saved conversation go; an unknown one is harmless."""
        self._wait(self._shelf(tenant).forget(key))

    def _wait(self, work: Coroutine[Any, Any, _T]) -> _T:
        return self._loop.within(work).result()

    def _shelf(self, tenant: str, codec: str = RAW) -> Shelf:
        root, seal = sealed(self._loop, tenant, codec)
        return Shelf(self._disk, seal=seal, root=root)

    async def _find(self, key: str, whose: tuple[str, str]) -> Parked | None:
        parked = await self._shelf(*whose).find(key)
        if parked is not None:
            # A store with an end forgets what it lets go, and what is saved stays on the disk all the same.
            self._loop.post(Known(self._disk.name, tuple(map(Moving.of, parked.links()))))
        return parked

    def _fits(self, root: BlockHash, tokens: tuple[int, ...]) -> None:
        ledger, room = self._loop.kernel.ledger, self._loop.kernel.moves.elsewhere.rooms[self._disk.name]
        computed = find(ledger, root, ledger.groups.known(tokens)).tokens(ledger.page)
        blocks = ledger.groups.blocks(computed, ledger.page)
        if room is not None and blocks > room:
            raise TierFull(
                f"a conversation of {computed} tokens takes {blocks} blocks, and the store has room for {room}: "
                f"open the host with a greater store_tokens, or without it"
            )

    async def _keep(self, key: str, tokens: tuple[int, ...], whose: tuple[str, str], note: Mapping[str, Any]) -> int:
        root, _ = sealed(self._loop, *whose)
        self._fits(root, tokens)
        parked = await copied(self._loop, self._disk.name, root, tokens, note)
        try:
            await self._shelf(*whose).keep(key, parked)
        except Incomplete:
            # Dropped between the copy and the keeping, or gone without our books' knowing: it is copied once more.
            here = {entry.name for entry in await self._disk.entries()}
            gone = tuple(name.hex() for name in parked.names if name not in here)
            self._loop.post(Lost(self._disk.name, gone))
            parked = await copied(self._loop, self._disk.name, root, tokens, note)
            await self._shelf(*whose).keep(key, parked)
        return len(parked)
