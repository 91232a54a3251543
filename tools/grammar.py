"""What a grammar must do: mask, accept, roll back, fork."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, Self

from .dialects import Dialect
from .places import Json
from .spec import Choice, Tool


class Grammar(Protocol):
    """Follows one branch token by token; a fork follows its own."""

    def mask(self) -> bytes | None:
        """The tokens that may come next: bit i of byte i // 8 (lowest first) is token i, 1 = allowed.

        Four bytes for every 32 tokens of the vocabulary, rounded up. None: every token is allowed and would
        be accepted, so nothing need be applied. Never changes the state.
        """
        ...

    def accept(self, token: int) -> bool:
        """Take a token; False, and the state as it was, when it may not come here."""
        ...

    def rollback(self, tokens: int) -> None:
        """Take back the last tokens accepted, the end token too. Raises ValueError beyond the start."""
        ...

    def fork(self) -> Self:
        """A copy that goes its own way, history included."""
        ...

    @property
    def done(self) -> bool:
        """Nothing but the end may follow."""
        ...

    @property
    def accepting(self) -> bool:
        """The text could end here."""
        ...


class Compiler(Protocol):
    """Builds grammars; what it builds for equal input may share work but never state."""

    def tools(self, tools: Sequence[Tool], choice: Choice, dialect: Dialect, *, parallel: bool) -> Grammar | None:
        """The grammar of a turn that may call these tools; None when nothing is to be constrained."""
        ...

    def schema(self, schema: Mapping[str, Json]) -> Grammar:
        """The grammar of an answer that is one JSON value of this schema."""
        ...
