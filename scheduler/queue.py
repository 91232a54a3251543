"""Turns that wait, in the order that a policy gives them."""

from __future__ import annotations

import heapq

from .events import TurnId
from .turn import Turn


class Queue:
    """A heap in which a turn may stand more than once: only the entry with its present key counts."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[float, ...], int, TurnId]] = []
        self._turns: dict[TurnId, Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def put(self, turn: Turn, key: tuple[float, ...]) -> None:
        """Let a turn wait, or move it to another place."""
        turn.key = key
        self._turns[turn.arrived.turn] = turn
        heapq.heappush(self._heap, (key, turn.number, turn.arrived.turn))

    def get(self, name: TurnId) -> Turn | None:
        """A turn that waits."""
        return self._turns.get(name)

    def remove(self, name: TurnId) -> None:
        """It waits no longer; unknown ones are ignored."""
        self._turns.pop(name, None)

    def first(self) -> Turn | None:
        """Who is next."""
        while self._heap:
            key, _, name = self._heap[0]
            turn = self._turns.get(name)
            if turn is not None and turn.key == key:
                return turn
            heapq.heappop(self._heap)
        return None
