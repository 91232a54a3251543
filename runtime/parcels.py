"""A conversation with its keys and values as bytes: one call to pack it, one to go on with it on another host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from ..kvstore import RAW, Block, BlockHash, Seal
from ..kvstore.parcel import pack_context, unpack_context
from ..kvstore.parked import Parked
from ..scheduler import Known, Moving
from .copying import copied, cut, sealed
from .errors import Unable
from .loop import Loop


class Parcels:
    """The parcels of one host. Methods block; they need a tier below the device, through which bytes go."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def pack(self, tokens: tuple[int, ...], *, tenant: str, note: Mapping[str, Any], codec: str = RAW) -> bytes:
        """A conversation's tokens, note, and what is computed of its keys and values.

        Raises Unable for a host without tiers, and TierGone where the tier fails.
        """
        return pack_context(*self._loop.within(self._gather(tokens, (tenant, codec), note)).result())

    def unpack(self, data: bytes | memoryview, *, tenant: str, codec: str = RAW) -> Parked:
        """Take a parcel in: what it holds can be gone on with from now on, and its bytes are the caller's again.

        Nothing of it is believed unchecked. Raises Mismatch, with each field that differs, for one of another model,
        geometry, tokenizer, weights, tenant or codec, BadRecord for one that is damaged, and as `pack` does.
        """
        tier, root, seal = self._loop.within(self._place(tenant, codec)).result()
        parcel = unpack_context(data, seal=seal, root=root)
        # Copies, one for each: a tier may keep what it is given, and the caller does with his memory what he likes.
        records = {name: bytes(record) for name, record in parcel.records.items()}
        self._loop.within(self._put(tier, records, parcel.blocks)).result()
        return parcel.parked

    async def _gather(
        self, tokens: tuple[int, ...], whose: tuple[str, str], note: Mapping[str, Any]
    ) -> tuple[Parked, Mapping[BlockHash, memoryview]]:
        tier, (root, _) = self._tier(), sealed(self._loop, *whose)
        parked = await copied(self._loop, tier, root, tokens, note)
        records = await self._loop.mover.get(tier, parked.names)
        # What the tier has let go meanwhile is computed by whoever goes on.
        links = parked.links()
        here = list(takewhile(lambda link: link.name in records, links))
        if len(here) == len(links):
            return parked, records
        return cut(parked, sum(len(link.tokens) for link in here) if parked.groups.plain else 0), records

    async def _place(self, tenant: str, codec: str) -> tuple[str, BlockHash, Seal]:
        return self._tier(), *sealed(self._loop, tenant, codec)

    async def _put(self, tier: str, records: Mapping[BlockHash, bytes], blocks: Sequence[Block]) -> None:
        await self._loop.mover.put(tier, records)
        self._loop.post(Known(tier, tuple(map(Moving.of, blocks))))

    def _tier(self) -> str:
        for name in self._loop.kernel.moves.elsewhere.tiers:
            return name
        raise Unable("this host has no tier below the device: open it with host_tokens=N or store=FOLDER")
