"""The tiers below the device, how much fits into each, and the schedule over all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..kvstore import Elsewhere, Ledger
from ..kvstore.tiers import DiskTier, HostTier, Tier
from ..scheduler import HOLD_BUDGET, Kernel, Policy
from .engines import StepEngine, TurnEngine
from .errors import Unable


@dataclass(frozen=True, slots=True)
class Below:
    """A tier, and its room in tokens; None: as much as there is."""

    tier: Tier
    tokens: int | None = None


def tiers(host_tokens: int = 0, store: Path | None = None, store_tokens: int | None = None) -> tuple[Below, ...]:
    """Host memory for so many tokens, then a folder on a disk, of which what is asked for is made.

    Raises ValueError for less than no tokens, and what opening a folder raises: TierLocked where another process
    writes there, BadStore where it is something else.
    """
    for name, value in (("host_tokens", host_tokens), ("store_tokens", store_tokens or 0)):
        if value < 0:
            raise ValueError(f"{name}: found {value}; expected 0 or more")
    found = [Below(HostTier(verify=False), host_tokens)] if host_tokens else []
    if store is not None:
        found.append(Below(DiskTier.open(store), store_tokens))
    return tuple(found)


def kernel(engine: StepEngine | TurnEngine, policy: Policy, below: Sequence[Below] = ()) -> Kernel:
    """The schedule of an engine's pool and the tiers below it. Raises Unable for one that cannot use tiers."""
    if below and not engine.can.tiers:
        raise Unable(f"{engine.name} keeps its contexts to itself: open it without tiers below the device")
    page = engine.page
    rooms = {one.tier.name: None if one.tokens is None else one.tokens // page for one in below}
    ledger = Ledger(engine.room, page, rank=policy.evict)
    budget = HOLD_BUDGET if engine.can.hold else 0.0
    return Kernel(ledger, policy, hold_budget=budget, grows=engine.can.preempt, elsewhere=Elsewhere(page, rooms))
