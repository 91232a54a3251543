"""Where calls wait for one another: for a free place, and for earlier calls of their turn. Any thread, any loop."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from ...tools.contracts import Touch, waits

Pass = Future  # what a call waits on; done when it may go on
TURNS = 1024
"""Turns remembered at most: one whose calls never came must not stay for ever."""


def when_all(futures: Sequence[Pass[Any]], then: Callable[[], object]) -> None:
    """Has it called when all are done, at once if they are."""
    left = len(futures)
    if not left:
        then()
        return
    lock = threading.Lock()

    def one(_: Future[Any]) -> None:
        nonlocal left
        with lock:
            left -= 1
            last = not left
        if last:
            then()

    for each in futures:
        each.add_done_callback(one)


class Slots:
    """At most so many at once under each key; who waits is served in order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken: dict[Hashable, int] = {}
        self._queue: dict[Hashable, deque[Pass[None]]] = {}

    def ask(self, key: Hashable, room: int) -> Pass[None]:
        """Done when there is a place, which is the caller's until `leave`."""
        asked: Pass[None] = Future()
        with self._lock:
            if self._taken.get(key, 0) < room:
                self._taken[key] = self._taken.get(key, 0) + 1
                asked.set_result(None)
            else:
                self._queue.setdefault(key, deque()).append(asked)
        return asked

    def leave(self, key: Hashable) -> None:
        """Gives a place to whoever has waited longest."""
        while True:
            with self._lock:
                queue = self._queue.get(key)
                if not queue:
                    self._queue.pop(key, None)
                    self._taken[key] -= 1
                    if not self._taken[key]:
                        del self._taken[key]
                    return
                heir = queue.popleft()
            if heir.set_running_or_notify_cancel():
                heir.set_result(None)
                return

    def forget(self, key: Hashable, asked: Pass[None]) -> None:
        """Who asked goes away, with or without a place."""
        if not asked.cancel():
            self.leave(key)

    def __repr__(self) -> str:
        return f"<Slots {sum(self._taken.values())} taken, {sum(map(len, self._queue.values()))} waiting>"


class Turns:
    """Calls of one turn, in the order in which the model wrote them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns: OrderedDict[Hashable, _Turn] = OrderedDict()

    def expect(self, turn: Hashable, touches: Sequence[Touch]) -> None:
        """All these calls will come. Without this, a call waits only for those that are there already."""
        with self._lock:
            self._turn(turn, touches).expected = True

    def enter(self, turn: Hashable, place: int, touches: Sequence[Touch], run: object = None) -> Pass[bool]:
        """Done when the call at this place may begin; False: one that it waited for was put off, so it must be too.

        What was put off in one run comes again in another.
        """
        asked: Pass[bool] = Future()
        with self._lock:
            one = self._turn(turn, touches)
            one.begin(run)
            one.here.add(place)
            one.over.discard(place)  # a node that runs again makes its calls again
            one.asking[place] = asked
            ready = one.ready()
        _tell(ready)
        return asked

    def answer(self, turn: Hashable, place: int, run: object) -> Any | None:
        """What came of the call in an earlier run, where another of its turn was put off and the node runs again."""
        with self._lock:
            one = self._turns.get(turn)
            if one is None:
                return None
            one.begin(run)
            return one.before.get(place)

    def leave(self, turn: Hashable, place: int, answer: Any | None = None, *, put_off: bool = False) -> None:
        """The call is over, or put off until its node runs again; those behind it may begin."""
        with self._lock:
            one = self._turns.get(turn)
            if one is None:
                return
            one.here.discard(place)
            one.asking.pop(place, None)
            (one.put_off if put_off else one.over).add(place)
            if answer is not None:
                one.answers[place] = answer
            ready = one.ready()
            if not one.here and not one.put_off and (not one.expected or len(one.over) == one.size):
                del self._turns[turn]
        _tell(ready)

    def _turn(self, turn: Hashable, touches: Sequence[Touch]) -> _Turn:
        if turn not in self._turns:
            self._turns[turn] = _Turn(touches)
            if len(self._turns) > TURNS:
                idle = next((each for each, one in self._turns.items() if not one.here), None)
                if idle is not None and idle != turn:
                    del self._turns[idle]
        return self._turns[turn]

    def __repr__(self) -> str:
        return f"<Turns {len(self._turns)}>"


class _Turn:
    """One turn's calls: those here, those over, those that ask to begin."""

    def __init__(self, touches: Sequence[Touch]) -> None:
        self.size = len(touches)
        self.waits = waits(touches)
        self.expected = False
        self.run: object = None
        """The run of the graph in which its calls are made; kept, so that no other is taken for it."""
        self.here: set[int] = set()
        self.over: set[int] = set()
        self.put_off: set[int] = set()
        self.asking: dict[int, Pass[bool]] = {}
        self.answers: dict[int, Any] = {}
        """In this run."""
        self.before: dict[int, Any] = {}
        """What came of its calls in the runs before this one."""

    def begin(self, run: object) -> None:
        """What was put off in one run comes again in another, and what was answered is."""
        if self.run is not run:
            self.run, self.before = run, {**self.before, **self.answers}
            self.answers = {}
            self.put_off.clear()

    def ready(self) -> list[tuple[Pass[bool], bool]]:
        """Takes out those that need not wait any more."""
        found = []
        for place in sorted(self.asking):
            before = self.waits[place]
            if before & self.put_off:
                found.append((self.asking.pop(place), False))
            elif not any(one in self.here or (self.expected and one not in self.over) for one in before):
                found.append((self.asking.pop(place), True))
        return found


def _tell(ready: Sequence[tuple[Pass[bool], bool]]) -> None:
    for asked, go in ready:
        if asked.set_running_or_notify_cancel():
            asked.set_result(go)
