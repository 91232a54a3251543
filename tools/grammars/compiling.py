"""What every backend does with tools before its engine is asked, and what it keeps of what it has built."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ..bounds import Bounds
from ..dialects import Dialect
from ..errors import GrammarRefused
from ..grammar import Enforced
from ..normal import normal
from ..places import Json
from ..schema import check_schema, closed
from ..shortest import Words, skeleton
from ..spec import Choice, Tool
from .following import Following, Template
from .leaves import Marked, Numbers
from .turns import around
from .values import PLACE, Written

CACHED = 64


@dataclass(frozen=True, slots=True)
class Prepared:
    """A schema as rules, with what they leave out; `start` is the first of them, `named` what they refer to."""

    start: str
    rules: tuple[str, ...]
    residual: tuple[str, ...] = ()
    named: tuple[tuple[str, str], ...] = ()

    def at(self, place: int) -> str:
        """The rules for the tool at this place, `value0`, `value1` and on."""
        return "\n".join([f"value{place}: {self.start}", *self.rules]).replace(PLACE, str(place))


@dataclass(frozen=True, slots=True)
class Body:
    """A call: its arguments' schema, and what stands before and after them, as rules write it."""

    head: str
    tail: str
    schema: Prepared

    def rules(self, place: int) -> str:
        return f"call{place}: {self.head} value{place} {self.tail}\n{self.schema.at(place)}"


@dataclass(frozen=True, slots=True)
class Asked:
    """What kind of an answer: free text and calls, calls alone, or without a dialect one value."""

    dialect: Dialect | None
    free: bool = False
    parallel: bool = False


class Compiling(ABC):
    """Compiles for one tokenizer. Grammars of equal content are compiled once and copied."""

    def __init__(self, *, eos: Sequence[int], vocab: int, bounds: Bounds | None) -> None:
        """`eos` is every token that ends an answer, `vocab` the rows of the model's output, which may be more than the
        tokenizer knows. Raises GrammarRefused."""
        if not eos:
            raise GrammarRefused("this tokenizer", "no end token was given")
        self._eos = frozenset(eos)
        self._vocab = vocab
        self._bounds = bounds or Bounds()
        self._compile = lru_cache(maxsize=CACHED)(self._compiled)
        self._prepare = lru_cache(maxsize=16 * CACHED)(self._prepared)
        self._prepare_marked = lru_cache(maxsize=16 * CACHED)(self._marked)

    def tools(self, tools: Sequence[Tool], choice: Choice, dialect: Dialect, *, parallel: bool) -> Following | None:
        """The grammar of a turn; None for the choice `none` and for `auto` without tools.

        `auto`: free text, and every call begun is one of these tools, valid and closed; with `parallel`, text
        and calls in any order, without it at most one call, which ends the answer. `any` and `named`: one call and
        nothing else, with `parallel` one or more. Raises GrammarRefused; for a strict tool also when a part of its
        schema could not be enforced.
        """
        offered = [tool for tool in tools if choice.mode != "named" or tool.name == choice.name]
        if choice.mode == "none" or (choice.mode == "auto" and not offered):
            return None
        if not offered:
            raise GrammarRefused(f"the choice {choice}", "no such tool is offered")
        bodies = tuple(self._call(tool, dialect) for tool in offered)
        return self._compile(Asked(dialect, choice.mode == "auto", parallel), bodies).fresh()

    def check(self, tool: Tool) -> Enforced:
        """See Compiler."""
        return self._allowed(tool, self._prepare(json.dumps(tool.parameters, ensure_ascii=False), tool.name))

    def least(self, tools: Sequence[Tool], choice: Choice, dialect: Dialect, *, enough: int) -> int:
        """See Compiler."""
        offered = [tool for tool in tools if choice.mode != "named" or tool.name == choice.name]
        made = [skeleton(tool, dialect) for tool in offered]
        if choice.mode not in ("any", "named") or not made or min(map(len, made)) <= enough:
            return 0
        return min(map(self._words.least, made))

    def schema(self, schema: Mapping[str, Json]) -> Following:
        """The grammar of one JSON value and then the end. Raises BadSchema, GrammarRefused."""
        check_schema(schema)
        found = self._prepare(json.dumps(schema, ensure_ascii=False), "")
        return self._compile(Asked(None), (Body("", "", found),)).fresh()

    def _call(self, tool: Tool, dialect: Dialect) -> Body:
        text = json.dumps(tool.parameters, ensure_ascii=False)
        found = self._prepare_marked(text, dialect.quote) if dialect.quote else self._prepare(text, tool.name)
        self._allowed(tool, found)
        return Body(*around(dialect, tool.name, self._spelled), found)

    def _allowed(self, tool: Tool, found: Prepared) -> Enforced:
        if tool.strict and found.residual:
            raise GrammarRefused(f"the strict tool {tool.name}", f"it would leave out {', '.join(found.residual)}")
        return Enforced(found.residual)

    def _marked(self, text: str, quote: str) -> Prepared:
        """As `_prepared`, where strings stand between marks."""
        schema, noted = normal(closed(json.loads(text)))
        numbers = self._numbers()
        leaves = Marked(quote, self._spelled, numbers, self._bounds.characters)
        written = Written(schema, leaves, items=self._bounds.items, key=leaves.key)
        left_out = tuple(sorted({*noted, *written.residual, *leaves.residual}))
        return Prepared(written.start, tuple(written.rules), left_out, tuple(numbers.named.items()))

    @abstractmethod
    def _numbers(self) -> Numbers:
        """The engine's rules for numbers."""

    @cached_property
    def _words(self) -> Words:
        return Words(self._vocabulary())

    @abstractmethod
    def _vocabulary(self) -> Sequence[bytes]:
        """Every token as text."""

    @abstractmethod
    def _prepared(self, text: str, tool: str) -> Prepared:
        """As much of a schema as can be enforced: all of it, or what is left when the engine may look past the rest.

        The arguments of a tool are closed to what they do not state; an answer of a schema, without a tool, is not.
        """

    @abstractmethod
    def _compiled(self, asked: Asked, bodies: tuple[Body, ...]) -> Template:
        """Raises GrammarRefused."""

    @abstractmethod
    def _spelled(self, text: str) -> str:
        """Text as a rule writes it, with the special tokens that some tokenizers have for parts of it."""


def residual(bodies: Sequence[Body]) -> Enforced:
    """What all of them together leave out."""
    return Enforced(tuple(sorted({word for body in bodies for word in body.schema.residual})))
