"""Carries blocks between the device and the tiers below it, beside the forward pass.

Reading and writing pages, checksums and codecs run on one thread of their own; tiers wait in the loop. What goes into
a tier and what leaves it keep the order in which the kernel said so. A tier that fails costs what lies there, and a
line in the log: whoever wanted it computes it anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..kvstore import BlockHash, KVError, Seal, TierGone
from ..kvstore.record import Block, Buffer, Link, check, pack, unpack
from ..kvstore.tiers.base import Entry, Shared, Tier
from ..scheduler import DEVICE, CancelMove, Drop, Event, Known, Lost, Move, Moved, Moving

_T = TypeVar("_T")
_RUN = 64
"""Blocks that are in memory together when they go from tier to tier."""

PATIENCE_S = 30.0
"""For one request to a tier. Computing even a long context anew takes no longer on any device."""

_log = logging.getLogger(__name__)


class Pager(Protocol):
    """An engine whose pages can be read and written. Both are called on the mover's thread, while steps run."""

    def read(self, page: int, tokens: int) -> memoryview:
        """The keys and values of the first so many tokens of a page; nobody writes on them meanwhile.

        Raises LookupError for a page of weights that are gone.
        """
        ...

    def write(self, page: int, tokens: int, data: Buffer) -> None:
        """Fill a page that nobody reads yet."""
        ...


