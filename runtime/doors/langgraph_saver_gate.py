"""Who may touch a saved thread now: many at once may save, an edit is alone; nobody is made to wait."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import Busy


class Gate:
    """Turns away, with Busy, what would meet an edit half way; waiting could stop the loop that makes the edit."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._saving: Counter[str] = Counter()
        self._edited: set[str] = set()

    def reading(self, thread: str) -> None:
        """Raises Busy while the thread is edited."""
        with self._lock:
            self._unedited(thread)

    @contextmanager
    def saving(self, thread: str) -> Iterator[None]:
        with self._lock:
            self._unedited(thread)
            self._saving[thread] += 1
        try:
            yield
        finally:
            with self._lock:
                self._saving[thread] -= 1
                if not self._saving[thread]:
                    del self._saving[thread]

    @contextmanager
    def editing(self, thread: str) -> Iterator[None]:
        with self._lock:
            self._unedited(thread)
            if thread in self._saving:
                raise Busy(f"a run is saving to thread {thread!r}; edit the thread when its runs have ended")
            self._edited.add(thread)
        try:
            yield
        finally:
            with self._lock:
                self._edited.remove(thread)

    def _unedited(self, thread: str) -> None:
        if thread in self._edited:
            raise Busy(f"thread {thread!r} is being pruned, copied or deleted; try again when that has ended")
