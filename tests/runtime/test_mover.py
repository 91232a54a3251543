"""The mover alone: tiers that never answer, fail, or give something else cost what lies there, and nothing else."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Mapping

import pytest

from sostenuto.kvstore import BlockHash, Parked, TierFull, TierGone
from sostenuto.scheduler import CancelMove, Drop, Known, Lost, Move, Moved
from sostenuto.tests.kvstore.records import PAGE, flipped, records, seal

from .moving import CONTEXT, NAMES, RECORDS, SIZE, Scene, moving, played


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    """With patience enough for everything that answers at all."""
    async for each in played(60.0):
        yield each


@pytest.fixture
async def hasty() -> AsyncIterator[Scene]:
    """With hardly any."""
    async for each in played(0.01):
        yield each


# -- what goes well


async def test_what_is_stored_comes_back_to_other_pages_and_is_told_in_order(scene: Scene) -> None:
    scene.store()
    assert await scene.mover.settled("near") is None
    scene.fetch()
    await scene.over()
    assert scene.told == [Moved(1, tuple(NAMES)), Moved(2, tuple(NAMES))]
    sizes = (PAGE, PAGE, PAGE, 2)
    assert scene.pages.written == {10 + n: bytes([n]) * SIZE * sizes[n - 1] for n in (1, 2, 3, 4)}


async def test_what_lies_in_the_tiers_is_told_when_it_opens(scene: Scene) -> None:
    await scene.far.put(RECORDS)
    await scene.mover.open()
    (known,) = scene.told
    assert isinstance(known, Known)
    assert (known.tier, [block.name for block in known.blocks]) == ("far", NAMES)


async def test_what_a_tier_is_told_to_do_it_does_in_that_order(scene: Scene) -> None:
    scene.store()
    scene.mover.carry(Drop("near", tuple(NAMES[:2]), "it is full"))
    scene.store(3)
    scene.mover.carry(Drop("near", tuple(NAMES[1:]), "it is full"))
    await scene.over()
    assert scene.near.log == ["put", "drop", "put", "drop"]
    assert scene.near.held == NAMES[:1]


async def test_what_moves_down_is_in_the_lower_tier_when_it_is_told(scene: Scene) -> None:
    scene.store()
    await scene.over()
    blocks = tuple(moving(each) for each in CONTEXT.links()[:2])
    scene.follow = lambda event: scene.near.log.append("told")
    scene.mover.carry(Move(2, "near", "far", blocks, "", None, "near is full"))
    await scene.over()
    assert scene.told[-1] == Moved(2, tuple(NAMES[:2]))
    assert scene.far.held == NAMES[:2]


# -- tiers that never answer


async def test_a_tier_that_does_not_say_what_lies_there_is_opened_without(
    hasty: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await hasty.far.put(RECORDS)
    hasty.near.deaf.add("entries")
    await hasty.mover.open()
    assert [event.tier for event in hasty.told if isinstance(event, Known)] == ["far"]
    assert "the tier near failed: no answer came within 0.01 s" in caplog.text


async def test_a_copy_that_a_tier_never_takes_is_over_and_the_next_has_its_turn(hasty: Scene) -> None:
    hasty.near.deaf.add("put")
    hasty.store()
    fault = await hasty.mover.settled("near")
    assert isinstance(fault, TierGone)
    assert hasty.told == [Moved(1, ())]
    hasty.near.deaf.clear()
    hasty.store(2)
    assert await hasty.mover.settled("near") is None
    assert hasty.told[1:] == [Moved(2, tuple(NAMES))]


async def test_blocks_that_a_tier_never_gives_are_lost_and_nobody_waits_for_them(hasty: Scene) -> None:
    await hasty.near.put(RECORDS)
    hasty.near.deaf.add("get")
    hasty.fetch()
    await hasty.over()
    assert hasty.told == [Lost("near", tuple(NAMES)), Moved(2, ())]
    assert hasty.pages.written == {}


async def test_whoever_asks_for_records_is_told_that_none_come(hasty: Scene) -> None:
    hasty.near.deaf |= {"get", "put"}
    with pytest.raises(TierGone, match=r"no answer came within 0\.01 s"):
        await hasty.mover.get("near", CONTEXT.names)
    with pytest.raises(TierGone, match=r"no answer came within 0\.01 s"):
        await hasty.mover.put("near", RECORDS)
    hasty.near.deaf.clear()
    await hasty.mover.put("near", RECORDS)
    assert {name: bytes(data) for name, data in (await hasty.mover.get("near", CONTEXT.names)).items()} == RECORDS


@pytest.mark.parametrize("call", ["put", "drop", "get", "aclose"])
async def test_it_closes_whatever_a_tier_does_not_answer(hasty: Scene, call: str) -> None:
    hasty.near.deaf.add(call)
    for number in range(1, 4):
        hasty.store(number)
    hasty.mover.carry(Drop("near", tuple(NAMES), "it is full"))
    hasty.fetch(4)
    await hasty.mover.close()
    assert hasty.mover._tasks == {}
    assert "aclose" in hasty.far.log


async def test_it_closes_when_those_who_write_on_pages_never_rest(hasty: Scene) -> None:
    hasty.rest.clear()
    hasty.fetch()
    await hasty.mover.close()
    assert hasty.pages.written == {}


async def test_what_follows_from_what_was_begun_is_carried_out_before_it_closes(scene: Scene) -> None:
    blocks = tuple(moving(each) for each in CONTEXT.links())
    down = Move(2, "near", "far", blocks, "", None, "near is full")
    scene.follow = lambda event: scene.mover.carry(down) if event == Moved(1, tuple(NAMES)) else None
    scene.store()
    await scene.mover.close()
    assert scene.told == [Moved(1, tuple(NAMES)), Moved(2, tuple(NAMES))]
    assert scene.far.counts.put == 4


async def test_what_a_deaf_tier_raises_later_is_nobodys_affair(hasty: Scene) -> None:
    hasty.near.deaf.add("put")
    hasty.near.faulty.add("put")
    hasty.store()
    assert isinstance(await hasty.mover.settled("near"), TierGone)
    hasty.near.heard.set()
    await hasty.abandoned()
    assert hasty.defects == []


# -- tiers that fail


async def test_a_defect_of_a_tier_costs_what_goes_there_and_is_told_once_with_its_place(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.near.faulty.add("put")
    scene.store(1)
    scene.store(2)
    scene.store(3, tier="far")
    assert await scene.mover.settled("near") is scene.near.fault
    assert await scene.mover.settled("far") is None
    assert sorted(scene.told, key=lambda event: event.id if isinstance(event, Moved) else 0) == [
        Moved(1, ()),
        Moved(2, ()),
        Moved(3, tuple(NAMES)),
    ]
    (told,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert "the tier near failed: a defect of somebody's" in told.getMessage()
    assert told.exc_info is not None


async def test_a_tier_that_is_full_is_told_without_a_trace_of_our_code(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    scene.near.fault = TierFull("no room for 64 bytes")
    scene.near.faulty.add("put")
    scene.store()
    assert await scene.mover.settled("near") is scene.near.fault
    (told,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert (told.exc_info or None) is None


async def test_a_tier_that_fails_to_give_loses_what_was_asked_of_it_and_nothing_else(scene: Scene) -> None:
    await scene.near.put(RECORDS)
    await scene.far.put(RECORDS)
    scene.far.faulty.add("get")
    scene.fetch(2, ("near", "near", "far", "near"))
    await scene.over()
    assert scene.told == [Lost("far", (NAMES[2],)), Moved(2, tuple(NAMES[:2]))]
    assert sorted(scene.pages.written) == [11, 12]


async def test_what_is_absent_is_lost_and_what_lies_before_it_is_used(scene: Scene) -> None:
    await scene.near.put({name: RECORDS[name] for name in CONTEXT.names[:1]})
    scene.fetch()
    await scene.over()
    assert scene.told == [Lost("near", tuple(NAMES[1:])), Moved(2, tuple(NAMES[:1]))]


def other(name: BlockHash) -> dict[BlockHash, bytes]:
    """A whole record under a name, of another seal."""
    written = records(Parked(CONTEXT.root, CONTEXT.tokens, CONTEXT.names, seal("another tenant")), SIZE)
    return {name: written[name]}


async def test_a_record_that_is_not_what_was_wanted_leaves_its_tier(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    await scene.near.put({**RECORDS, **other(CONTEXT.names[1])})
    scene.fetch()
    await scene.over()
    assert scene.told == [Lost("near", (NAMES[1],)), Moved(2, (NAMES[0],))]
    assert scene.near.held == [NAMES[0], *NAMES[2:]]
    assert "its seal is" in caplog.text


async def test_a_record_that_was_damaged_on_its_way_leaves_its_tier(scene: Scene) -> None:
    await scene.near.put(RECORDS)

    async def get(names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        return {name: memoryview(flipped(RECORDS[name], 100)) for name in names}

    scene.near.get = get  # type: ignore[method-assign]
    scene.fetch()
    await scene.over()
    assert scene.told == [Lost("near", (NAMES[0],)), Moved(2, ())]
    assert scene.near.held == NAMES[1:]
    assert scene.pages.written == {}


async def test_a_pager_that_cannot_write_ends_the_move_and_nothing_else(scene: Scene) -> None:
    await scene.near.put(RECORDS)
    scene.pages.fault = RuntimeError("no device")
    scene.fetch(2)
    await scene.over()
    assert scene.told == [Moved(2, ())]
    scene.pages.fault = None
    scene.fetch(3)
    await scene.over()
    assert scene.told[1:] == [Moved(3, tuple(NAMES))]


# -- what must not be written


async def test_nothing_is_written_before_everybody_else_rests(scene: Scene) -> None:
    await scene.near.put(RECORDS)
    scene.rest.clear()
    order: list[str] = []
    scene.follow = lambda event: order.append(type(event).__name__)
    scene.fetch()
    for number in range(3, 6):  # they read, and wait for nobody; what were written would be so before the last of them
        scene.store(number, tier="far")
        await scene.mover.settled("far")
    assert (scene.pages.written, order) == ({}, ["Moved"] * 3)
    scene.rest.set()
    await scene.over()
    assert sorted(scene.pages.written) == [11, 12, 13, 14]


async def test_nothing_is_stored_or_fetched_under_a_root_of_weights_that_are_gone(scene: Scene) -> None:
    await scene.near.put(RECORDS)
    scene.seal = None
    scene.store(1, tier="far")
    assert await scene.mover.settled("far") is None
    scene.fetch(2)
    await scene.over()
    assert scene.told == [Moved(1, ()), Moved(2, ())]
    assert (scene.far.held, scene.pages.written) == ([], {})


async def test_a_copy_is_of_the_weights_of_the_moment_in_which_it_was_asked_for(scene: Scene) -> None:
    scene.store()
    scene.seal = None
    await scene.over()
    assert scene.told == [Moved(1, tuple(NAMES))]


async def test_a_page_of_older_weights_cuts_a_copy_there(scene: Scene) -> None:
    scene.pages.gone.add(3)
    scene.store()
    await scene.over()
    assert scene.told == [Moved(1, tuple(NAMES[:2]))]
    assert scene.near.held == NAMES[:2]


async def test_a_page_that_a_codec_cannot_say_cuts_a_copy_there(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    scene.seal = seal(codec="int8", exact=False)
    scene.pages.read = lambda page, tokens: memoryview(b"\xff\xff\xff\xff" * (tokens * SIZE // 4))  # type: ignore[method-assign]
    scene.store()
    await scene.over()
    assert scene.told == [Moved(1, ())]
    assert "a block was not stored: int8: found numbers that are not finite" in caplog.text


async def test_who_is_given_up_before_anything_came_has_nothing_written_and_nothing_lost(scene: Scene) -> None:
    await scene.near.put(RECORDS)
    scene.near.deaf.add("get")
    scene.fetch()
    await asyncio.sleep(0)
    scene.mover.carry(CancelMove(2, "turn t is gone"))
    scene.near.heard.set()
    await scene.over()
    assert scene.told == [Moved(2, ())]
    assert scene.pages.written == {}
    scene.fetch(3)
    await scene.over()
    assert scene.told[1:] == [Moved(3, tuple(NAMES))]


async def test_who_is_given_up_asks_no_further_tier(scene: Scene) -> None:
    await scene.near.put(RECORDS)
    scene.near.deaf.add("get")
    scene.fetch(2, ("near", "far", "far", "far"))
    await asyncio.sleep(0)
    scene.mover.carry(CancelMove(2, "turn t is gone"))
    scene.near.heard.set()
    await scene.over()
    assert "get" not in scene.far.log
