"""What every tier must do, in one suite: subclass TierConformance and give it a fixture `site`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
import pytest
from anyio.lowlevel import checkpoint

from sostenuto.kvstore import BadRecord, BlockHash, TierGone, links, unpack
from sostenuto.kvstore.tiers import Entry, Tier

from .records import PAGE, context, flipped, records, start

CONTEXT = context(range(3 * PAGE + 2))
RECORDS = records(CONTEXT)
NAMES = CONTEXT.names


class Site(Protocol):
    """Where tiers of one kind are opened; opening again finds what was there, if the kind promises that."""

    keeps: bool
    """Is what was put still there after closing?"""

    async def open(self) -> Tier: ...

    async def damage(self, tier: Tier, name: BlockHash) -> None:
        """Change one bit of the stored payload of a block."""


class TierConformance:
    """The suite. Each test opens a tier of its own."""

    async def test_records_come_back_bit_for_bit(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        found = await tier.get(NAMES)
        assert {name: bytes(data) for name, data in found.items()} == RECORDS
        assert (tier.counts.put, tier.counts.served) == (4, 4)
        await tier.aclose()

    async def test_records_from_any_buffer_come_back(self, site: Site) -> None:
        tier = await site.open()
        await tier.put({NAMES[0]: bytearray(RECORDS[NAMES[0]]), NAMES[1]: memoryview(RECORDS[NAMES[1]])})
        found = await tier.get(NAMES[:2])
        assert [bytes(data) for data in found.values()] == [RECORDS[name] for name in NAMES[:2]]
        await tier.aclose()

    async def test_what_is_served_can_be_unpacked_and_not_written_to(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        (data,) = (await tier.get(NAMES[:1])).values()
        assert unpack(data, verified=True) == unpack(RECORDS[NAMES[0]])
        assert data.readonly
        await tier.aclose()

    async def test_absent_is_absent_and_nothing_is_nothing(self, site: Site) -> None:
        tier = await site.open()
        assert await tier.get(NAMES) == {}
        await tier.put({NAMES[1]: RECORDS[NAMES[1]]})
        assert list(await tier.get(NAMES)) == [NAMES[1]]
        assert tier.counts.absent == 7
        await tier.put({})
        await tier.drop(())
        assert await tier.get(()) == {}
        await tier.aclose()

    async def test_putting_twice_is_harmless_and_the_last_of_a_name_wins(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        await tier.put(RECORDS)
        assert len(await tier.entries()) == 4
        other = records(CONTEXT, size=16)
        await tier.put({NAMES[0]: other[NAMES[0]]})
        found = await tier.get(NAMES)
        assert bytes(found[NAMES[0]]) == other[NAMES[0]]
        assert bytes(found[NAMES[1]]) == RECORDS[NAMES[1]]
        assert len(await tier.entries()) == 4
        await tier.aclose()

    async def test_dropped_is_absent_and_may_come_again(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        await tier.drop((NAMES[0], NAMES[2], BlockHash(bytes(16))))
        assert set(await tier.get(NAMES)) == {NAMES[1], NAMES[3]}
        await tier.put(RECORDS)
        assert len(await tier.get(NAMES)) == 4
        await tier.aclose()

    async def test_entries_are_enough_to_rebuild_a_book(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        seal = CONTEXT.seal.digest
        expected = {
            Entry(each.name, each.parent, each.tokens, len(RECORDS[each.name]), seal) for each in CONTEXT.links()
        }
        assert set(await tier.entries()) == expected
        await tier.aclose()

    async def test_what_was_put_is_there_after_opening_again(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        await tier.drop(NAMES[3:])
        before = set(await tier.entries())
        await tier.aclose()
        tier = await site.open()
        assert set(await tier.entries()) == (before if site.keeps else set())
        assert len(await tier.get(NAMES)) == (3 if site.keeps else 0)
        await tier.aclose()

    async def test_a_record_that_is_none_or_another_is_not_put_and_nothing_with_it(self, site: Site) -> None:
        tier = await site.open()
        good = RECORDS[NAMES[0]]
        for wrong in (b"", good[:-1], good + b"\0", flipped(good, 9), RECORDS[NAMES[2]]):
            with pytest.raises(BadRecord):
                await tier.put({NAMES[0]: good, NAMES[1]: wrong})
        assert await tier.entries() == []
        await tier.aclose()

    async def test_a_damaged_record_is_dropped_and_counted_and_the_others_are_served(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        await site.damage(tier, NAMES[1])
        assert set(await tier.get(NAMES)) == {NAMES[0], NAMES[2], NAMES[3]}
        assert tier.counts.bad == 1
        assert NAMES[1] not in {each.name for each in await tier.entries()}
        await tier.put(RECORDS)
        assert bytes((await tier.get(NAMES))[NAMES[1]]) == RECORDS[NAMES[1]]
        await tier.aclose()

    async def test_many_may_put_and_get_at_once(self, site: Site) -> None:
        tier = await site.open()
        contexts = [context(range(1000 + 100 * each, 1011 + 100 * each)) for each in range(8)]

        async def use(number: int) -> None:
            mine = records(contexts[number])
            for _ in range(3):
                await tier.put(mine)
                found = await tier.get((*mine, *NAMES))
                assert {name: bytes(data) for name, data in found.items()} == mine

        async with anyio.create_task_group() as users:
            for number in range(8):
                users.start_soon(use, number)
        assert len(await tier.entries()) == 8 * 3
        await tier.aclose()

    @pytest.mark.parametrize("steps", range(7))
    async def test_a_cancelled_put_leaves_whole_records_or_none(self, site: Site, steps: int) -> None:
        tier = await site.open()
        await cancelled(lambda: tier.put(RECORDS), steps)
        found = await tier.get(NAMES)
        assert {name: bytes(data) for name, data in found.items()}.items() <= RECORDS.items()
        assert tier.counts.bad == 0
        await tier.put(RECORDS)
        assert len(await tier.get(NAMES)) == 4
        await tier.aclose()

    @pytest.mark.parametrize("steps", range(7))
    async def test_a_cancelled_get_disturbs_no_later_one(self, site: Site, steps: int) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        await cancelled(lambda: tier.get(NAMES), steps)
        for name in NAMES:  # one by one: an answer meant for the cancelled call would be another block
            assert bytes((await tier.get((name,)))[name]) == RECORDS[name]
        assert tier.counts.bad == 0
        await tier.aclose()

    async def test_a_tenant_is_never_served_what_another_put(self, site: Site) -> None:
        tier = await site.open()
        await tier.put(RECORDS)
        theirs = [link.name for link in links(CONTEXT.tokens, PAGE, start("another tenant"))]
        assert await tier.get(theirs) == {}
        await tier.aclose()

    async def test_a_closed_tier_says_so_and_closing_twice_is_harmless(self, site: Site) -> None:
        tier = await site.open()
        assert tier.name in repr(tier)
        await tier.aclose()
        await tier.aclose()
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: tier.put(RECORDS),
            lambda: tier.get(NAMES),
            lambda: tier.drop(NAMES),
            tier.entries,
        ]
        for ask in asked:
            with pytest.raises(TierGone):
                await ask()


async def cancelled(work: Callable[[], Awaitable[object]], steps: int) -> None:
    """Begin some work and cancel it after so many turns of the loop."""

    async def run() -> None:
        await work()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        for _ in range(steps):
            await checkpoint()
        group.cancel_scope.cancel()
