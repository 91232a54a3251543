"""A block as bytes: a header that says what it is, its tokens, checksums, and the payload untouched.

Little-endian, in this order:

    magic 8 | version 2 | kind 2 | tokens 4 | payload length 8
    name 16 | parent 16 | seal 16 | checksum of the payload 16 | checksum of all of the head but itself 16
    tokens, 8 bytes each | zeros up to the next multiple of 64 | payload

Both checksums are xxh3_128: they find accidents. They stop nobody who forges a record on purpose.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from xxhash import xxh3_128_digest

from . import hashes
from .errors import BadRecord, Mismatch
from .hashes import BlockHash
from .seal import Seal

Buffer = bytes | bytearray | memoryview
"""Bytes that are handed on without being copied; whoever gives them does not change them afterwards."""

MAGIC = b"sost.kv\n"
ALIGN = 64
"""Payloads begin, and records in files lie, on multiples of this."""
FIXED = 104
"""Bytes of a head before its tokens."""
MOST_TOKENS = 1 << 16

_VERSION = 1
_BLOCK, _TOMBSTONE = 1, 2
_FIXED = struct.Struct("<8sHHIQ16s16s16s16s16s")
_SUM_AT = 88
_NOTHING = bytes(16)


@dataclass(frozen=True, slots=True)
class Link:
    """One block's place in a context: its name, what came before it, and its tokens."""

    name: BlockHash
    parent: BlockHash
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """1 to a page of computed tokens, and their keys and values as one run of bytes."""

    name: BlockHash
    parent: BlockHash
    tokens: tuple[int, ...]
    seal: bytes
    """The digest of the Seal under which the payload may be read."""
    payload: Buffer


@dataclass(frozen=True, slots=True)
class Head:
    """A record without its payload, found to be undamaged."""

    name: BlockHash
    parent: BlockHash
    seal: bytes
    checksum: bytes
    """Of the payload."""
    payload: int
    """Bytes of it."""
    dead: bool
    """A tombstone: the block of this name was dropped."""
    raw: bytes = field(repr=False)
    """The tokens as they are stored."""

    @property
    def tokens(self) -> tuple[int, ...]:
        return struct.unpack(f"<{len(self.raw) // 8}q", self.raw)

    @property
    def start(self) -> int:
        """Where the payload begins."""
        return aligned(FIXED + len(self.raw))

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return self.start + self.payload


