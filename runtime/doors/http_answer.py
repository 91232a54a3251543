"""What the answers of both completion routes have in common: their head, their usage, their single tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from ...tools import Delta
from ..answer import Answer
from ..ticket import Facts, Piece
from .http_wanted import Wanted

_BROKEN = "\ufffd"
"""What decoding gives for bytes that are no whole character."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one chunk added to one choice; the last has the answer."""

    choice: int
    deltas: Sequence[Delta] = ()
    piece: Piece | None = None
    answer: Answer | None = None

    @property
    def token(self) -> int | None:
        return None if self.piece is None else self.piece.token


class Form(Protocol):
    """How the answers of a request are put into JSON. Everything is `take`n, whichever way it is told then."""

    def begin(self) -> list[dict[str, Any]]: ...
    def take(self, part: Part) -> list[dict[str, Any]]: ...
    def end(self) -> list[dict[str, Any]]: ...
    def whole(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Stamp:
    """What stands at the head of a response and of each of its chunks."""

    id: str
    created: int
    """Unix time in seconds."""
    model: str
    fingerprint: str
    cached: bool = True
    """The engine tells how much of a prompt it found in its cache; else nothing is said of it."""

    def head(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def usage(self, answers: Iterable[Answer | None], wanted: Wanted) -> dict[str, Any]:
        """What the request used, as far as its answers have come."""
        return usage_of([answer.facts for answer in answers if answer is not None], wanted, cached=self.cached)

    def last(self, kind: str, answers: Iterable[Answer | None], wanted: Wanted) -> list[dict[str, Any]]:
        """The chunk with which a stream ends where its usage is wanted."""
        return [{**self.head(kind), "choices": [], "usage": self.usage(answers, wanted)}] if wanted.usage else []


def usage_of(facts: Sequence[Facts], wanted: Wanted, *, cached: bool) -> dict[str, Any]:
    """What a request used. A prompt counts once, however many answers it has; what is said adds up.

    Of a prompt with several answers that many tokens were cached as the answer found that found fewest: what the
    others found beyond that was computed for this request.
    """
    groups = [facts[start : start + wanted.each] for start in range(0, len(facts), wanted.each)]
    prompt = sum(group[0].prompt_tokens for group in groups)
    said = sum(each.said_tokens for each in facts)
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
    if cached:
        found = sum(min(each.reused_tokens for each in group) for group in groups)
        usage["prompt_tokens_details"] = {"cached_tokens": found}
    return usage


class Spelling:
    """Single tokens as text and bytes. `tokenizer` is None for an engine that takes no token ids."""

    def __init__(self, tokenizer: Any, eos: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._eos = frozenset(eos)
        self.bytes = lru_cache(maxsize=65_536)(self._bytes)

    def tells(self, part: Part) -> bool:
        """Whether a part brings a token that is told: what ends an answer is not."""
        return part.token is not None and part.token not in self._eos

    def text(self, token: int | None) -> str:
        """What the token says; broken characters are shown as such."""
        return "" if token is None else self.bytes(token).decode("utf-8", "replace")

    def entry(self, piece: Piece, alternatives: int) -> dict[str, Any]:
        """A token with its log probability, as a chat completion tells it."""
        assert piece.token is not None  # see `tells`
        top = [self._one(token, logprob) for token, logprob in piece.top[:alternatives]]
        return {**self._one(piece.token, piece.logprob), "top_logprobs": top}

    def _one(self, token: int, logprob: float) -> dict[str, Any]:
        return {"token": self.text(token), "logprob": logprob, "bytes": list(self.bytes(token))}

    def _bytes(self, token: int) -> bytes:
        text = str(self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))
        if _BROKEN not in text:
            return text.encode()
        # A part of a character: tokenizers write it as <0xE2>, or in the byte-level alphabet.
        name = str(self._tokenizer.convert_ids_to_tokens(token))
        if name.startswith("<0x") and name.endswith(">"):
            return bytes([int(name[3:-1], 16)])
        return bytes(_ALPHABET[letter] for letter in name if letter in _ALPHABET)


def _alphabet() -> dict[str, int]:
    """The byte-level alphabet: printable bytes stand for themselves, the others are moved up, in order."""
    plain = [n for n in range(256) if 33 <= n <= 126 or 161 <= n <= 172 or 174 <= n <= 255]
    others = [n for n in range(256) if n not in plain]
    return {chr(n): n for n in plain} | {chr(256 + place): n for place, n in enumerate(others)}


_ALPHABET = _alphabet()
