"""One branch's place in a grammar, whatever engine keeps it: what every backend shares but the engine itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

from ..errors import GrammarRefused
from ..grammar import Enforced


class Matcher(Protocol):
    """An engine's own state. What it says of tokens is taken as it is."""

    def mask(self) -> bytes:
        """Of whole words of 32 tokens. Raises GrammarRefused when the engine gives up."""
        ...

    def take(self, token: int) -> bool:
        """False, and nothing changed, for a token that may not come."""
        ...

    def back(self, tokens: int) -> None:
        """Raises GrammarRefused when the engine cannot."""
        ...

    def copy(self) -> Self: ...

    @property
    def stopped(self) -> bool: ...

    @property
    def accepting(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Free:
    """Free text: its mask, and the tokens that mask forbids though they may come."""

    mask: bytes
    refused: frozenset[int]


@dataclass(frozen=True, slots=True)
class Template:
    """A compiled grammar before its first token; its matcher is never fed, only copied."""

    matcher: Matcher
    eos: frozenset[int]
    vocab: int
    text: str
    enforced: Enforced
    free: Free | None

    def fresh(self) -> Following:
        return Following(self, self.matcher.copy(), [], False)

    @property
    def size(self) -> int:
        """Bytes of a mask: whole words of 32 tokens."""
        return (self.vocab + 31) // 32 * 4

    @property
    def only_end(self) -> bytes:
        return sum(1 << token for token in self.eos).to_bytes(self.size, "little")


class Following:
    """One branch's state. `enforced` is "partial" where `residual` names what only validation can check."""

    def __init__(self, template: Template, matcher: Matcher, past: list[bool], ended: bool) -> None:
        self._template = template
        self._matcher = matcher
        self._past = past  # for every accepted token: did the matcher take it?
        self._ended = ended
        self._mask: bytes | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} after {len(self._past)} tokens, {'done' if self.done else 'open'}>"

    @property
    def enforced(self) -> Enforced:
        """How much of its schemas it holds to."""
        return self._template.enforced

    @property
    def source(self) -> str:
        """The grammar from its start, for the same engine in another process, as that engine writes it."""
        return self._template.text

    @property
    def done(self) -> bool:
        """Nothing but the end may follow."""
        return self._ended or self._matcher.stopped

    @property
    def accepting(self) -> bool:
        """The text could end here."""
        return self._ended or self._matcher.accepting

    def mask(self) -> bytes | None:
        """See Grammar. Raises GrammarRefused when the engine gives up on the state it is in."""
        if self.done:
            return self._template.only_end
        mask = self._computed()
        free = self._template.free
        return None if free is not None and mask == free.mask else mask[: self._template.size]

    def accept(self, token: int) -> bool:
        """See Grammar. The end token is accepted where the text may end, and nothing after it."""
        if self._ended:
            return False
        if token in self._template.eos:
            if not self.accepting:
                return False
            self._ended = True
            self._past.append(False)
            return True
        free = self._template.free
        if free is not None and token in free.refused and not self.done and self._computed() == free.mask:
            self._past.append(False)
            return True
        if not 0 <= token < self._template.vocab or not self._matcher.take(token):
            return False
        self._past.append(True)
        self._mask = None
        return True

    def rollback(self, tokens: int) -> None:
        """See Grammar."""
        if not 0 <= tokens <= len(self._past):
            raise ValueError(f"cannot take back {tokens} of {len(self._past)} tokens accepted")
        if not tokens:
            return
        undone = self._past[-tokens:]
        del self._past[-tokens:]
        self._ended = False
        self._mask = None
        if any(undone):
            self._matcher.back(sum(undone))

    def fork(self) -> Self:
        """See Grammar."""
        return type(self)(self._template, self._matcher.copy(), list(self._past), self._ended)

    def _computed(self) -> bytes:
        if self._mask is None:
            self._mask = self._matcher.mask()
            if not any(self._mask):
                # Where nothing at all may come, whoever applies the mask would draw from nothing.
                raise GrammarRefused("the next token", "no token of this model can go on from here")
        return self._mask
