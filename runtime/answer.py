"""An answer, and how it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..tools import Call, Delta, Outcome, Parser, Prose, TextDelta
from .engines import End
from .ticket import Chunk, Facts, Piece, Ticket


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it. An answer that goes on is told from its beginning, but for what belongs to single tokens."""

    outcome: Outcome
    text: str
    """All of it as the model wrote it, calls included."""
    pieces: tuple[Piece, ...]
    """The tokens said this time; empty where an engine gives none."""
    reason: End
    facts: Facts

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(piece.token for piece in self.pieces if piece.token is not None)

    @property
    def logprobs(self) -> tuple[float, ...]:
        return tuple(piece.logprob for piece in self.pieces)

    @property
    def top(self) -> tuple[tuple[tuple[int, float], ...], ...]:
        return tuple(piece.top for piece in self.pieces)

    @property
    def calls(self) -> tuple[Call, ...]:
        return self.outcome.calls


class Answering:
    """An answer while it comes: read `ticket` in the manner of your world, and feed each chunk to `take`."""

    def __init__(
        self,
        ticket: Ticket,
        parser: Parser | Prose,
        prompt: tuple[int, ...] = (),
        before: str = "",
        *,
        hears: Callable[[Chunk], object] = lambda chunk: None,
    ) -> None:
        """`before` is the text of an answer that goes on, as far as it went.

        `hears` is called with each chunk before anybody else learns of it; what it raises ends the answer.
        """
        self.ticket = ticket
        self.prompt = prompt
        self.answer: Answer | None = None
        self._hears = hears
        self._parser = parser
        self._text = [before]
        self._pieces: list[Piece] = []
        self._out = _prose(parser.feed(before))  # characters of text outside of calls that went out

    def take(self, chunk: Chunk) -> list[Delta]:
        """What the chunk adds, in the vocabulary of tool calls; after the last one `answer` is there."""
        try:
            self._hears(chunk)
        except BaseException:
            self.ticket.cancel()
            raise
        if isinstance(chunk, Piece):
            self._text.append(chunk.text)
            if chunk.token is not None:
                self._pieces.append(chunk)
            deltas = self._parser.feed(chunk.text)
            self._out += _prose(deltas)
            return deltas
        outcome = self._parser.finish(truncated=chunk.reason != "stop")
        self.answer = Answer(outcome, "".join(self._text), tuple(self._pieces), chunk.reason, chunk.facts)
        rest = outcome.text[self._out :]  # held back as the possible beginning of a call
        return [TextDelta(rest)] if rest else []

    def wait(self) -> Answer:
        """Read to the end on this thread."""
        for chunk in self.ticket:
            self.take(chunk)
        return self._done()

    async def arrive(self) -> Answer:
        """Read to the end in this coroutine."""
        async for chunk in self.ticket:
            self.take(chunk)
        return self._done()

    def _done(self) -> Answer:
        assert self.answer is not None  # a ticket ends with `Ended` or raises
        return self.answer


def _prose(deltas: Sequence[Delta]) -> int:
    return sum(len(delta.text) for delta in deltas if isinstance(delta, TextDelta))
