"""The turns of one request, read side by side; whoever leaves ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from starlette.types import Receive

from ...tracing import ModelCall, model_span, parent_of_headers
from ..answer import Answering
from ..errors import HostClosed, SostenutoError
from ..host import Host
from ..ticket import Piece
from .facts import kv_attributes
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
        with model_span(self._call(question), parent=parent_of_headers(self.headers)) as span:
            async with entry:  # in order: of siblings it is always the first that computes the prompt
                answering = await self._asked(question)
            try:
                async for chunk in answering.ticket:
                    deltas = answering.take(chunk)
                    piece = chunk if isinstance(chunk, Piece) else None
                    if answering.answer is None or answering.answer.reason != "abort":
                        told.put_nowait(Part(index, deltas, piece, answering.answer))
            finally:
                answering.ticket.cancel()
            if answering.answer is not None and answering.answer.reason == "abort":
                raise HostClosed("the server broke this answer off, since it is about to end: ask again later")
            if answering.answer is not None:
                span.set(kv_attributes(answering.answer.facts))

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

    def _call(self, question: Question) -> ModelCall:
        ask, sampling = question.ask, question.ask.sampling
        return ModelCall(
            self.host.engine.name,
            conversation=self.wanted.caller.session or None,
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k or None,
            seed=sampling.seed,
            stop=sampling.stop,
            stream=self.wanted.stream,
            output="json" if ask.schema is not None else "text",
        )


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
