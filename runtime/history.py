"""A conversation's tokens, and what they are: heard, said, or fed as they come. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..tools import Call
from .ask import Message
from .sampling import Sampling


@dataclass(frozen=True, slots=True)
class Heard:
    """Messages of others, as the template wrote them."""

    start: int
    stop: int
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Fed:
    """Tokens of which only the caller knows what they mean."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the model, or its beginning."""

    start: int
    stop: int
    sampling: Sampling
    whole: bool
    """It came to its end; else it can go on."""


@dataclass(frozen=True, slots=True)
class History:
    """Every change gives a new one, so that an old one can be gone back to. Its parts cover all tokens in order."""

    tokens: tuple[int, ...] = ()
    parts: tuple[Heard | Fed | Said, ...] = ()

    @property
    def said(self) -> int:
        """Tokens of an answer that can go on, at the end."""
        begun = self.begun
        return 0 if begun is None else begun.stop - begun.start

    @property
    def begun(self) -> Said | None:
        """The answer at the end that can go on."""
        last = self.parts[-1] if self.parts else None
        return last if isinstance(last, Said) and not last.whole else None

    def fed(self, tokens: Sequence[int]) -> History:
        """With tokens behind it."""
        if not tokens:
            return self
        at = len(self.tokens)
        return History((*self.tokens, *tokens), (*self._ended(), Fed(at, at + len(tokens))))

    def read(self, messages: tuple[Message, ...], tokens: tuple[int, ...]) -> History:
        """With messages behind it, where `tokens` is the whole conversation as the template writes it now."""
        at = len(self.tokens)
        if tokens[:at] == self.tokens:
            return History(tokens, (*self._ended(), Heard(at, len(tokens), messages)))
        known = self.messages() or []  # the past was written anew: its parts have no places of their own any more
        return History(tokens, (Heard(0, len(tokens), (*known, *messages)),))

    def spoken(self, tokens: Sequence[int], sampling: Sampling, *, whole: bool) -> History:
        """With what the model said behind it; an answer that could go on has done so."""
        begun, at = self.begun, len(self.tokens)
        if begun is not None:
            last = replace(begun, stop=at + len(tokens), whole=whole)
            return History((*self.tokens, *tokens), (*self.parts[:-1], last))
        if not tokens:
            return self
        return History((*self.tokens, *tokens), (*self.parts, Said(at, at + len(tokens), sampling, whole)))

    def cut(self, length: int) -> History:
        """Its first `length` tokens. An answer that is cut can go on; ValueError unless 0 <= length <= all."""
        if not 0 <= length <= len(self.tokens):
            raise ValueError(f"found {length}; this conversation has {len(self.tokens)} tokens: give 0 to so many")
        parts: list[Heard | Fed | Said] = []
        for part in self.parts:
            if part.start >= length:
                break
            if part.stop <= length:
                parts.append(part)
            elif isinstance(part, Said):
                parts.append(replace(part, stop=length, whole=False))
            else:
                parts.append(Fed(part.start, length))
        return History(self.tokens[:length], tuple(parts))

    def reseeded(self, seed: int) -> History:
        """An answer that goes on draws with another seed from here."""
        begun = self.begun
        if begun is None:
            return self
        return replace(self, parts=(*self.parts[:-1], replace(begun, sampling=replace(begun.sampling, seed=seed))))

    def messages(self) -> list[Message] | None:
        """The conversation as messages; None where a part of it was fed as tokens."""
        told: list[Message] = []
        for part in self.parts:
            match part:
                case Heard(messages=messages):
                    told.extend(messages)
                case Said(start=start, stop=stop):
                    told.append(Message("assistant", "", tokens=self.tokens[start:stop]))
                case Fed():
                    return None
        return told

    def _ended(self) -> tuple[Heard | Fed | Said, ...]:
        begun = self.begun
        return self.parts if begun is None else (*self.parts[:-1], replace(begun, whole=True))


def plain(history: History) -> dict[str, Any]:
    """A history as JSON can hold it."""
    parts = [{"kind": type(part).__name__, **asdict(part)} for part in history.parts]
    return {"tokens": list(history.tokens), "parts": parts}


def history_of(record: Mapping[str, Any]) -> History:
    """The history that `plain` made. Raises KeyError, TypeError and ValueError for anything else."""
    return History(tuple(record["tokens"]), tuple(_part(dict(part)) for part in record["parts"]))


def _part(record: dict[str, Any]) -> Heard | Fed | Said:
    match record.pop("kind"):
        case "Heard":
            return Heard(record["start"], record["stop"], tuple(_message(each) for each in record["messages"]))
        case "Said":
            sampling = record["sampling"]
            drawn = Sampling(**sampling | {"stop": tuple(sampling["stop"])})
            return Said(record["start"], record["stop"], drawn, record["whole"])
        case "Fed":
            return Fed(**record)
        case other:
            raise ValueError(f"found a part {other!r}; a conversation has Heard, Fed and Said")


def _message(record: Mapping[str, Any]) -> Message:
    calls = tuple(Call(**each) for each in record["calls"])
    return Message(**{**record, "calls": calls, "tokens": tuple(record["tokens"])})