def aligned(size: int) -> int:
    """The next multiple of ALIGN."""
    return -(-size // ALIGN) * ALIGN


def links(tokens: Sequence[int], page: int, root: BlockHash) -> tuple[Link, ...]:
    """A context as blocks: all full ones, then the unfinished tail, which is named like them over fewer tokens."""
    found, parent = [], root
    for start in range(0, len(tokens), page):
        block = tuple(tokens[start : start + page])
        found.append(Link(hashes.name(parent, block), parent, block))
        parent = found[-1].name
    return tuple(found)


def pack(block: Block) -> bytes:
    """The record of a block. Raises ValueError for one without tokens or with too many of them."""
    count = len(block.tokens)
    if not 1 <= count <= MOST_TOKENS:
        raise ValueError(f"a block holds 1 to {MOST_TOKENS} tokens; found {count}")
    payload = memoryview(block.payload).cast("B")
    raw = struct.pack(f"<{count}q", *block.tokens)
    lengths = struct.pack("<HHIQ", _VERSION, _BLOCK, count, payload.nbytes)
    names = block.name + block.parent + block.seal
    if len(names) != 48:
        raise ValueError("the name, parent and seal of a block have 16 bytes each")
    fixed = MAGIC + lengths + names + xxh3_128_digest(payload)
    return b"".join((*_summed(fixed, raw), payload))


def tombstone(name: BlockHash) -> bytes:
    """The record that says: the block of this name was dropped."""
    lengths = struct.pack("<HHIQ", _VERSION, _TOMBSTONE, 0, 0)
    return b"".join(_summed(MAGIC + lengths + name + 2 * _NOTHING + xxh3_128_digest(b""), b""))


def head_size(start: Buffer) -> int:
    """Bytes up to the payload, from the first FIXED bytes of a record. Raises BadRecord."""
    if len(start) < FIXED:
        raise BadRecord(f"a record was cut off: {len(start)} bytes are there, its head alone has {FIXED}")
    magic, version, _, count, *_ = _FIXED.unpack_from(start)
    if magic != MAGIC:
        raise BadRecord("no record begins here")
    if version != _VERSION:
        raise BadRecord(f"a record has format version {version}; this reads {_VERSION}")
    if count > MOST_TOKENS:
        raise BadRecord(f"a record says that it has {count} tokens; {MOST_TOKENS} is the most")
    return aligned(FIXED + 8 * int(count))


def peek(data: Buffer) -> Head:
    """The head of a record whose beginning is `data`; the payload is not looked at. Raises BadRecord."""
    size = head_size(data)
    if len(data) < size:
        raise BadRecord(f"a record was cut off: {len(data)} bytes are there, its head has {size}")
    _, _, kind, count, payload, name, parent, seal, checksum, own = _FIXED.unpack_from(data)
    view = memoryview(data).cast("B")
    if xxh3_128_digest(b"".join((view[:_SUM_AT], view[FIXED:size]))) != own:
        raise BadRecord("the head of a record is damaged: its checksum is another")
    if kind not in (_BLOCK, _TOMBSTONE):
        raise BadRecord(f"a record is of kind {kind}, which this version does not know")
    raw = bytes(view[FIXED : FIXED + 8 * count])
    return Head(BlockHash(name), BlockHash(parent), seal, checksum, payload, kind == _TOMBSTONE, raw)


def unpack(data: Buffer, *, verified: bool = False) -> Block:
    """The block whose record is all of `data`; its payload is a view of it, not a copy.

    `verified` leaves out the payload's checksum, for bytes that a tier has just checked. Raises BadRecord for bytes
    that are too few, too many, or not as they were written.
    """
    head = peek(data)
    if head.dead:
        raise BadRecord("a tombstone stands where a block was expected")
    if len(data) != head.size:
        raise BadRecord(f"the record of a block has {head.size} bytes; found {len(data)}")
    payload = memoryview(data).cast("B")[head.start :]
    if not verified and xxh3_128_digest(payload) != head.checksum:
        raise BadRecord(f"the payload of block {head.name.hex()} is damaged: its checksum is another")
    return Block(head.name, head.parent, head.tokens, head.seal, payload)


def check(block: Block, wanted: Link, seal: Seal) -> None:
    """Raise Mismatch, which says what differs, unless `block` is the wanted one and was written under `seal`.

    The tokens are compared, not only the name: equal names are a reason to look, never a proof.
    """
    differs = []
    if block.seal != seal.digest:
        differs.append(f"its seal is {block.seal.hex()}, wanted {seal.digest.hex()}")
    if block.name != wanted.name:
        differs.append(f"its name is {block.name.hex()}, wanted {wanted.name.hex()}")
    if block.parent != wanted.parent:
        differs.append(f"its parent is {block.parent.hex()}, wanted {wanted.parent.hex()}")
    if block.tokens != wanted.tokens:
        differs.append(_differing(block.tokens, wanted.tokens))
    if differs:
        raise Mismatch(f"block {block.name.hex()}", tuple(differs))


def _summed(fixed: bytes, raw: bytes) -> tuple[bytes, bytes, bytes, bytes]:
    padding = bytes(aligned(FIXED + len(raw)) - FIXED - len(raw))
    return fixed, xxh3_128_digest(b"".join((fixed, raw, padding))), raw, padding


def _differing(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    for at, (mine, theirs) in enumerate(zip(found, wanted, strict=False)):
        if mine != theirs:
            return f"its token {at} is {mine}, wanted {theirs}"
    return f"it has {len(found)} tokens, wanted {len(wanted)}"
