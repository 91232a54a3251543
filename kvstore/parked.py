"""A whole context that waits outside the device: what it is made of, and what is noted beside it.

As bytes (little-endian):

    magic 8 | version 4 | length of the description 4 | tokens 8 | names 8 | checksum 16
    description: JSON with key, root, seal and note | tokens, 8 bytes each | names, 16 bytes each

The checksum is xxh3_128 over everything but itself.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xxhash import xxh3_128_digest

from .errors import BadRecord, Mismatch
from .groups import Group, Groups
from .hashes import BlockHash
from .record import Buffer, Link, links
from .seal import Seal

_MAGIC = b"sost.ctx"
_VERSION = 1
_FIXED = struct.Struct("<8sIIQQ16s")
_SUM_AT = _FIXED.size - 16


@dataclass(frozen=True, slots=True)
class Parked:
    """A context whose blocks lie in a tier or a parcel; `names` are those of `links(tokens, seal.page, root)`.

    With several groups of layers they are those of each, as far back as its window looks, one after the other.
    """

    root: BlockHash
    tokens: tuple[int, ...]
    names: tuple[BlockHash, ...]
    seal: Seal
    note: Mapping[str, Any] = field(default_factory=dict)
    """What JSON can hold; it is kept and given back as it is."""
    groups: Groups = field(default_factory=Groups)

    def __len__(self) -> int:
        return len(self.tokens)

    def links(self) -> tuple[Link, ...]:
        """Its blocks, named anew from the root. Raises BadRecord unless these are the names that it has."""
        return tuple(link for link, _ in self.blocks())

    def blocks(self) -> tuple[tuple[Link, Seal], ...]:
        """The same, each with what it is sealed with."""
        found = _blocks(self.root, self.tokens, self.seal, self.groups)
        if tuple(link.name for link, _ in found) != self.names:
            raise BadRecord("the names of a context do not follow from its root and tokens")
        return found

    def check(self, seal: Seal, root: BlockHash | None = None) -> None:
        """Raise Mismatch, which names each field, unless it was written under `seal` and, if given, `root`."""
        differs = self.seal.differing(seal)
        if root is not None and self.root != root:
            differs += (f"root is {self.root.hex()}, wanted {root.hex()}",)
        if differs:
            raise Mismatch("the context", differs)


def park(
    root: BlockHash,
    tokens: tuple[int, ...],
    seal: Seal,
    note: Mapping[str, Any] | None = None,
    *,
    groups: Groups | None = None,
) -> Parked:
    """A context with the names that follow from its root and tokens."""
    groups = Groups() if groups is None or groups.plain else groups
    names = tuple(link.name for link, _ in _blocks(root, tokens, seal, groups))
    return Parked(root, tuple(tokens), names, seal, {} if note is None else note, groups)


def pack_parked(parked: Parked, key: str = "") -> bytes:
    """A context without its blocks, under the key it is kept by. Raises TypeError for a note that is no JSON."""
    described: dict[str, Any] = {
        "key": key,
        "root": parked.root.hex(),
        "seal": parked.seal.plain(),
        "note": dict(parked.note),
    }
    if not parked.groups.plain:
        described["groups"] = [[group.layers, group.window] for group in parked.groups.each]
    text = json.dumps(described, separators=(",", ":"), allow_nan=False).encode()
    tokens = struct.pack(f"<{len(parked.tokens)}q", *parked.tokens)
    names = b"".join(parked.names)
    fixed = _FIXED.pack(_MAGIC, _VERSION, len(text), len(parked.tokens), len(parked.names), b"")[:_SUM_AT]
    body = b"".join((text, tokens, names))
    return b"".join((fixed, xxh3_128_digest(fixed + body), body))


def unpack_parked(data: Buffer) -> tuple[str, Parked]:
    """The key and the context whose bytes are all of `data`.

    Raises BadRecord for bytes that are too few, too many or not as written. Whether the names follow from the tokens
    and whether the reader may have it are other questions: `Parked.links` and `Parked.check`.
    """
    view = memoryview(data).cast("B")
    if len(view) < _FIXED.size:
        raise BadRecord(f"a context was cut off: {len(view)} bytes are there, its head has {_FIXED.size}")
    magic, version, described, tokens, names, checksum = _FIXED.unpack_from(view)
    if magic != _MAGIC:
        raise BadRecord("no context begins here")
    if version != _VERSION:
        raise BadRecord(f"a context has format version {version}; this reads {_VERSION}")
    size = _FIXED.size + described + 8 * tokens + 16 * names
    if len(view) != size:
        raise BadRecord(f"a context has {size} bytes; found {len(view)}")
    if xxh3_128_digest(b"".join((view[:_SUM_AT], view[_FIXED.size :]))) != checksum:
        raise BadRecord("a context is damaged: its checksum is another")
    at = _FIXED.size + described
    text, rest = bytes(view[_FIXED.size : at]), view[at:]
    held = bytes(rest[8 * tokens :])
    try:
        record = json.loads(text)
        key, root = str(record["key"]), BlockHash(bytes.fromhex(record["root"]))
        seal, note = Seal.parse(record["seal"]), dict(record["note"])
        each = tuple(Group(tuple(map(int, layers)), window) for layers, window in record.get("groups", ()))
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord(f"the description of a context cannot be read ({error})") from error
    every = tuple(BlockHash(held[start : start + 16]) for start in range(0, len(held), 16))
    told = struct.unpack_from(f"<{tokens}q", rest)
    return key, Parked(root, told, every, seal, note, Groups(each) if each else Groups())


def _blocks(root: BlockHash, tokens: tuple[int, ...], seal: Seal, groups: Groups) -> tuple[tuple[Link, Seal], ...]:
    parts = zip(groups.roots(root), groups.seals(seal), groups.spans(len(tokens), seal.page), strict=True)
    return tuple((link, own) for at, own, span in parts for link in links(tokens, seal.page, at)[span.start :])
