"""Holds whose length takes no forecast: a fixed time, and the rent that has come to the price.

`fixed-ttl` is what Continuum's public code does where its paper has a formula (`FIXED_THRESHOLD_CONTINUUM = 2.0`,
arXiv 2511.02230's repository). `ski-rental` is the classic of Karlin, Manasse, Rudolph and Sleator ("Competitive snoopy
caching", Algorithmica 3, 1988): renting until the rent has come to the price costs at most twice what it would have
cost to know the future, whatever the future is; and nobody who does not know can promise less.
"""

from __future__ import annotations

from ..world import Pause, Program, World
from .bundle import Policy
from .order import pinned_first
from .preempt import always_yields, latest
from .retain import Retention
from .worth import LONGEST_S, lost_s

TTL_S = 2.0


def two_seconds(world: World, program: Program, pause: Pause) -> Retention:
    """Every tool pause is held for the same time."""
    return Retention(TTL_S if pause.tools else 0.0, f"{TTL_S:g} s for any tool")


def rent(world: World, program: Program, pause: Pause) -> Retention:
    """tau = B: as long as holding has cost less than losing it would, a second of holding being a second."""
    loss = lost_s(world, pause.tokens)
    return Retention(min(loss, LONGEST_S) if pause.tools else 0.0, f"as long as its loss of {loss:.3g} s")


def while_it_waits(world: World, program: Program, pause: Pause) -> Retention:
    """A hold goes on while its program's next turn waits already."""
    return Retention(TTL_S if program.live else 0.0, "its program is back and waits")


FIXED_TTL = Policy(
    name="fixed-ttl", order=pinned_first, retain=two_seconds, renew=while_it_waits, gives=latest, yields=always_yields
)
"""Two seconds for every tool, programs first come first served, held contexts first."""

SKI_RENTAL = Policy(
    name="ski-rental", order=pinned_first, retain=rent, renew=while_it_waits, gives=latest, yields=always_yields
)
"""As long as its loss, programs first come first served, held contexts first."""
