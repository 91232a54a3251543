"""Who hears of a checkpointer's checkpoints."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from typing import Any, Protocol

from .langgraph_saver_edit import Pair

_log = logging.getLogger(__name__)


class Listener(Protocol):
    """Is called on whatever thread made the saver's call, and must not block; what it raises is logged."""

    def bound(
        self,
        thread: str,
        namespace: str,
        checkpoint: str,
        parent: str | None,
        *,
        step: int,
        source: str,
        run: str | None,
    ) -> None:
        """A checkpoint was saved; `run` is known if the caller named its run."""

    def opened(self, thread: str, namespace: str, checkpoint: str) -> None:
        """Somebody asked for this very checkpoint, perhaps only to look at it."""

    def dropped(self, thread: str, checkpoints: Collection[Pair] | None) -> None:
        """Checkpoints are gone, each named by its namespace and id; None if the whole thread is."""

    def copied(self, source: str, target: str) -> None:
        """A thread has all checkpoints of another, under the same ids."""


def tell(listeners: Iterable[Listener], what: str, *arguments: Any, **told: Any) -> None:
    """Calls each; that one fails breaks neither the others nor the save."""
    for listener in listeners:
        try:
            getattr(listener, what)(*arguments, **told)
        except Exception:  # a listener may raise anything: what is saved is saved
            _log.exception("%r failed at %s%r", listener, what, arguments)
