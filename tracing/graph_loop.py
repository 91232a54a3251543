"""What LangGraph's loop does between its tasks: checkpoints it leaves, and nodes whose result the cache has.

Facts for the span of the run, no spans: without these private functions a trace lacks them and nothing else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from typing import Any

from .graph_run import current_run
from .graph_signals import Switch


def traced_put(put: Callable[..., None], switch: Switch) -> Callable[..., None]:
    """`PregelLoop._put_checkpoint`: the run learns which checkpoint is its last so far."""

    @wraps(put)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        put(self, *args, **kwargs)
        run = None if self.checkpointer is None else current_run()
        if run is not None and not switch.idle():
            run.checkpoint = str(self.checkpoint["id"])

    return wrapper


def traced_match(match: Callable[..., Sequence[Any]], switch: Switch) -> Callable[..., Sequence[Any]]:
    """`SyncPregelLoop.match_cached_writes`: the run learns which nodes need not run."""

    @wraps(match)
    def wrapper(self: Any) -> Sequence[Any]:
        found = match(self)
        _cached(found, switch)
        return found

    return wrapper


def traced_amatch(
    match: Callable[..., Awaitable[Sequence[Any]]], switch: Switch
) -> Callable[..., Awaitable[Sequence[Any]]]:
    """`AsyncPregelLoop.amatch_cached_writes`, likewise."""

    @wraps(match)
    async def wrapper(self: Any) -> Sequence[Any]:
        found = await match(self)
        _cached(found, switch)
        return found

    return wrapper


def _cached(tasks: Sequence[Any], switch: Switch) -> None:
    run = current_run() if tasks else None
    if run is not None and not switch.idle():
        run.cached += [task.name for task in tasks]
