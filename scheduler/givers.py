"""Who holds, in the order in which they give way: a lazy heap over the keys that a policy gives."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from .events import ProgramId
from .world import Program

LOOKED_AT = 4
"""Holders that are asked at most before nobody gives way."""

Key = tuple[float, ...]


class Givers:
    """Programs that hold something. Entering costs O(log n), leaving nothing; looking a few steps.

    A key is that of the moment in which a program began to hold. Whoever comes to the front is asked for it again, and
    goes back to where it belongs by now: so a key may change with time, but what hides behind others stays there.
    """

    def __init__(self, key: Callable[[Program], Key]) -> None:
        self._key = key
        self._heap: list[tuple[Key, int, ProgramId]] = []
        self._keys: dict[ProgramId, tuple[Key, Program]] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def put(self, program: Program) -> None:
        """It holds something, or something else than before."""
        self._enter(program, _turned(self._key(program)))

    def remove(self, program: Program) -> None:
        """It holds nothing any more; unknown ones are ignored."""
        self._keys.pop(program.id, None)

    def first(self) -> Iterator[Program]:
        """A few of them, whoever gives way first before the others. Nothing may change while it is gone through."""
        passed: list[tuple[Key, int, ProgramId]] = []
        try:
            for _ in range(4 * LOOKED_AT):
                found = self._next()
                if found is None or len(passed) >= LOOKED_AT:
                    return
                key, program = found
                fresh = _turned(self._key(program))
                if fresh > key:  # it gives way later than when it was put here
                    heapq.heappop(self._heap)
                    self._enter(program, fresh)
                    continue
                passed.append(heapq.heappop(self._heap))
                yield program
        finally:
            for entry in passed:
                heapq.heappush(self._heap, entry)

    def __repr__(self) -> str:
        return f"<Givers {len(self)}>"

    def _enter(self, program: Program, key: Key) -> None:
        self._keys[program.id] = (key, program)
        heapq.heappush(self._heap, (key, program.number, program.id))
        if len(self._heap) > 4 * len(self._keys) + 64:  # those that were replaced or have left
            self._heap = [(each, one.number, name) for name, (each, one) in self._keys.items()]
            heapq.heapify(self._heap)

    def _next(self) -> tuple[Key, Program] | None:
        while self._heap:
            key, _, name = self._heap[0]
            known = self._keys.get(name)
            if known is not None and known[0] == key:
                return known
            heapq.heappop(self._heap)
        return None


def _turned(key: Key) -> Key:
    """The largest key first."""
    return tuple(-each for each in key)
