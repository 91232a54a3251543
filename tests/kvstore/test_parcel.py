"""A context as one run of bytes: the receiver verifies everything and refuses with the reason."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import (
    BadRecord,
    BlockHash,
    Mismatch,
    Parcel,
    pack_context,
    unpack_context,
    write_context,
)

from .records import PAGE, context, flipped, records, seal, start

CONTEXT = context(range(PAGE + 1))
RECORDS = records(CONTEXT, size=8)
DATA = pack_context(CONTEXT, RECORDS)


def received(data: bytes | memoryview | Path, tenant: str = "default", **fields: Any) -> Parcel:
    return unpack_context(data, seal=seal(tenant, **fields), root=start(tenant))


@settings(max_examples=30, deadline=None)
@given(tokens=st.lists(st.integers(0, 2**31), max_size=4 * PAGE + 1))
def test_a_context_arrives_as_it_was_sent(tokens: list[int]) -> None:
    sent = context(tokens)
    parcel = received(pack_context(sent, records(sent)))
    assert parcel.parked == sent
    assert {name: bytes(data) for name, data in parcel.records.items()} == records(sent)
    assert tuple(block.name for block in parcel.blocks) == sent.names


def test_a_file_carries_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "context"
    assert write_context(path, CONTEXT, RECORDS) == len(DATA)
    assert path.read_bytes() == DATA
    assert received(path).parked == CONTEXT
    with pytest.raises(FileExistsError):
        write_context(path, CONTEXT, RECORDS)


def test_what_arrived_is_a_view_of_the_parcel() -> None:
    parcel = received(DATA)
    assert all(record.obj is DATA for record in parcel.records.values())
    assert all(record.readonly for record in received(memoryview(bytearray(DATA))).records.values())


def test_every_truncated_parcel_is_refused() -> None:
    for length in range(len(DATA)):
        with pytest.raises(BadRecord):
            received(DATA[:length])
    with pytest.raises(BadRecord):
        received(DATA + b"\0")


def test_every_flipped_byte_is_found() -> None:
    for at in range(len(DATA)):
        with pytest.raises(BadRecord):
            received(flipped(DATA, at))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "other"),
        ("dtype", "bfloat16"),
        ("layers", 3),
        ("kv_heads", 2),
        ("head_dim", 4),
        ("page", 8),
        ("rope", "theta=1"),
        ("tokenizer", "words"),
        ("adapter", "lora"),
        ("weights", "2"),
        ("codec", "int8"),
        ("exact", False),
    ],
)
def test_a_receiver_with_another_model_refuses_by_field(field: str, value: Any) -> None:
    with pytest.raises(Mismatch) as refused:
        received(DATA, **{field: value})
    assert refused.value.differs == (f"{field} is {getattr(CONTEXT.seal, field)!r}, wanted {value!r}",)


def test_a_parcel_of_one_tenant_is_refused_by_another() -> None:
    with pytest.raises(Mismatch) as refused:
        received(DATA, "another tenant")
    assert [each.split(" ")[0] for each in refused.value.differs] == ["tenant", "root"]
    with pytest.raises(Mismatch, match="root is"):
        unpack_context(DATA, seal=CONTEXT.seal, root=start("another tenant"))


def test_names_that_do_not_follow_from_the_tokens_are_refused_on_both_sides() -> None:
    forged = replace(CONTEXT, tokens=(9, *CONTEXT.tokens[1:]))
    with pytest.raises(BadRecord, match="do not follow"):
        pack_context(forged, RECORDS)


def test_a_block_under_another_seal_or_of_other_tokens_is_not_packed() -> None:
    other = records(replace(CONTEXT, seal=seal(weights="2")))
    with pytest.raises(Mismatch, match="its seal is"):
        pack_context(CONTEXT, {**RECORDS, CONTEXT.names[1]: other[CONTEXT.names[1]]})
    with pytest.raises(Mismatch, match="its name is"):
        pack_context(CONTEXT, {**RECORDS, CONTEXT.names[1]: RECORDS[CONTEXT.names[0]]})


def test_a_context_is_packed_with_all_of_its_blocks_or_not_at_all(tmp_path: Path) -> None:
    missing: dict[BlockHash, bytes] = {CONTEXT.names[0]: RECORDS[CONTEXT.names[0]]}
    with pytest.raises(KeyError):
        pack_context(CONTEXT, missing)
    with pytest.raises(KeyError):
        write_context(tmp_path / "context", CONTEXT, missing)
    assert not (tmp_path / "context").exists()


def test_a_forged_block_inside_a_parcel_is_found_by_its_tokens() -> None:
    """Another context's block, whole in itself, in the place of the wanted one."""
    other = context(range(50, 50 + PAGE + 1))
    theirs = records(other, size=8)
    at = DATA.index(RECORDS[CONTEXT.names[1]])
    size = len(RECORDS[CONTEXT.names[1]])
    assert len(theirs[other.names[1]]) == size
    with pytest.raises(Mismatch, match="its token 0 is 54, wanted 4"):
        received(DATA[:at] + theirs[other.names[1]] + DATA[at + size :])


def test_something_else_is_no_parcel() -> None:
    for wrong in (b"", b"hello" * 100, RECORDS[CONTEXT.names[0]]):
        with pytest.raises(BadRecord):
            received(wrong)
