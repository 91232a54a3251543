"""Named snapshots: they outlive the process, need their blocks, and are given to nobody else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore import BadRecord, Incomplete, Mismatch, Parked, check, park, unpack, veil
from sostenuto.kvstore.tiers import DiskTier, Freed, Mark, Shelf
from sostenuto.kvstore.tiers.base import heads

from .broken_os import BrokenOs, Crash
from .records import PAGE, context, flipped, records, seal, start

CONTEXT = context(range(3 * PAGE + 2))
RECORDS = records(CONTEXT)


def shelf(tier: DiskTier, tenant: str = "default", **fields: Any) -> Shelf:
    return Shelf(tier, seal=seal(tenant, **fields), root=start(tenant))


async def kept(path: Path, parked: Parked = CONTEXT, key: str = "noon") -> DiskTier:
    """A tier with one snapshot."""
    tier = DiskTier.open(path, segment=600)
    await tier.put(records(parked))
    await shelf(tier).keep(key, parked)
    return tier


async def restored(tier: DiskTier, parked: Parked) -> dict[bytes, bytes]:
    """Its blocks, each of them checked as whoever restores it checks."""
    found = await tier.get(parked.names)
    for link in parked.links():
        check(unpack(found[link.name]), link, parked.seal)
    return {name: bytes(data) for name, data in found.items()}


async def collected(tier: DiskTier) -> Freed:
    return await tier.gc(0)


async def test_a_snapshot_is_found_by_a_later_process_with_all_it_was_given(tmp_path: Path) -> None:
    await (await kept(tmp_path)).aclose()
    tier = DiskTier.open(tmp_path)
    found = await shelf(tier).find("noon")
    assert found == CONTEXT
    assert found.note == {"turn": 14}
    assert len(found) == 14
    assert await restored(tier, found) == RECORDS
    assert await shelf(tier).keys() == ["noon"]
    await tier.aclose()


async def test_a_snapshot_is_not_kept_before_its_blocks_are(tmp_path: Path) -> None:
    tier = DiskTier.open(tmp_path)
    await tier.put({name: RECORDS[name] for name in CONTEXT.names[:2]})
    with pytest.raises(Incomplete, match="needs 4 blocks and 2 are not in the tier"):
        await shelf(tier).keep("noon", CONTEXT)
    assert await shelf(tier).find("noon") is None
    assert await shelf(tier).keys() == []
    await tier.aclose()


async def test_blocks_under_another_seal_do_not_count_as_its_own(tmp_path: Path) -> None:
    tier = DiskTier.open(tmp_path)
    await tier.put(records(replace(CONTEXT, seal=seal(weights="2"))))
    with pytest.raises(Incomplete):
        await shelf(tier).keep("noon", CONTEXT)
    await tier.aclose()


async def test_blocks_of_a_snapshot_survive_drop_and_collection_until_it_is_forgotten(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    loose = records(context(range(900, 900 + PAGE)))
    await tier.put(loose)
    await tier.drop((*RECORDS, *loose))
    await collected(tier)
    assert await restored(tier, CONTEXT) == RECORDS
    assert await tier.get(loose) == {}
    await shelf(tier).forget("noon")
    await collected(tier)
    assert await tier.entries() == []
    assert await shelf(tier).find("noon") is None
    await tier.aclose()


async def test_a_forgotten_snapshot_leaves_blocks_that_nobody_dropped(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    await tier.drop(CONTEXT.names[2:])
    await tier.put({CONTEXT.names[3]: RECORDS[CONTEXT.names[3]]})  # wanted again after all
    await shelf(tier).forget("noon")
    await shelf(tier).forget("noon")
    assert {each.name for each in await tier.entries()} == {*CONTEXT.names[:2], CONTEXT.names[3]}
    await tier.aclose()


async def test_two_snapshots_may_need_one_block(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    longer = context(range(5 * PAGE))
    await tier.put(records(longer))
    await shelf(tier).keep("one", longer)
    await tier.drop({*CONTEXT.names, *longer.names})
    await shelf(tier).forget("noon")
    await collected(tier)
    assert await restored(tier, longer) == records(longer)
    assert {each.name for each in await tier.entries()} == set(longer.names)
    await tier.aclose()


async def test_keeping_again_replaces_the_snapshot_and_frees_what_it_alone_needed(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    later = context(range(2 * PAGE))
    await tier.drop(CONTEXT.names)
    await shelf(tier).keep("noon", later)
    assert await shelf(tier).find("noon") == later
    assert {each.name for each in await tier.entries()} == set(later.names)
    await tier.aclose()


async def test_after_reopening_its_blocks_are_needed_as_before(tmp_path: Path) -> None:
    await (await kept(tmp_path)).aclose()
    tier = DiskTier.open(tmp_path)
    await tier.drop(CONTEXT.names)
    await collected(tier)
    assert await restored(tier, CONTEXT) == RECORDS
    await tier.aclose()


async def test_an_empty_context_can_be_kept(tmp_path: Path) -> None:
    tier = await kept(tmp_path, context(()))
    assert await shelf(tier).find("noon") == context(())
    await tier.aclose()


# -- whose it is


async def test_equal_tokens_and_keys_of_two_tenants_are_two_snapshots(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    theirs = shelf(tier, "another tenant")
    assert await theirs.find("noon") is None
    assert await theirs.keys() == []
    await theirs.forget("noon")
    other = context(CONTEXT.tokens, "another tenant")
    await tier.put(records(other))
    await theirs.keep("noon", other)
    assert await theirs.find("noon") == other
    assert await shelf(tier).find("noon") == CONTEXT
    assert not set(other.names) & set(CONTEXT.names)
    await tier.aclose()


async def test_no_tenant_is_named_on_the_disk(tmp_path: Path) -> None:
    tier = DiskTier.open(tmp_path)
    mine = context(range(5), "acme corporation")
    await tier.put(records(mine))
    await shelf(tier, "acme corporation").keep("noon", mine)
    await tier.aclose()
    assert not any(b"acme" in data for data in every_file(tmp_path))


def every_file(folder: Path) -> list[bytes]:
    return [file.read_bytes() for file in folder.rglob("*") if file.is_file()]


async def test_a_context_of_another_tenant_is_not_kept_in_ones_name(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    with pytest.raises(Mismatch, match="tenant is"):
        await shelf(tier, "another tenant").keep("mine", CONTEXT)
    await tier.aclose()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "other"),
        ("dtype", "bfloat16"),
        ("rope", "theta=1"),
        ("tokenizer", "words"),
        ("adapter", "lora"),
        ("weights", "2"),
        ("codec", "int8"),
        ("exact", False),
    ],
)
async def test_a_snapshot_of_another_model_is_refused_by_the_field_that_differs(
    tmp_path: Path, field: str, value: Any
) -> None:
    tier = await kept(tmp_path)
    with pytest.raises(Mismatch, match="the context is refused") as refused:
        await shelf(tier, **{field: value}).find("noon")
    assert refused.value.differs == (f"{field} is {getattr(CONTEXT.seal, field)!r}, wanted {value!r}",)
    await tier.aclose()


async def test_a_snapshot_under_another_root_is_refused(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    with pytest.raises(Mismatch, match="root is"):
        await Shelf(tier, seal=CONTEXT.seal, root=start("other")).find("noon")
    await tier.aclose()


# -- damage


async def test_a_damaged_snapshot_is_refused_whatever_byte_it_is(tmp_path: Path) -> None:
    tier = await kept(tmp_path, context(range(PAGE + 1)))
    (file,) = (tmp_path / "marks").iterdir()
    data = file.read_bytes()
    damaged = [data[:length] for length in range(len(data))] + [flipped(data, at) for at in range(len(data))]
    for bad in damaged:
        file.unlink()
        file.write_bytes(bad)
        with pytest.raises(BadRecord):
            await shelf(tier).find("noon")
    await tier.aclose()
    tier = DiskTier.open(tmp_path)
    assert await shelf(tier).keys() == []
    assert list(tier.store.marks.bad) == [file.name]
    await shelf(tier).keep("noon", context(range(PAGE + 1)))
    assert tier.store.marks.bad == {}
    assert await shelf(tier).keys() == ["noon"]
    await tier.aclose()


async def test_a_snapshot_that_lies_under_anothers_name_is_not_given_in_its_place(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    other = context(range(PAGE))
    await shelf(tier).keep("evening", other)
    files = {mark.key: file for file in (tmp_path / "marks").iterdir() for mark in marks(tier) if file_of(mark, file)}
    files["evening"].replace(files["noon"])
    with pytest.raises(BadRecord, match="where snapshot 'noon' should be, another lies"):
        await shelf(tier).find("noon")
    await tier.aclose()
    tier = DiskTier.open(tmp_path)
    assert list(tier.store.marks.bad.values()) == ["snapshot 'evening' lies under another's file name"]
    await tier.aclose()


def marks(tier: DiskTier) -> list[Mark]:
    return tier.store.marks.all()


def file_of(mark: Mark, file: Path) -> bool:
    return f'"key":"{mark.key}"'.encode() in file.read_bytes()


async def test_a_snapshot_whose_names_do_not_follow_from_its_tokens_is_refused(tmp_path: Path) -> None:
    tier = await kept(tmp_path)
    forged = replace(CONTEXT, tokens=(7, *CONTEXT.tokens[1:]))
    with pytest.raises(BadRecord, match="do not follow"):
        await shelf(tier).keep("noon", forged)
    tier.store.marks.write("noon", forged)
    with pytest.raises(BadRecord, match="do not follow"):
        await shelf(tier).find("noon")
    await tier.aclose()


async def test_a_lost_block_costs_its_own_bytes_and_the_snapshot_is_still_found(tmp_path: Path) -> None:
    await (await kept(tmp_path)).aclose()
    file = max((tmp_path / "segments").iterdir(), key=lambda path: path.stat().st_size)
    file.write_bytes(flipped(file.read_bytes(), 200))
    tier = DiskTier.open(tmp_path)
    assert await shelf(tier).find("noon") == CONTEXT
    assert len(await tier.get(CONTEXT.names)) == 3
    assert tier.store.verify().faults
    await tier.aclose()


def test_keeping_that_crashes_at_any_call_leaves_the_old_snapshot_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = context(range(5)), context(range(9))
    seen = []
    for at in range(100):
        tier = DiskTier.open(tmp_path / str(at))
        store = tier.store
        for each in (old, new):
            store.log.append(records(each), heads(records(each)))
        store.keep("noon", old)
        with monkeypatch.context() as patch:
            BrokenOs(patch, at)
            try:
                store.keep("noon", new)
                done = True
            except Crash:
                done = False
        store.close()
        store = DiskTier.open(tmp_path / str(at)).store
        mark = store.find(veil("default"), "noon")
        assert mark is not None
        assert store.verify().faults == ()
        seen.append(mark.parked)
        assert not list((tmp_path / str(at) / "marks").glob("*.tmp"))
        store.close()
        if done:
            break
    assert set(map(len, seen)) == {5, 9}
    assert seen[-1] == new


def test_a_parked_context_has_the_names_that_follow() -> None:
    assert park(start(), CONTEXT.tokens, seal()).names == CONTEXT.names
    assert park(start(), CONTEXT.tokens, seal()).note == {}
