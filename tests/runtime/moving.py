"""A mover alone, over pages of plain bytes and tiers that do as they are told: nothing, late, or wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from sostenuto.kvstore import BlockHash, Link, PageId, Parked
from sostenuto.kvstore.record import Buffer
from sostenuto.kvstore.seal import Seal
from sostenuto.kvstore.tiers import Entry, HostTier
from sostenuto.runtime.mover import Mover
from sostenuto.scheduler import DEVICE, Event, Move, Moving
from sostenuto.tests.kvstore.records import PAGE, context, records, seal

CONTEXT = context(range(3 * PAGE + 2))
SIZE = seal().layers * 2 * seal().kv_heads * seal().head_dim * 4
"""Bytes of a token."""
RECORDS = records(CONTEXT, SIZE)
NAMES = [name.hex() for name in CONTEXT.names]


class Pages:
    """A pager over plain bytes: page n is full of the number n. Pages of `gone` are of older weights."""

    def __init__(self) -> None:
        self.written: dict[int, bytes] = {}
        self.gone: set[int] = set()
        self.fault: Exception | None = None

    def read(self, page: int, tokens: int) -> memoryview:
        if page in self.gone:
            raise LookupError(f"page {page} is of older weights")
        return memoryview(bytes([page]) * tokens * SIZE)

    def write(self, page: int, tokens: int, data: Buffer) -> None:
        if self.fault is not None:
            raise self.fault
        self.written[page] = bytes(data)


class Scripted(HostTier):
    """Is deaf to calls in `deaf` until `heard` is set, cancelled or not, and raises `fault` at those in `faulty`."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.deaf: set[str] = set()
        self.faulty: set[str] = set()
        self.fault: Exception = RuntimeError("a defect of somebody's")
        self.heard = asyncio.Event()
        self.log: list[str] = []

    async def put(self, records: Mapping[BlockHash, Buffer]) -> None:
        await self._come("put")
        await super().put(records)

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        await self._come("get")
        return await super().get(names)

    async def drop(self, names: Iterable[BlockHash]) -> None:
        await self._come("drop")
        await super().drop(names)

    async def entries(self) -> Sequence[Entry]:
        await self._come("entries")
        return await super().entries()

    async def aclose(self) -> None:
        await self._come("aclose")
        await super().aclose()

    @property
    def held(self) -> list[str]:
        return [name.hex() for name in self._records]

    async def _come(self, call: str) -> None:
        self.log.append(call)
        while call in self.deaf and not self.heard.is_set():
            with suppress(asyncio.CancelledError):
                await self.heard.wait()
        if call in self.faulty:
            raise self.fault


class Scene:
    """A mover over pages and two tiers, and all that it reported."""

    def __init__(self, patience: float) -> None:
        self.pages = Pages()
        self.near, self.far = Scripted("near"), Scripted("far")
        self.told: list[Event] = []
        self.follow: Callable[[Event], object] = lambda event: None
        self.seal: Seal | None = CONTEXT.seal
        self.rest = asyncio.Event()
        self.rest.set()
        self.defects: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self.defects.append(context))
        self.mover = Mover(
            self.pages,
            [self.near, self.far],
            report=self._hear,
            seal=lambda root: self.seal,
            at_rest=self._at_rest,
            patience=patience,
        )

    def store(self, number: int = 1, parked: Parked = CONTEXT, tier: str = "near") -> None:
        """Copy a context from pages 1, 2, 3 and 4."""
        blocks = [moving(each, page) for page, each in enumerate(parked.links(), 1)]
        self.mover.carry(Move(number, DEVICE, tier, tuple(blocks), parked.root.hex(), None, "it pauses"))

    def fetch(self, number: int = 2, tiers: Sequence[str] = ("near",) * 4) -> None:
        """Bring a context to pages 11, 12, 13 and 14, each block from its tier."""
        links = zip(CONTEXT.links(), tiers, strict=True)
        blocks = [moving(each, page, tier) for page, (each, tier) in enumerate(links, 11)]
        self.mover.carry(Move(number, tiers[-1], DEVICE, tuple(blocks), CONTEXT.root.hex(), None, "it is wanted"))

    async def over(self) -> None:
        """Until all that was begun, and what followed from it, is over."""
        while self.mover._tasks:
            for tier in (DEVICE, "near", "far"):
                await self.mover.settled(tier)

    async def abandoned(self) -> None:
        """Until all is over for which nobody waits any more; a fault that nobody took note of is a defect by then."""
        if self.mover._asked:
            await asyncio.wait(self.mover._asked)
        await asyncio.sleep(0)

    def _hear(self, event: Event) -> None:
        self.told.append(event)
        self.follow(event)

    async def _at_rest(self) -> None:
        await self.rest.wait()


def moving(link: Link, page: int | None = None, tier: str = "") -> Moving:
    """A block as moves have it."""
    place = None if page is None else PageId(page)
    return Moving(link.name.hex(), link.parent.hex(), link.tokens, place, tier)


async def played(patience: float) -> AsyncIterator[Scene]:
    scene = Scene(patience)
    yield scene
    for tier in (scene.near, scene.far):
        tier.heard.set()
        tier.faulty.clear()
    scene.rest.set()
    await scene.mover.close()
    # Who was deaf has heard by now, and what it raises then is nobody's affair.
    await scene.abandoned()
    assert scene.defects == []
