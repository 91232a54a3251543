"""The named bundles."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from . import admit, evict, order, preempt, retain
from .bundle import Policy

SOSTENUTO = Policy(
    name="sostenuto",
    order=order.by_program,
    admit=admit.with_headroom,
    retain=retain.through_tools,
    mark=retain.until_wanted,
    gives=preempt.untended_then_latest,
    yields=preempt.to_earlier,
    evict=evict.stale_first,
)
"""Programs in the order in which they came, a bounded hold on every tool pause, closed contexts evicted first."""

FORGETFUL = Policy(name="forgetful")
"""First come, first served and least recently used: what serving engines do today."""

POLICIES: Mapping[str, Policy] = MappingProxyType({policy.name: policy for policy in (SOSTENUTO, FORGETFUL)})


def named(name: str) -> Policy:
    """The bundle of this name; ValueError names those there are."""
    try:
        return POLICIES[name]
    except KeyError:
        raise ValueError(f"there is no policy {name!r}: choose one of {', '.join(sorted(POLICIES))}") from None
