"""Named snapshots on a disk tier: they outlive the process, and are given only to whom they belong."""

from __future__ import annotations

from ..hashes import BlockHash
from ..parked import Parked
from ..seal import Seal
from .disk import DiskTier
from .marks import Mark


class Shelf:
    """The snapshots of one tenant, for a reader who has this seal and, for this tenant, this root.

    Another tenant's snapshots are not there at all, under no key. A snapshot of the same tenant that was written
    under another model, geometry, tokenizer, adapter, codec or version of the weights is refused field by field.
    """

    def __init__(self, disk: DiskTier, *, seal: Seal, root: BlockHash) -> None:
        self._disk = disk
        self._seal = seal
        self._root = root

    async def keep(self, key: str, parked: Parked) -> None:
        """Keep a context under a key, in place of what the key had. When this returns it survives everything but the
        disk, and its blocks stay, whatever is dropped or collected, until it is forgotten or replaced.

        Raises Incomplete where not all of its blocks have been put, Mismatch where it is not of this seal and root,
        BadRecord where its names do not follow from its tokens, TypeError for a note that JSON cannot hold, TierFull.
        """
        parked.check(self._seal, self._root)
        await self._disk.work(self._disk.store.keep, key, parked)
        await self._disk.tidy()

    async def find(self, key: str) -> Parked | None:
        """The context kept under a key; None where there is none.

        Its blocks are got from the tier by its names. One that is missing there was lost by damage to the disk: what
        comes before it is still good, what follows is computed again.

        Raises Mismatch, with each field that differs, and BadRecord where the snapshot is damaged.
        """
        mark = await self._disk.work(self._found, key)
        return None if mark is None else mark.parked

    async def keys(self) -> list[str]:
        """What this tenant has kept, under whatever model."""
        self._disk.store.ready()
        return self._disk.store.marks.keys(self._seal.tenant)

    async def forget(self, key: str) -> None:
        """Let a snapshot go; an unknown one is harmless. Its blocks stay in the tier until they are dropped."""
        await self._disk.work(self._disk.store.forget, self._seal.tenant, key)
        await self._disk.tidy()

    def _found(self, key: str) -> Mark | None:
        mark = self._disk.store.find(self._seal.tenant, key)
        if mark is not None:
            mark.parked.check(self._seal, self._root)
            mark.parked.links()
        return mark
