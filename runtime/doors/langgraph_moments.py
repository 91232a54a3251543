"""Which contexts belong to which checkpoints of a graph: going back to one finds its keys and values.

A model's context is marked when the model has answered, inside the superstep. The checkpoint that the superstep makes
is saved later, on another thread, perhaps beside the next superstep: saving only binds. What joins the two is the
checkpoint from which the superstep departs, which the model's configuration names and the saver is given as parent.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import count

from ...kvstore import RAW
from ..host import Host
from .langgraph_saver import BoundSaver, Listener
from .langgraph_whence import Whence

Place = tuple[str, str, str]
"""Thread, namespace, checkpoint."""


@dataclass(slots=True)
class _Context:
    """A marked context, kept as long as a checkpoint stands behind it."""

    host: Host
    key: str
    owners: set[Place] = field(default_factory=set)


class Moments(Listener):
    """Hears of model calls from the door, and of checkpoints from the saver. `repr` counts both."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._coming: dict[Place, dict[str, _Context]] = {}
        """By the checkpoint departed from, then by line of conversation: one that is made again replaces itself."""
        self._bound: dict[Place, dict[str, _Context]] = {}

    def came(self, whence: Whence, host: Host, tokens: Sequence[int], *, codec: str = RAW) -> None:
        """A model has answered: `tokens` is all that its context holds."""
        thread, levels = whence.thread, whence.departs
        if thread is None or not isinstance(whence.saver, BoundSaver) or not whence.saver.tells(self):
            return  # no checkpoint will be saved of which we would hear
        context = _Context(host, f"{whence.tenant}/{thread}@{id(self)}.{next(self._numbers)}")
        host.mark(context.key, tokens, tenant=whence.tenant, codec=codec)
        with self._lock:
            for namespace, checkpoint in levels.items():
                place = (str(thread), namespace, checkpoint)
                context.owners.add(place)
                before = self._coming.setdefault(place, {}).get(whence.branch)
                self._coming[place][whence.branch] = context
                if before is not None:
                    self._leave(before, place)

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
        """What came on the way from its parent belongs to this checkpoint."""
        place = (thread, namespace, checkpoint)
        before = (thread, namespace, parent or "")
        with self._lock:
            # What its parent stands behind, it stands behind too, until the same line of conversation goes on.
            contexts = dict(self._bound.get(before, {}))
            for one in self._departed(before, checkpoint) if source == "loop" else ():
                came = self._coming.pop(one)
                contexts |= came
                for context in came.values():
                    context.owners.add(place)
                    self._leave(context, one)
            for context in contexts.values():
                context.owners.add(place)
            if contexts:
                self._bound[place] = contexts

    def _departed(self, before: Place, checkpoint: str) -> list[Place]:
        if before in self._coming:
            return [before]
        # With durability="exit" the steps between are never saved: the last one stands for them all. A step that has
        # begun since departs from this checkpoint or a later one, and ids grow.
        return [one for one in self._coming if one[:2] == before[:2] and one[2] < checkpoint]

    def over(self, thread: str) -> None:
        """A run has ended, and all its checkpoints are saved: what is not bound now never will be."""
        with self._lock:
            for place in [place for place in self._coming if place[0] == thread]:
                for context in self._coming.pop(place).values():
                    self._leave(context, place)

    def opened(self, thread: str, namespace: str, checkpoint: str) -> None:
        """Perhaps somebody only looks."""

    def dropped(self, thread: str, checkpoints: Collection[tuple[str, str]] | None) -> None:
        """Contexts behind which no checkpoint stands any more are let go."""
        with self._lock:
            gone = None if checkpoints is None else {(thread, *pair) for pair in checkpoints}
            for place in [place for place in (*self._bound, *self._coming) if place[0] == thread]:
                if gone is None or place in gone:
                    for context in (*self._bound.pop(place, {}).values(), *self._coming.pop(place, {}).values()):
                        self._leave(context, place)

    def copied(self, source: str, target: str) -> None:
        """The copy's checkpoints stand behind the same contexts."""
        with self._lock:
            for (thread, *rest), contexts in list(self._bound.items()):
                if thread == source:
                    place = (target, rest[0], rest[1])
                    self._bound[place] = dict(contexts)
                    for context in contexts.values():
                        context.owners.add(place)

    def __repr__(self) -> str:
        return f"<Moments {len(self._bound)} checkpoints with contexts, {len(self._coming)} to come>"

    def _leave(self, context: _Context, place: Place) -> None:
        context.owners.discard(place)
        if not context.owners:
            context.host.unmark(context.key)
