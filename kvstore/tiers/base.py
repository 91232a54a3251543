"""What a tier must do: keep records somewhere else than on the device, and give back exactly those."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ..errors import BadRecord
from ..hashes import BlockHash
from ..record import Buffer, Head, peek

Digest = bytes
CHUNK = 32 << 20
"""Bytes moved between two chances to be cancelled."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One block that lies in a tier: enough to rebuild a book of what is where."""

    name: BlockHash
    parent: BlockHash
    tokens: tuple[int, ...]
    bytes: int
    """Of its record."""
    seal: Digest
    """The digest of the Seal it was written under."""


@dataclass(slots=True)
class Counts:
    """What happened in a tier since it was opened."""

    put: int = 0
    """Records that were stored; those that lay there already do not count."""
    served: int = 0
    absent: int = 0
    bad: int = 0
    """Records that were damaged or something else than they should be. They were dropped, not served."""


class Tier(Protocol):
    """A place for records. Losing one costs the time to compute it again, never correctness.

    All methods may be cancelled at any await: the tier is whole afterwards, and a record is there or not, never in
    part. They may be called concurrently. What cannot be reached at all raises TierGone.
    """

    @property
    def name(self) -> str: ...

    @property
    def counts(self) -> Counts: ...

    async def put(self, records: Mapping[BlockHash, Buffer]) -> None:
        """Store records; returns when they are as durable as the tier promises. The last of one name wins.

        Raises BadRecord, and stores nothing, where something is no record of the name it was given under;
        TierFull where there is no room.
        """

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        """The records of those names that are here; absent ones are not in the answer.

        What is answered is undamaged, and its record has the name asked for; whether its tokens, parent and seal are
        the wanted ones is for the reader to say (`record.check`).
        """

    async def drop(self, names: Iterable[BlockHash]) -> None:
        """Forget records; unknown names are harmless."""

    async def entries(self) -> Sequence[Entry]:
        """All that lies here."""

    async def aclose(self) -> None:
        """End. Closing twice is harmless; everything else raises TierGone afterwards."""


@runtime_checkable
class Shared(Tier, Protocol):
    """A tier to which others write as well: what lies there is asked for when it is wanted, not listed before."""

    async def have(self, names: Iterable[BlockHash]) -> Set[BlockHash]:
        """Which of these lie here now; nothing of them is read. To ask for none asks whether anybody answers."""
        ...


def heads(records: Mapping[BlockHash, Buffer]) -> dict[BlockHash, Head]:
    """The heads of records that are to be put. Raises BadRecord for any that does not belong under its name."""
    found = {}
    for name, data in records.items():
        head = peek(data)
        if head.dead or head.name != name:
            raise BadRecord(f"a record of {head.name.hex()} was put under {name.hex()}")
        if len(data) != head.size:
            raise BadRecord(f"the record of {name.hex()} has {head.size} bytes; found {len(data)}")
        found[name] = head
    return found


def entry(head: Head) -> Entry:
    """What a head says of a block in a tier."""
    return Entry(head.name, head.parent, head.tokens, head.size, head.seal)


def chunks(sizes: Iterable[tuple[BlockHash, int]], most: int = CHUNK) -> Iterator[list[BlockHash]]:
    """Names in runs of about `most` bytes, in their order; each run has at least one."""
    run: list[BlockHash] = []
    held = 0
    for name, size in sizes:
        if run and held + size > most:
            yield run
            run, held = [], 0
        run.append(name)
        held += size
    if run:
        yield run
