"""The shape of a policy: seven questions, each with a plain default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...kvstore import Rank, oldest_first
from ..world import Program, Waiting, World
from . import admit, order, preempt, retain
from .retain import Retention

Key = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A value, not a class to inherit from."""

    name: str
    order: Callable[[World, Waiting], Key] = order.by_arrival
    """Who runs next: the smallest key. Must not change while a turn waits, except when its program's hold ends."""
    admit: Callable[[World, Waiting, int], bool] = admit.always
    """May a turn that needs so many pages start now, if they are to be had?"""
    mark: Callable[[World], Retention] = retain.no_marks
    """How long a context stays to which somebody may come back."""
    retain: Callable[[World, Program, tuple[str, ...]], Retention] = retain.nothing
    """How long a context stays that paused for these tools (no tools: it waits for a person)."""
    yields: Callable[[World, Program, Program], bool] = preempt.never_yields
    """Must what the first program holds make room for a turn of the second?"""
    preempt: Callable[[World, Program], Key] = preempt.latest
    """Who leaves the batch when a running turn needs a page: the largest key."""
    evict: Rank = oldest_first
    """What leaves the cache first: the smallest rank."""
