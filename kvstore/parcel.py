"""A context with its blocks as one run of bytes, for another process or host that believes nothing unchecked.

    magic 8 | version 4 | records 4 | length of the context 8 | length of everything 8 | checksum of these 16
    the context (kvstore/parked.py), then each record (kvstore/record.py), all on multiples of 64

Checksums find accidents, not forgers: who can make a parcel can put any keys and values under any tokens. Carry
parcels over channels whose other end is known.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from xxhash import xxh3_128_digest

from .errors import BadRecord
from .hashes import BlockHash
from .parked import Parked, pack_parked, unpack_parked
from .record import Block, Buffer, aligned, check, peek, unpack
from .seal import Seal

_MAGIC = b"sost.box"
_VERSION = 1
_FIXED = struct.Struct("<8sIIQQ16s")
_SUM_AT = _FIXED.size - 16


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a parcel held, every part of it verified."""

    parked: Parked
    records: Mapping[BlockHash, memoryview]
    """Ready to be put into a tier: views of the parcel, not copies."""
    blocks: tuple[Block, ...]
    """The same, in the order of the context."""


def pack_context(parked: Parked, records: Mapping[BlockHash, Buffer]) -> bytes:
    """A context and its blocks as one byte string.

    Raises what `unpack_context` would: KeyError for a block without a record, Mismatch for a wrong one.
    """
    return b"".join(_parts(parked, records))


def write_context(path: Path, parked: Parked, records: Mapping[BlockHash, Buffer]) -> int:
    """The same into a file, which must not exist, without joining it in memory; returns its bytes."""
    parts = _parts(parked, records)
    first = next(parts)  # whatever is to be refused is refused before the file is there
    with path.open("xb") as file:
        return file.write(first) + sum(file.write(part) for part in parts)


def unpack_context(source: Buffer | Path, *, seal: Seal, root: BlockHash) -> Parcel:
    """The context in a parcel or a file, for a reader who has `seal` and, for this tenant, `root`.

    Everything is verified before anything is returned: the checksums, the seal field by field, the root, the names
    from the root on, and name, parent, tokens and seal of each block. Raises BadRecord for what is damaged and
    Mismatch, with each field that differs, for what belongs to others.
    """
    if isinstance(source, str):
        raise TypeError("a parcel is bytes, or the Path of a file of them; found a str")
    data = memoryview(source.read_bytes() if isinstance(source, Path) else source).cast("B")
    count, length = _head(data)
    start = aligned(_FIXED.size)
    parked = unpack_parked(data[start : start + length])[1]
    parked.check(seal, root)
    wanted = parked.blocks()
    if len(wanted) != count:
        raise BadRecord(f"a parcel of {len(wanted)} blocks has {count} records")
    at = aligned(start + length)
    _silent(data[_FIXED.size : start])
    _silent(data[start + length : at])
    records: dict[BlockHash, memoryview] = {}
    blocks = []
    for link, own in wanted:
        size = peek(data[at:]).size
        record = data[at : at + size].toreadonly()
        block = unpack(record)
        check(block, link, own)
        records[link.name] = record
        blocks.append(block)
        _silent(data[at + size : at + aligned(size)])
        at += aligned(size)
    if at != len(data):
        raise BadRecord(f"a parcel has {len(data)} bytes; its parts have {at}")
    return Parcel(parked, records, tuple(blocks))


def _parts(parked: Parked, records: Mapping[BlockHash, Buffer]) -> Iterator[bytes | memoryview]:
    context = pack_parked(parked)
    start = aligned(_FIXED.size)
    total = start + aligned(len(context))
    wanted = parked.blocks()
    for link, own in wanted:
        check(unpack(records[link.name]), link, own)
        total += aligned(len(records[link.name]))
    fixed = _FIXED.pack(_MAGIC, _VERSION, len(wanted), len(context), total, b"")[:_SUM_AT]
    yield b"".join((_padded(fixed + xxh3_128_digest(fixed)), _padded(context)))
    for link, _ in wanted:
        record = memoryview(records[link.name]).cast("B")
        yield record
        yield bytes(aligned(len(record)) - len(record))


def _head(data: memoryview) -> tuple[int, int]:
    """How many records, and how long the context is."""
    if len(data) < _FIXED.size:
        raise BadRecord(f"a parcel was cut off: {len(data)} bytes are there, its head has {_FIXED.size}")
    magic, version, count, length, total, checksum = _FIXED.unpack_from(data)
    if magic != _MAGIC:
        raise BadRecord("no parcel begins here")
    if version != _VERSION:
        raise BadRecord(f"a parcel has format version {version}; this reads {_VERSION}")
    if xxh3_128_digest(data[:_SUM_AT]) != checksum:
        raise BadRecord("the head of a parcel is damaged: its checksum is another")
    if len(data) != total:
        raise BadRecord(f"a parcel has {total} bytes; found {len(data)}")
    return count, length


def _silent(between: memoryview) -> None:
    if any(between):
        raise BadRecord("a parcel is damaged: between its parts are bytes that nobody wrote")


def _padded(data: bytes) -> bytes:
    return data + bytes(aligned(len(data)) - len(data))
