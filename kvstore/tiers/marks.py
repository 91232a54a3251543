"""The files of named snapshots: one each, replaced whole, so that a damaged one never shows an older in its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from ..errors import BadRecord
from ..hashes import BlockHash
from ..parked import Parked, pack_parked, unpack_parked
from ..seal import Veiled
from .folder import sync_folder, write_whole

_END = ".mark"


@dataclass(frozen=True, slots=True)
class Mark:
    """A named snapshot as it lies on the disk."""

    key: str
    parked: Parked
    kept: float
    """When, in seconds since 1970, as the file system has it."""


class Marks:
    """The snapshots of one folder, and which blocks they need. Not for several threads at once."""

    def __init__(self, folder: Path) -> None:
        """Reads every file; those that cannot be read are in `bad`, with the reason."""
        self.bad: dict[str, str] = {}
        self._folder = folder
        self._known: dict[str, tuple[Veiled, str, tuple[BlockHash, ...]]] = {}
        self._needed: Counter[BlockHash] = Counter()
        self._same: dict[BlockHash, BlockHash] = {}  # so that snapshots that share blocks share their names' memory
        for path in sorted(folder.glob("*" + _END)):
            try:
                key, parked = unpack_parked(path.read_bytes())
                if path.stem != _file(parked.seal.tenant, key):
                    raise BadRecord(f"snapshot {key!r} lies under another's file name")
            except (BadRecord, OSError) as error:
                self.bad[path.name] = str(error)
            else:
                self._enter(path.stem, key, parked)

    def keys(self, tenant: Veiled) -> list[str]:
        """What a tenant has kept."""
        return sorted(key for owner, key, _ in self._known.values() if owner == tenant)

    def needs(self, name: BlockHash) -> int:
        """How many snapshots need a block."""
        return self._needed.get(name, 0)

    def read(self, tenant: Veiled, key: str) -> Mark | None:
        """A tenant's snapshot; None where there is none. Raises BadRecord for a damaged one."""
        file = _file(tenant, key)
        mark = self._read(self._folder / (file + _END))
        if mark is not None and (mark.key, mark.parked.seal.tenant) != (key, tenant):
            raise BadRecord(f"where snapshot {key!r} should be, another lies")
        return mark

    def all(self) -> list[Mark]:
        """Every tenant's snapshots that can be read."""
        found = []
        for file in sorted(self._known):
            try:
                mark = self._read(self._folder / (file + _END))
            except BadRecord as error:
                self.bad[file + _END] = str(error)
                continue
            if mark is not None:
                found.append(mark)
        return found

    def write(self, key: str, parked: Parked) -> tuple[BlockHash, ...]:
        """Keep a snapshot, durable when this returns, in place of what the key had.

        Returns the blocks that no snapshot needs any more. Raises OSError.
        """
        file = _file(parked.seal.tenant, key)
        write_whole(self._folder / (file + _END), pack_parked(parked, key))
        gone = self._leave(file)
        self.bad.pop(file + _END, None)
        self._enter(file, key, parked)
        return tuple(name for name in gone if not self.needs(name))

    def remove(self, tenant: Veiled, key: str) -> tuple[BlockHash, ...]:
        """Forget a snapshot, a damaged one too; returns the blocks that no snapshot needs any more."""
        file = _file(tenant, key)
        (self._folder / (file + _END)).unlink(missing_ok=True)
        sync_folder(self._folder)
        self.bad.pop(file + _END, None)
        return self._leave(file)

    def _read(self, path: Path) -> Mark | None:
        try:
            data, kept = path.read_bytes(), path.stat().st_mtime
        except FileNotFoundError:
            return None
        except OSError as error:
            raise BadRecord(f"snapshot {path.name} cannot be read ({error})") from error
        key, parked = unpack_parked(data)
        return Mark(key, parked, kept)

    def _enter(self, file: str, key: str, parked: Parked) -> None:
        names = tuple(self._same.setdefault(name, name) for name in parked.names)
        self._known[file] = (parked.seal.tenant, key, names)
        self._needed.update(names)

    def _leave(self, file: str) -> tuple[BlockHash, ...]:
        _, _, names = self._known.pop(file, (None, None, ()))
        self._needed.subtract(names)
        gone = tuple(name for name in names if not self._needed[name])
        for name in gone:
            del self._needed[name], self._same[name]
        return gone


def shared(marks: Iterable[Mark]) -> Counter[BlockHash]:
    """In how many of these snapshots each block is."""
    return Counter(name for mark in marks for name in mark.parked.names)


def _file(tenant: Veiled, key: str) -> str:
    """Where a tenant's key lies: two tenants' equal keys are two files."""
    return blake2b(f"{tenant}:{key}".encode(), digest_size=16, person=b"sostenuto.mark").hexdigest()
