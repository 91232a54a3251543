"""Turns wait at the door until tiers to which others write have said what they have of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container
from dataclasses import replace

from ..kvstore import BlockHash, Link, find, links
from ..scheduler import Arrived, Closed, Event, Kernel, TurnId
from .mover import Mover


class Seeker:
    """Lets turns into the schedule, at once where no tier needs to be asked. Everything happens in the loop.

    `alive` are the turns that somebody still wants; `post` tells the kernel; `root` names a turn's root as it is now,
    for weights may change while it waits.
    """

    def __init__(
        self,
        kernel: Kernel,
        mover: Mover,
        *,
        alive: Container[TurnId],
        post: Callable[[Event], object],
        root: Callable[[TurnId], str],
    ) -> None:
        self._kernel = kernel
        self._mover = mover
        self._alive = alive
        self._post = post
        self._root = root
        self._waiting: dict[TurnId, Arrived] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def arrive(self, arrived: Arrived) -> None:
        """A turn has come."""
        # What is left of a thinned context lies on the device, or nowhere.
        unknown = self._unknown(arrived) if self._mover.shared and not arrived.least else ()
        if not unknown:
            self._post(arrived)
            return
        self._waiting[arrived.turn] = arrived
        task = asyncio.get_running_loop().create_task(self._seek(arrived.turn, unknown))
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def before(self, event: Event) -> None:
        """Whoever closes a program closes it for the turns too that came before that."""
        if isinstance(event, Closed):
            for arrived in [one for one in self._waiting.values() if one.program == event.program]:
                self._enter(arrived.turn)

    def _unknown(self, arrived: Arrived) -> tuple[Link, ...]:
        """Full blocks of a turn, but for the token that is computed in any case, of which nobody here knows.

        Those of every group of layers, wherever they lie: what a window looks at depends on how much is found.
        """
        ledger, elsewhere = self._kernel.ledger, self._kernel.moves.elsewhere
        root, page = BlockHash(bytes.fromhex(arrived.root)), ledger.page
        known = arrived.tokens[: (len(arrived.tokens) - 1) // page * page]
        if find(ledger, root, known).tokens(page) == len(known):
            return ()
        roots = ledger.groups.roots(root)
        every = (each for at in roots for each in links(known, page, at)[len(ledger.match(at, known).pages) :])
        return tuple(each for each in every if not any(elsewhere.has(tier, each.name) for tier in elsewhere.tiers))

    async def _seek(self, turn: TurnId, unknown: tuple[Link, ...]) -> None:
        await self._mover.seek(unknown)
        self._enter(turn)

    def _enter(self, turn: TurnId) -> None:
        arrived = self._waiting.pop(turn, None)
        if arrived is not None and turn in self._alive:
            self._post(replace(arrived, root=self._root(turn)))

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.result()  # a fault of ours: whoever watches the loop must hear of it
