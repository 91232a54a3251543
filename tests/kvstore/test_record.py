"""Blocks as bytes: what is damaged is found, what belongs elsewhere is refused, and the bytes stay the bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sostenuto.kvstore import (
    BadRecord,
    Block,
    BlockHash,
    Head,
    Link,
    Mismatch,
    Seal,
    Veiled,
    chain,
    check,
    links,
    name,
    pack,
    peek,
    unpack,
    veil,
)
from sostenuto.kvstore.record import tombstone

from .records import PAGE, context, flipped, records, seal, start

LINK = links((7, -1, 2**40), PAGE, start())[0]
SMALL = Block(LINK.name, LINK.parent, LINK.tokens, seal().digest, bytes(range(48)))


@given(
    tokens=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40).map(tuple),
    payload=st.binary(max_size=300),
)
def test_a_block_comes_back_bit_for_bit(tokens: tuple[int, ...], payload: bytes) -> None:
    block = Block(name(start(), tokens), start(), tokens, seal().digest, payload)
    assert unpack(pack(block)) == block


def test_the_payload_is_a_view_of_the_record_and_begins_on_a_multiple_of_64() -> None:
    data = pack(SMALL)
    payload = unpack(data).payload
    assert isinstance(payload, memoryview)
    assert payload.obj is data
    assert peek(data).start % 64 == 0


def test_a_payload_may_be_any_buffer() -> None:
    wide: Any = memoryview(bytearray(48)).cast("d")
    assert bytes(unpack(pack(replace(SMALL, payload=wide))).payload) == bytes(48)


def test_every_truncated_record_is_found() -> None:
    data = pack(SMALL)
    for length in range(len(data)):
        with pytest.raises(BadRecord):
            unpack(data[:length])


def test_every_flipped_bit_is_found() -> None:
    data = pack(SMALL)
    for at in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            with pytest.raises(BadRecord):
                unpack(bytes(changed))


def test_bytes_behind_a_record_are_found() -> None:
    with pytest.raises(BadRecord, match="found 177"):
        unpack(pack(SMALL) + b"\0")


def test_a_record_of_a_later_format_says_so() -> None:
    data = bytearray(pack(SMALL))
    data[8] = 2
    with pytest.raises(BadRecord, match="format version 2; this reads 1"):
        unpack(data)


def test_a_tombstone_is_no_block() -> None:
    head = peek(tombstone(SMALL.name))
    assert (head.name, head.dead, head.tokens) == (SMALL.name, True, ())
    with pytest.raises(BadRecord, match="tombstone"):
        unpack(tombstone(SMALL.name))


def test_a_verified_record_is_not_summed_again() -> None:
    data = flipped(pack(SMALL))
    assert unpack(data, verified=True).name == SMALL.name


def test_a_head_says_what_the_block_is_without_its_payload() -> None:
    data = pack(SMALL)
    head = peek(data[: peek(data).start])
    assert isinstance(head, Head)
    assert (head.name, head.parent, head.tokens, head.seal) == (SMALL.name, SMALL.parent, SMALL.tokens, SMALL.seal)
    assert head.size == len(data)


@pytest.mark.parametrize("tokens", [(), (1,) * 65537])
def test_a_block_without_tokens_or_with_far_too_many_is_not_packed(tokens: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="1 to 65536 tokens"):
        pack(replace(SMALL, tokens=tokens))


def test_the_block_that_was_wanted_is_served() -> None:
    check(SMALL, LINK, seal())


OTHER = BlockHash(bytes(16))


@pytest.mark.parametrize(
    ("wanted", "under", "said"),
    [
        (replace(LINK, name=OTHER), seal(), "its name is"),
        (replace(LINK, parent=OTHER), seal(), "its parent is"),
        (replace(LINK, tokens=(7, -1, 5)), seal(), f"its token 2 is {2**40}, wanted 5"),
        (replace(LINK, tokens=(7, -1)), seal(), "it has 3 tokens, wanted 2"),
        (LINK, seal("another tenant"), "its seal is"),
        (LINK, seal(weights="2"), "its seal is"),
    ],
)
def test_a_block_that_is_another_is_refused_with_what_differs(wanted: Link, under: Seal, said: str) -> None:
    with pytest.raises(Mismatch, match=said) as refused:
        check(SMALL, wanted, under)
    assert len(refused.value.differs) == 1


def test_equal_names_are_no_proof() -> None:
    """Two contents forced to one name: the one that was not wanted is refused by its tokens."""
    forged = replace(SMALL, tokens=(1, 2, 3))
    with pytest.raises(Mismatch, match="its token 0 is 1, wanted 7"):
        check(forged, LINK, seal())


def test_a_context_is_its_full_blocks_and_a_tail_that_is_named_like_them() -> None:
    tokens = tuple(range(10))
    found = links(tokens, PAGE, start())
    assert tuple(link.name for link in found[:2]) == chain(tokens, PAGE, start())
    assert found[2] == Link(name(found[1].name, (8, 9)), found[1].name, (8, 9))
    assert sum((link.tokens for link in found), ()) == tokens
    assert links((), PAGE, start()) == ()


CHANGES: dict[str, Any] = {
    "model": "other",
    "dtype": "bfloat16",
    "layers": 3,
    "kv_heads": 2,
    "head_dim": 4,
    "page": 8,
    "rope": "theta=1",
    "tokenizer": "words",
    "adapter": "lora",
    "weights": "2",
    "codec": "int8",
    "exact": False,
}


@pytest.mark.parametrize("field", CHANGES)
def test_seals_that_differ_in_any_field_differ_and_say_where(field: str) -> None:
    mine, other = seal(), seal(**{field: CHANGES[field]})
    assert mine.digest != other.digest
    (said,) = other.differing(mine)
    assert said == f"{field} is {CHANGES[field]!r}, wanted {getattr(mine, field)!r}"


def test_seals_of_two_tenants_differ_and_no_name_is_in_them() -> None:
    mine, other = seal("acme"), seal("globex")
    assert mine.digest != other.digest
    assert [said.split(" ")[0] for said in mine.differing(other)] == ["tenant"]
    assert "acme" not in repr(mine)
    with pytest.raises(ValueError, match=r"give veil\(tenant\)"):
        replace(mine, tenant=Veiled("acme"))


def test_a_seal_comes_back_from_json_and_anything_else_is_refused() -> None:
    mine = seal()
    assert Seal.parse(mine.plain()) == mine
    for wrong in ({}, {**mine.plain(), "more": 1}, {**mine.plain(), "layers": "2"}, {**mine.plain(), "page": 0}):
        with pytest.raises(BadRecord):
            Seal.parse(wrong)


def test_a_veil_is_always_the_same_and_hides_the_name() -> None:
    assert veil("acme") == veil("acme") != veil("globex")
    assert len(veil("acme")) == 32


def test_equal_tokens_of_two_tenants_have_no_name_in_common() -> None:
    mine, other = records(context(range(9), "acme")), records(context(range(9), "globex"))
    assert not mine.keys() & other.keys()