class Mover:
    """The moves of one pool. `report` is called in the loop with what came of them; `seal` gives a root's seal.

    `at_rest` returns when nobody writes any more on pages that had another owner before. A tier has `patience`
    seconds for each thing that it is asked for.
    """

    def __init__(
        self,
        pager: Pager,
        tiers: Sequence[Tier],
        *,
        report: Callable[[Event], object],
        seal: Callable[[str], Seal | None],
        at_rest: Callable[[], Awaitable[None]],
        patience: float = PATIENCE_S,
    ) -> None:
        self._pager = pager
        self._tiers: Mapping[str, Tier] = {tier.name: tier for tier in tiers}
        self._order = {tier.name: asyncio.Lock() for tier in tiers}  # fair: first come, first served
        self._report = report
        self._seal = seal
        self._at_rest = at_rest
        self._patience = patience
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sostenuto-move")
        self._tasks: dict[asyncio.Task[Exception | None], str] = {}
        self._asked: set[asyncio.Task[Any]] = set()  # what nobody waits for any more must not vanish on its way
        self._cancelled: set[int] = set()
        self._told: set[str] = set()
        self._shared = {name: tier for name, tier in self._tiers.items() if isinstance(tier, Shared)}
        self._silent: dict[str, float] = {}

    async def open(self) -> None:
        """Tell what lies in the tiers already. Of those to which others write it is only said if they are not there."""
        for name, tier in self._tiers.items():
            entries: Sequence[Entry] = ()
            with self._failing(name):
                if isinstance(tier, Shared):
                    await self._patiently(tier.have(()))
                else:
                    entries = await self._patiently(tier.entries())
            if entries:
                self._report(Known(name, tuple(map(Moving.of, entries))))

    @property
    def shared(self) -> bool:
        """Do others write to some of the tiers?"""
        return bool(self._shared)

    async def seek(self, links: Sequence[Link]) -> None:
        """Ask tiers to which others write which of these blocks lie there; `Known` is reported.

        One that failed is not asked again before its patience is over: whoever comes would wait for it in vain.
        """
        now = asyncio.get_running_loop().time()
        for name, tier in self._shared.items():
            if now < self._silent.get(name, now):
                continue
            here: Set[BlockHash] = frozenset()
            with self._failing(name) as fault:
                here = await self._patiently(tier.have([link.name for link in links]))
            if fault.found is not None:
                self._silent[name] = now + self._patience
            found = [Moving.of(each) for each in links if each.name in here]
            if found:
                self._report(Known(name, tuple(found)))

    def carry(self, effect: Move | CancelMove | Drop) -> None:
        """Begin what the kernel wants; `Moved` is reported when a move is over."""
        match effect:
            case Move():
                self._begin(effect)
            case CancelMove(id=move):
                self._cancelled.add(move)  # nobody waits for it any more: it ends as soon as it can
            case Drop(tier=tier):
                self._go(self._forget(effect), tier)

    async def get(self, tier: str, names: Sequence[BlockHash]) -> Mapping[BlockHash, memoryview]:
        """The records of a tier. Raises TierGone, also where no answer comes."""
        return await self._patiently(self._tiers[tier].get(names))

    async def put(self, tier: str, records: Mapping[BlockHash, Buffer]) -> None:
        """Put records into a tier, in order with what the kernel sends there. The tier may keep their very bytes.

        Raises TierGone, also where no answer comes, and TierFull.
        """
        async with self._order[tier]:
            await self._patiently(self._tiers[tier].put(records))

    async def settled(self, tier: str) -> Exception | None:
        """What has been begun up to now in a tier is over; why some of it failed, if it did."""
        tasks = [task for task, where in self._tasks.items() if where == tier]
        if tasks:
            await asyncio.wait(tasks)
        faults = (task.result() for task in tasks if not task.cancelled())
        return next((fault for fault in faults if fault is not None), None)

    async def close(self) -> None:
        """Carry out what has been begun, and what follows from it, as far as our patience reaches; close the tiers."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._patience
        while self._tasks and clock() < end:
            await asyncio.wait(self._tasks, timeout=end - clock())
        late = list(self._tasks)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        self._thread.shutdown()
        for name, tier in self._tiers.items():
            with self._failing(name):
                await self._patiently(tier.aclose())

    # -- in the loop

    def _begin(self, move: Move) -> None:
        if move.target == DEVICE:
            self._go(self._fetch(move), DEVICE)
        elif move.source == DEVICE:
            # Now, because what lies in the pages is of the present weights, and they may change before its turn comes.
            self._go(self._store(move, self._seal(move.root)), move.target)
        else:
            self._go(self._pass_down(move), move.target)

    def _go(self, work: Coroutine[Any, Any, Exception | None], tier: str) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = tier
        task.add_done_callback(self._over)

    def _over(self, task: asyncio.Task[Exception | None]) -> None:
        del self._tasks[task]
        if not task.cancelled():
            task.result()  # a fault of ours: whoever watches the loop must hear of it

    async def _store(self, move: Move, seal: Seal | None) -> Exception | None:
        done: tuple[str, ...] = ()
        with self._failing(move.target) as fault:
            async with self._order[move.target]:
                records = {} if seal is None else await self._within(self._pack, move, seal)
                await self._patiently(self._tiers[move.target].put(records))
            done = tuple(name.hex() for name in records)
        self._report(Moved(move.id, done))
        return fault.found

    async def _fetch(self, move: Move) -> Exception | None:
        records: dict[BlockHash, memoryview] = {}
        for name in dict.fromkeys(block.tier for block in move.blocks):
            if move.id in self._cancelled:
                break
            wanted = [_name(block) for block in move.blocks if block.tier == name]
            with self._failing(name):
                records |= await self._patiently(self._tiers[name].get(wanted))
        done: tuple[str, ...] = ()
        with self._failing(DEVICE):
            await self._at_rest()
            seal = self._seal(move.root)
            if move.id not in self._cancelled and seal is not None:
                done = await self._within(self._unpack, move, records, seal)
                self._lost([block for block in move.blocks[len(done) : len(done) + 1] if _name(block) in records])
        if move.id not in self._cancelled:
            for name in dict.fromkeys(block.tier for block in move.blocks):
                gone = [block.name for block in move.blocks if block.tier == name and _name(block) not in records]
                if gone:
                    self._report(Lost(name, tuple(gone)))
        self._cancelled.discard(move.id)
        self._report(Moved(move.id, done))
        return None

    def _lost(self, bad: Sequence[Moving]) -> None:
        """What was not what it should be is of no use to anybody who comes after."""
        for block in bad:
            self._report(Lost(block.tier, (block.name,)))
            self.carry(Drop(block.tier, (block.name,), "it was not what was wanted"))

    async def _pass_down(self, move: Move) -> Exception | None:
        done: tuple[str, ...] = ()
        with self._failing(move.target) as fault:
            async with self._order[move.target]:
                # In runs: what is too much when a host opens may be most of a disk.
                for at in range(0, len(move.blocks), _RUN):
                    names = [_name(block) for block in move.blocks[at : at + _RUN]]
                    records = await self._patiently(self._tiers[move.source].get(names))
                    await self._patiently(self._tiers[move.target].put(records))
                    done += tuple(name.hex() for name in records)
        self._report(Moved(move.id, done))
        return fault.found

    async def _forget(self, drop: Drop) -> Exception | None:
        with self._failing(drop.tier) as fault:
            async with self._order[drop.tier]:
                names = [BlockHash(bytes.fromhex(name)) for name in drop.names]
                await self._patiently(self._tiers[drop.tier].drop(names))
        return fault.found

    async def _patiently(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Raises TierGone where no answer comes, and leaves behind what does not hear that nobody waits any more."""
        task = asyncio.get_running_loop().create_task(work)
        self._asked.add(task)
        task.add_done_callback(self._answered)
        try:
            await asyncio.wait((task,), timeout=self._patience)
        finally:
            if not task.done():
                task.cancel()
        if not task.done():
            raise TierGone(f"no answer came within {self._patience:g} s")
        return task.result()

    def _answered(self, task: asyncio.Task[Any]) -> None:
        self._asked.discard(task)
        if not task.cancelled():
            task.exception()  # whoever asked has it, or has left: then it is nobody's, and no defect of ours

    async def _within(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    @contextmanager
    def _failing(self, tier: str) -> Iterator[_Fault]:
        """Whatever a tier raises, ours or somebody else's: what lies there costs time, and never a turn."""
        fault = _Fault()
        try:
            yield fault
        except Exception as error:
            fault.found = error
            kind = f"{tier} {type(error).__name__}"
            if kind not in self._told:
                self._told.add(kind)
                _log.warning(
                    "the tier %s failed: %s. What should have gone there, or come from there, will be computed again "
                    "when it is wanted; this is said once for each kind of fault.",
                    tier,
                    str(error) or type(error).__name__,
                    exc_info=not isinstance(error, KVError | OSError),
                )

    # -- on the mover's thread

    def _pack(self, move: Move, seal: Seal) -> dict[BlockHash, Buffer]:
        """What lies in the pages; nothing behind a page of older weights, for nobody could find it."""
        records: dict[BlockHash, Buffer] = {}
        for block in move.blocks:
            assert block.page is not None  # what comes from the device lies in a page
            link = block.link
            try:
                payload = _encoded(self._pager.read(block.page, len(block.tokens)), seal, len(block.tokens))
            except LookupError:
                break
            except ValueError as error:
                _log.warning("a block was not stored: %s. It is computed again.", error)
                break
            records[link.name] = pack(Block(link.name, link.parent, link.tokens, seal.digest, payload))
        return records

    def _unpack(self, move: Move, records: Mapping[BlockHash, memoryview], seal: Seal) -> tuple[str, ...]:
        """Write what has come and is what was wanted; nothing behind a gap, for nobody could find it."""
        done = []
        for moving in move.blocks:
            assert moving.page is not None
            data = records.get(_name(moving))
            if data is None:
                break
            try:
                block = unpack(data, verified=True)
                check(block, moving.link, seal)
                self._pager.write(moving.page, len(block.tokens), _decoded(block.payload, seal, len(block.tokens)))
            except (KVError, ValueError) as error:
                _log.warning("a block was not taken from %s: %s. It is computed again.", moving.tier, error)
                break
            done.append(moving.name)
        return tuple(done)


@dataclass(slots=True)
class _Fault:
    """What was raised, if anything was."""

    found: Exception | None = None


def _encoded(page: Buffer, seal: Seal, tokens: int) -> Buffer:
    if seal.exact:
        return page
    from ..kvstore.codecs import encoded  # it brings torch with it: only who has chosen a codec pays for that

    return encoded(page, seal, tokens)


def _decoded(payload: Buffer, seal: Seal, tokens: int) -> Buffer:
    if seal.exact:
        return payload
    from ..kvstore.codecs import decoded

    return decoded(payload, seal, tokens)


def _name(block: Moving) -> BlockHash:
    return BlockHash(bytes.fromhex(block.name))
