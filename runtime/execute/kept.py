"""Answers that need not be computed twice: kept while what they depend on is unchanged, or shared while under way."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Future
from typing import Any, TypeAlias

Key: TypeAlias = tuple[str, ...]
"""Tenant, tool, schema, arguments, versions of what is read."""
ROOM = 1024
"""Answers kept at most; the one used longest ago goes."""


class Kept:
    """Both, under equal keys. A key names its tenant: an answer never crosses to another."""

    def __init__(self, room: int = ROOM) -> None:
        self._lock = threading.Lock()
        self._room = room
        self._answers: OrderedDict[Key, Any] = OrderedDict()
        self._flights: dict[Key, list[Future[Any]]] = {}

    def look(self, key: Key) -> Any | None:
        """The answer that is kept, None where there is none."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def keep(self, key: Key, value: Any) -> None:
        with self._lock:
            self._answers[key] = value
            self._answers.move_to_end(key)
            if len(self._answers) > self._room:
                self._answers.popitem(last=False)

    def join(self, key: Key) -> Future[Any] | None:
        """None: nobody is on the way, the caller now is, and says so with `land`. Else what will come of it."""
        with self._lock:
            if key not in self._flights:
                self._flights[key] = []
                return None
            follower: Future[Any] = Future()  # of its own: whoever goes away takes nobody along
            self._flights[key].append(follower)
            return follower

    def land(self, key: Key, value: Any | None) -> None:
        """The flight is over; None if its answer is nobody else's."""
        with self._lock:
            followers = self._flights.pop(key)
        for each in followers:
            if each.set_running_or_notify_cancel():
                each.set_result(value)

    def __repr__(self) -> str:
        return f"<Kept {len(self._answers)} answers, {len(self._flights)} under way>"
