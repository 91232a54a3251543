"""The turns of one request, read side by side; whoever leaves ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from ...tracing import Open, parent_of_headers
from ..answer import Answering
from ..calling import calling, tell_answer
from ..errors import HostClosed, SostenutoError
from ..host import Host
from ..ticket import Piece
from .http_answer import Part
from .http_wanted import Question, Wanted


class ClientGone(SostenutoError):
    """Nobody listens any more."""


@dataclass(frozen=True, slots=True)
class Turns:
    """What a request wants of a host, and under which span of the caller's it stands."""

    host: Host
    wanted: Wanted
    headers: dict[str, str]

    async def parts(self, receive: Receive) -> AsyncGenerator[Part]:
        """The parts of all choices as they come. Whoever closes this early cancels every turn.

        `receive` is the request's, whose body has been read: it tells when the client leaves; then ClientGone. Any
        turn's error ends the others.
        """
        told: asyncio.Queue[Part | asyncio.Future[Any]] = asyncio.Queue()
        entry = asyncio.Lock()
        turns = [asyncio.create_task(self._read(index, entry, told)) for index in range(len(self.wanted.questions))]
        left = asyncio.create_task(_left(receive))
        for task in (*turns, left):
            task.add_done_callback(told.put_nowait)  # so an end comes behind all that was told before it
        open_turns = len(turns)
        try:
            while open_turns:
                part = await told.get()
                if isinstance(part, Part):
                    yield part
                elif part is left:
                    raise ClientGone("the client has left")
                else:
                    part.result()
                    open_turns -= 1
        finally:
            await _end(*turns, left)

    async def _read(self, index: int, entry: asyncio.Lock, told: asyncio.Queue[Any]) -> None:
        question = self.wanted.questions[index]
        with self._span(question) as span:
            async with entry:  # in order: of siblings it is always the first that computes the prompt
                answering = await self._asked(question)
            try:
                async for chunk in answering.ticket:
                    deltas = answering.take(chunk)
                    piece = chunk if isinstance(chunk, Piece) else None
                    if self.wanted.stream and piece is not None:
                        span.chunk()
                    if answering.answer is None or answering.answer.reason != "abort":
                        told.put_nowait(Part(index, deltas, piece, answering.answer))
            finally:
                answering.ticket.cancel()
            if answering.answer is not None and answering.answer.reason == "abort":
                raise HostClosed("the server broke this answer off, since it is about to end: ask again later")
            if answering.answer is not None:
                tell_answer(span, answering.answer, self.host)

    def _span(self, question: Question) -> AbstractContextManager[Open]:
        session, parent = self.wanted.caller.session or None, parent_of_headers(self.headers)
        return calling(
            self.host, question.ask, conversation=session, stream=self.wanted.stream, served=True, parent=parent
        )

    async def _asked(self, question: Question) -> Answering:
        """Hand the question in. A long prompt or a new grammar takes time, so others are served meanwhile."""
        asked = asyncio.ensure_future(asyncio.to_thread(self._hand_in, question))
        try:
            return await asyncio.shield(asked)
        except asyncio.CancelledError:
            asked.add_done_callback(_cancel)  # it may still be on its way in
            raise

    def _hand_in(self, question: Question) -> Answering:
        if question.tokens is None:
            return self.host.ask(question.ask)
        return self.host.resume(question.ask, question.tokens)


async def _end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel what is not over, and wait until it is: spans are closed then, and turns given up."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _cancel(asked: asyncio.Future[Answering]) -> None:
    if not asked.cancelled() and asked.exception() is None:
        asked.result().ticket.cancel()
