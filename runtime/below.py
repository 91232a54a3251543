"""The tiers below the device, how much fits into each, and the schedule over all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from ..kvstore import RAW, Elsewhere, Groups, KVError, Ledger
from ..kvstore.tiers import DiskTier, HostTier, Tier
from ..kvstore.tiers.folder import Folder
from ..scheduler import Kernel, Pace, Policy, Setting, checked
from .engines import Paced, StepEngine, TurnEngine
from .errors import MissingPackage, Unable


@dataclass(frozen=True, slots=True)
class Below:
    """A tier, and its room in tokens; None: as much as there is."""

    tier: Tier
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Tiers:
    """Which tiers are wanted: host memory for so many tokens, a folder on a disk, the address of a Redis or Valkey.

    They come in this order. Raises ValueError for less than no tokens.
    """

    host_tokens: int = 0
    store: Path | str | None = None
    store_tokens: int | None = None
    remote: str | None = None

    def __post_init__(self) -> None:
        for name, value in (("host_tokens", self.host_tokens), ("store_tokens", self.store_tokens or 0)):
            if value < 0:
                raise ValueError(f"{name}: found {value}; expected 0 or more")
        if self.store_tokens is not None and self.store is None:
            raise ValueError(f"store_tokens: found {self.store_tokens} without a store: give a folder, store=FOLDER")
        if not isinstance(self.remote, str | None):
            raise ValueError(f"remote: found {self.remote!r}; expected an address such as redis://127.0.0.1:6379/0")

    def look(self) -> None:
        """Raises now what would be wrong later, when a model has been loaded.

        That is TierLocked and BadStore for the folder, ValueError for what is no address of a server, MissingPackage
        where nothing can speak to one. Whether the server is there is not asked.
        """
        if self.remote is not None:
            with _speaking_redis():
                from ..kvstore.tiers.remote import place
            place(self.remote)
        if self.store is not None:
            Folder(Path(self.store), write=True).close()

    def open(self, engine: StepEngine | TurnEngine) -> tuple[Below, ...]:
        """The tiers for an engine; they are the caller's to close, or a loop's to which he gives them.

        Raises Unable for an engine that cannot use any, and as `look` does.
        """
        if self.host_tokens or self.store is not None or self.remote is not None:
            _able(engine)
        found = [Below(HostTier(verify=False), self.host_tokens)] if self.host_tokens else []
        if self.remote is not None:
            with _speaking_redis():
                from ..kvstore.tiers.remote import RemoteTier
            found.append(Below(RemoteTier(self.remote, seal=cast(StepEngine, engine).seal("", "", RAW), every=True)))
        if self.store is not None:  # opened last: if something else failed, it would stay locked
            found.insert(bool(self.host_tokens), Below(DiskTier.open(Path(self.store)), self.store_tokens))
        return tuple(found)


@contextmanager
def owned(below: Sequence[Below]) -> Iterator[None]:
    """Tiers are closed if what is to have them from now on does not come about in here: a folder stays locked else."""
    try:
        yield
    except BaseException:
        # Closing them takes an event loop, and this thread may have one that is running.
        with ThreadPoolExecutor(1) as aside:
            aside.submit(asyncio.run, _closed(below)).result()
        raise


def kernel(
    engine: StepEngine | TurnEngine, policy: Policy, below: Sequence[Below] = (), setting: Setting | None = None
) -> Kernel:
    """The schedule of an engine's pool and the tiers below it.

    Raises Unable for an engine that cannot use tiers, BadPolicy for a policy that holds what is no function.
    """
    if below:
        _able(engine)
    page, groups = engine.page, engine.groups if isinstance(engine, StepEngine) else Groups()
    rooms = {one.tier.name: None if one.tokens is None else one.tokens // page * len(groups) for one in below}
    policy = checked(policy, rooms)
    ledger = Ledger(engine.room, page, rank=policy.evict)
    ledger.groups = groups
    setting = setting or Setting()
    if not engine.can.hold:
        setting = replace(setting, hold_budget=0.0)
    if isinstance(engine, Paced):
        engine.pace = Pace(setting.costs, target_s=setting.token_target_s, most=engine.pace.most)
    elsewhere = Elsewhere(page, rooms)
    return Kernel(ledger, policy, grows=engine.can.preempt, elsewhere=elsewhere, setting=setting)


def _able(engine: StepEngine | TurnEngine) -> None:
    if not engine.can.tiers:
        raise Unable(f"{engine.name} keeps its contexts to itself: open it without tiers below the device")


@contextmanager
def _speaking_redis() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingPackage(
            "remote: the package redis is not installed: pip install 'sostenuto[redis]', or open the host without it"
        ) from error


async def _closed(below: Sequence[Below]) -> None:
    for one in below:
        with suppress(KVError, OSError):
            await one.tier.aclose()
