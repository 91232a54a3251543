"""What a grammar must do: mask, accept, roll back, fork."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, Self

from .dialects import Dialect
from .places import Json
from .spec import Choice, Tool


@dataclass(frozen=True, slots=True)
class Enforced:
    """How much of a schema a grammar holds a model to. The validator holds it to the rest, before anything runs."""

    residual: tuple[str, ...] = ()
    """The keywords that the grammar leaves out, in order of their names."""

    @property
    def kind(self) -> Literal["full", "partial"]:
        return "partial" if self.residual else "full"


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

    def check(self, tool: Tool) -> Enforced:
        """How much of the tool's schema a grammar will hold a model to.

        Raises GrammarRefused where there can be no grammar, and for a strict tool where it would leave something out.
        """
        ...

    def tools(self, tools: Sequence[Tool], choice: Choice, dialect: Dialect, *, parallel: bool) -> Grammar | None:
        """The grammar of a turn that may call these tools; None when nothing is to be constrained."""
        ...

    def least(self, tools: Sequence[Tool], choice: Choice, dialect: Dialect, *, enough: int) -> int:
        """Tokens below which there is no whole answer, where the choice wants a call.

        Never more than the shortest call takes, perhaps less; 0 where `enough` are plainly enough.
        """
        ...

    def schema(self, schema: Mapping[str, Json]) -> Grammar:
        """The grammar of an answer that is one JSON value of this schema."""
        ...
