"""Which threads are copies of which: whoever copies a thread copies no right with it."""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

from langgraph.checkpoint.base import BaseCheckpointSaver

_lock = threading.Lock()
_known: WeakKeyDictionary[BaseCheckpointSaver[Any], dict[str, str]] = WeakKeyDictionary()


def note_copy(saver: BaseCheckpointSaver[Any], source: str, target: str) -> None:
    """A thread has all checkpoints of another, as the saver's own or as made of its other calls."""
    with _lock:
        copies = _known.setdefault(saver, {})
        copies[target] = copies.get(source, source)


def copied_from(saver: object, thread: str) -> str | None:
    """The thread of which this one is a copy in the end, in this process; None where it is none, or nobody knows."""
    inner = getattr(saver, "inner", saver)
    with _lock:
        return _known.get(inner, {}).get(thread) if isinstance(inner, BaseCheckpointSaver) else None
