"""The suite for tiers, over host memory and disk; and what only host memory promises."""

from __future__ import annotations

from pathlib import Path

import pytest

from sostenuto.kvstore import BlockHash
from sostenuto.kvstore.tiers import DiskTier, HostTier, Tier

from .records import flipped
from .tier_conformance import NAMES, RECORDS, TierConformance


class Host:
    keeps = False

    async def open(self) -> Tier:
        return HostTier()

    async def damage(self, tier: Tier, name: BlockHash) -> None:
        (data,) = (await tier.get((name,))).values()
        await tier.drop((name,))
        await tier.put({name: flipped(bytes(data))})  # only its head is looked at when it comes in


class Disk:
    keeps = True

    def __init__(self, path: Path) -> None:
        self.path = path

    async def open(self) -> Tier:
        return DiskTier.open(self.path, segment=1024)

    async def damage(self, tier: Tier, name: BlockHash) -> None:
        assert isinstance(tier, DiskTier)
        (place,) = tier.store.log.find((name,))
        at = place.at + place.head.size - 1
        data = place.segment.path.read_bytes()
        with place.segment.path.open("r+b") as file:
            file.write(flipped(data, at))


class TestHost(TierConformance):
    @pytest.fixture
    def site(self) -> Host:
        return Host()


class TestDisk(TierConformance):
    @pytest.fixture
    def site(self, tmp_path: Path) -> Disk:
        return Disk(tmp_path / "tier")


async def test_host_memory_may_be_believed_unread() -> None:
    tier = HostTier(verify=False)
    damaged = {NAMES[0]: flipped(RECORDS[NAMES[0]])}
    await tier.put(damaged)
    assert {name: bytes(data) for name, data in (await tier.get(NAMES)).items()} == damaged
    assert (tier.counts.served, tier.counts.absent, tier.counts.bad) == (1, 3, 0)
    await tier.aclose()


async def test_host_memory_keeps_the_very_buffers_it_was_given() -> None:
    tier = HostTier()
    await tier.put(RECORDS)
    found = await tier.get(NAMES)
    assert all(found[name].obj is RECORDS[name] for name in NAMES)
    assert tier.bytes == sum(map(len, RECORDS.values()))
    await tier.aclose()
