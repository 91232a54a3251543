"""Carries blocks between the device and the tiers below it, beside the forward pass.

Reading and writing pages, checksums and codecs run on one thread of their own; tiers wait in the loop. What goes into
a tier and what leaves it keep the order in which the kernel said so. A tier that fails costs what lies there, and a
line in the log: whoever wanted it computes it anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from ..kvstore import BlockHash, KVError, Seal
from ..kvstore.record import Block, Buffer, check, pack, unpack
from ..kvstore.tiers.base import Tier
from ..scheduler import DEVICE, Drop, Event, Known, Lost, Move, Moved, Moving

_log = logging.getLogger(__name__)


class Pager(Protocol):
    """An engine whose pages can be read and written. Both are called on the mover's thread, while steps run."""

    def read(self, page: int, tokens: int) -> memoryview:
        """The keys and values of the first so many tokens of a page; nobody writes on them meanwhile."""
        ...

    def write(self, page: int, tokens: int, data: Buffer) -> None:
        """Fill a page that nobody reads yet."""
        ...


class Mover:
    """The moves of one pool. `report` is called in the loop with what came of them; `seal` gives a root's seal."""

    def __init__(
        self, pager: Pager, tiers: Sequence[Tier], *, report: Callable[[Event], object], seal: Callable[[str], Seal]
    ) -> None:
        self._pager = pager
        self._tiers: Mapping[str, Tier] = {tier.name: tier for tier in tiers}
        self._order = {tier.name: asyncio.Lock() for tier in tiers}  # fair: first come, first served
        self._report = report
        self._seal = seal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sostenuto-move")
        self._tasks: set[asyncio.Task[None]] = set()
        self._cancelled: set[int] = set()
        self._told: set[str] = set()

    async def open(self) -> None:
        """Tell what lies in the tiers already."""
        for name, tier in self._tiers.items():
            try:
                entries = await tier.entries()
            except (KVError, OSError) as error:
                self._fail(name, error)
                continue
            if entries:
                known = (Moving(each.name.hex(), each.parent.hex(), each.tokens) for each in entries)
                self._report(Known(name, tuple(known)))

    def begin(self, move: Move) -> None:
        """Begin to carry a move out; `Moved` is reported when it is over."""
        if move.target == DEVICE:
            self._go(self._fetch(move))
        elif move.source == DEVICE:
            self._go(self._store(move))
        else:
            self._go(self._pass_down(move))

    def cancel(self, move: int) -> None:
        """Nobody waits for it any more: it ends as soon as it can."""
        self._cancelled.add(move)

    def drop(self, drop: Drop) -> None:
        """Let blocks go."""
        self._go(self._forget(drop))

    async def get(self, tier: str, names: Sequence[BlockHash]) -> Mapping[BlockHash, memoryview]:
        """The records of a tier. Raises TierGone."""
        return await self._tiers[tier].get(names)

    async def put(self, tier: str, records: Mapping[BlockHash, Buffer]) -> None:
        """Put records into a tier, in order with what the kernel sends there. Raises TierGone and TierFull."""
        async with self._order[tier]:
            await self._tiers[tier].put(records)

    async def settled(self) -> None:
        """What has been begun up to now is over."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    async def drained(self) -> None:
        """All that has been begun is over."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self) -> None:
        """Carry out what has been begun, and close the tiers."""
        await self.drained()
        self._thread.shutdown()
        for tier in self._tiers.values():
            await tier.aclose()

    # -- in the loop

    def _go(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        task.result()  # a fault of ours: whoever watches the loop must hear of it

    async def _store(self, move: Move) -> None:
        done: tuple[str, ...] = ()
        async with self._order[move.target]:
            try:
                records = await self._within(self._pack, move)
                await self._tiers[move.target].put(records)
                done = tuple(name.hex() for name in records)
            except (KVError, OSError) as error:
                self._fail(move.target, error)
        self._report(Moved(move.id, done))

    async def _fetch(self, move: Move) -> None:
        records: dict[BlockHash, memoryview] = {}
        for name in dict.fromkeys(block.tier for block in move.blocks):
            wanted = [_name(block) for block in move.blocks if block.tier == name]
            try:
                found = {} if move.id in self._cancelled else await self._tiers[name].get(wanted)
            except (KVError, OSError) as error:
                self._fail(name, error)
                self._report(Lost(name))
                continue
            if move.id not in self._cancelled and (gone := tuple(each.hex() for each in wanted if each not in found)):
                self._report(Lost(name, gone))
            records |= found
        done = () if move.id in self._cancelled else await self._within(self._unpack, move, records)
        self._cancelled.discard(move.id)
        self._report(Moved(move.id, done))

    async def _pass_down(self, move: Move) -> None:
        done: tuple[str, ...] = ()
        async with self._order[move.target]:
            try:
                records = await self._tiers[move.source].get([_name(block) for block in move.blocks])
                await self._tiers[move.target].put(records)
                done = tuple(name.hex() for name in records)
            except (KVError, OSError) as error:
                self._fail(move.target, error)
        self._report(Moved(move.id, done))

    async def _forget(self, drop: Drop) -> None:
        async with self._order[drop.tier]:
            try:
                await self._tiers[drop.tier].drop([BlockHash(bytes.fromhex(name)) for name in drop.names])
            except (KVError, OSError) as error:
                self._fail(drop.tier, error)

    async def _within(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _fail(self, tier: str, error: Exception) -> None:
        kind = f"{tier} {type(error).__name__}"
        if kind not in self._told:
            self._told.add(kind)
            _log.warning(
                "the tier %s failed: %s. What should have gone there is lost and will be computed again when it is "
                "wanted; this is said once for each kind of fault.",
                tier,
                error,
            )

    # -- on the mover's thread

    def _pack(self, move: Move) -> dict[BlockHash, Buffer]:
        seal = self._seal(move.root).digest
        records: dict[BlockHash, Buffer] = {}
        for block in move.blocks:
            assert block.page is not None  # what comes from the device lies in a page
            link = block.link
            payload = self._pager.read(block.page, len(block.tokens))
            records[link.name] = pack(Block(link.name, link.parent, link.tokens, seal, payload))
        return records

    def _unpack(self, move: Move, records: Mapping[BlockHash, memoryview]) -> tuple[str, ...]:
        """Write what has come and is what was wanted; nothing behind a gap, for nobody could find it."""
        seal = self._seal(move.root)
        done = []
        for moving in move.blocks:
            assert moving.page is not None
            data = records.get(_name(moving))
            if data is None:
                break
            try:
                block = unpack(data, verified=True)
                check(block, moving.link, seal)
                self._pager.write(moving.page, len(block.tokens), block.payload)
            except (KVError, ValueError) as error:
                _log.warning("a block was not taken from %s: %s. It is computed again.", moving.tier, error)
                break
            done.append(moving.name)
        return tuple(done)


def _name(block: Moving) -> BlockHash:
    return BlockHash(bytes.fromhex(block.name))
