"""A conversation with its keys and values as bytes: one call to pack it, one to go on with it on another host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..kvstore.parcel import pack_context, unpack_context
from ..kvstore.parked import Parked
from ..scheduler import Known, Moving
from .copying import copied, sealed
from .errors import Unable
from .loop import Loop


class Parcels:
    """The parcels of one host. Methods block; they need a tier below the device, through which bytes go."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def pack(self, tokens: tuple[int, ...], *, tenant: str, note: Mapping[str, Any]) -> bytes:
        """A conversation's tokens, note, and what is computed of its keys and values.

        Raises Unable for a host without tiers, and TierGone where the tier fails.
        """
        return self._loop.within(self._pack(tokens, tenant, note)).result()

    def unpack(self, data: bytes | memoryview, *, tenant: str) -> Parked:
        """Take a parcel in: what it holds can be gone on with from now on.

        Nothing of it is believed unchecked. Raises Mismatch, with each field that differs, for one of another model,
        geometry, tokenizer, weights or tenant, BadRecord for one that is damaged, and as `pack` does.
        """
        return self._loop.within(self._unpack(data, tenant)).result()

    async def _pack(self, tokens: tuple[int, ...], tenant: str, note: Mapping[str, Any]) -> bytes:
        tier = self._tier()
        parked = await copied(self._loop, tier, tenant, tokens, note)
        return pack_context(parked, await self._loop.mover.get(tier, parked.names))

    async def _unpack(self, data: bytes | memoryview, tenant: str) -> Parked:
        tier, (root, seal) = self._tier(), sealed(self._loop, tenant)
        parcel = unpack_context(data, seal=seal, root=root)
        await self._loop.mover.put(tier, parcel.records)
        blocks = (Moving(block.name.hex(), block.parent.hex(), block.tokens) for block in parcel.blocks)
        self._loop.post(Known(tier, tuple(blocks)))
        return parcel.parked

    def _tier(self) -> str:
        for name in self._loop.kernel.moves.elsewhere.tiers:
            return name
        raise Unable("this host has no tier below the device: open it with host_tokens=N or store=FOLDER")
