"""The shape of a policy: what a schedule asks, each with a plain default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ...kvstore import Rank, oldest_first
from ..world import Pause, Program, Waiting, World
from .admit import always, open_window
from .order import by_arrival, once
from .preempt import latest, never_yields, recompute
from .retain import Retention, never, no_marks, nothing

Key = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """A value, not a class to inherit from."""

    name: str
    order: Callable[[World, Waiting], Key] = by_arrival
    """Who runs next: the smallest key. Asked when a turn comes, when its program's hold ends, and at `again`."""
    again: Callable[[World, Waiting], float] = once
    """When the place of a waiting turn is to be asked for anew, and whether it may start; infinite for never."""
    admit: Callable[[World, Waiting, int], bool] = always
    """May a turn that needs so many pages start now, if they are to be had? It starts unasked where nobody runs or
    holds: there is nothing to wait for."""
    retain: Callable[[World, Program, Pause], Retention] = nothing
    """How long a context stays that paused for tools (no tools: it waits for a person)."""
    renew: Callable[[World, Program, Pause], Retention] = nothing
    """How much longer, when that time is over and the tools are not back."""
    mark: Callable[[World], Retention] = no_marks
    """How long a context stays to which somebody may come back."""
    gives: Callable[[World, Program], Key] = latest
    """Who of those that hold gives way first: the largest key. Asked when a hold begins, and at the front."""
    yields: Callable[[World, Program, Waiting], bool] = never_yields
    """Must what a program holds make room for a turn? Asked of the first few in the order of `gives`."""
    preempt: Callable[[World, Program], Key] = latest
    """Who leaves the batch when a running turn needs a page: the largest key."""
    swap: Callable[[World, int], tuple[str, ...]] = recompute
    """Where a context of so many tokens is copied to when its turn leaves the batch; nowhere: it is computed again."""
    prefetch: Callable[[World, Program, Pause], float] = never
    """In how many seconds a context that gave way is fetched back to the device; infinite for not before its turn."""
    window: Callable[[World, float], float] = open_window
    """How many programs may be active from now on, and how many might until now: state that the kernel keeps."""
    evict: Rank = oldest_first
    """What leaves the cache first: the smallest rank."""
