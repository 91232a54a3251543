"""Grammars by llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Self

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from ..bounds import Bounds, bounded
from ..dialects import Dialect
from ..errors import GrammarRefused
from ..places import Json, Node, children
from ..schema import check_schema, closed
from ..spec import Choice, Tool

CALLS = 16
"""Most calls in one answer: a required choice must come to an end."""
CACHED = 64

_OPTIONS = {"whitespace_flexible": False, "key_separator": ": ?", "item_separator": ", ?"}
"""At most one space, after colons and commas: with unbounded whitespace an answer may never end."""


class LLGuidanceCompiler:
    """Compiles for one tokenizer. Grammars of equal content are compiled once and copied."""

    def __init__(self, tokenizer_json: str, *, eos: Sequence[int], vocab: int, bounds: Bounds | None = None) -> None:
        """`tokenizer_json` is a Hugging Face tokenizer.json; `eos` every token that ends an answer; `vocab`
        the rows of the model's output, which may be more than the tokenizer knows. Raises GrammarRefused."""
        if not eos:
            raise GrammarRefused("this tokenizer", "no end token was given")
        self._eos = frozenset(eos)
        self._vocab = vocab
        self._bounds = bounds or Bounds()
        self._tokenizer = LLTokenizer(tokenizer_json, n_vocab=vocab, eos_token=list(eos))
        self._limits = LLParserLimits(verbose_errors=False)
        self._compile = lru_cache(maxsize=CACHED)(self._compiled)

    def tools(
        self, tools: Sequence[Tool], choice: Choice, dialect: Dialect, *, parallel: bool
    ) -> LLGuidanceGrammar | None:
        """The grammar of a turn; None for the choice `none` and for `auto` without tools.

        `auto`: free text, and every call begun is one of these tools, valid and closed; with `parallel`, text
        and up to CALLS calls in any order, without it at most one call, which ends the answer. `any` and
        `named`: one call and nothing else, with `parallel` one or more. Raises GrammarRefused; for a strict
        tool also when a part of its schema could not be enforced.
        """
        offered = [tool for tool in tools if choice.mode != "named" or tool.name == choice.name]
        if choice.mode == "none" or (choice.mode == "auto" and not offered):
            return None
        if not offered:
            raise GrammarRefused(f"the choice {choice}", "no such tool is offered")
        schema = json.dumps(self._calls_schema(offered, dialect), ensure_ascii=False)
        lark = self._turn(choice.mode == "auto", dialect, parallel=parallel)
        names = ", ".join(tool.name for tool in offered)
        source = _Source(f"the tools {names}", lark, schema, any(tool.strict for tool in offered))
        # Freedom is known by comparing masks, so only a grammar that begins with free text can have it.
        return self._compile(source, dialect.begin if choice.mode == "auto" else None).fresh()

    def schema(self, schema: Mapping[str, Json]) -> LLGuidanceGrammar:
        """The grammar of one JSON value and then the end. Raises BadSchema, GrammarRefused."""
        check_schema(schema)
        text = json.dumps(bounded(schema, self._bounds), ensure_ascii=False)
        return self._compile(_Source("the schema", "start: value\nvalue: ", text, False), None).fresh()

    def _calls_schema(self, tools: Sequence[Tool], dialect: Dialect) -> Node:
        """Any of the calls as one schema; every tool's own moves below $defs, its references with it."""
        definitions = {}
        calls: list[Node] = []
        for place, tool in enumerate(tools):
            home = f"#/$defs/{place}"
            definitions[str(place)] = _moved(bounded(closed(tool.parameters), self._bounds), home)
            properties = {dialect.name_key: {"const": tool.name}, dialect.arguments_key: {"$ref": home}}
            call: Node = {"type": "object", "properties": properties, "required": list(properties)}
            calls.append({**call, "additionalProperties": False})
        return {"anyOf": calls, "$defs": definitions}

    def _turn(self, free: bool, dialect: Dialect, *, parallel: bool) -> str:
        """The rules of a turn, ready for the schema of a call to be written behind."""
        begin, special = self._marker(dialect.begin)
        end, _ = self._marker(dialect.end)
        body = f'body: "\\n"? value "\\n"? {end}\nvalue: '
        if not free:
            more = f'("\\n"? {begin} body){{0,{CALLS - 1}}}' if parallel else ""
            return f"start: {begin} body {more}\n{body}"
        # A lazy lexeme ends with the first marker, however many tokens spell it.
        head = f"head: TEXT {begin}" if special else f"head[lazy]: TEXT {begin}"
        start = f"(head body){{0,{CALLS}}} TEXT" if parallel else "TEXT | head body"
        return f"start: {start}\n{head}\nTEXT: /(.|\\n)*/\n{body}"

    def _marker(self, marker: str) -> tuple[str, bool]:
        """The marker as a rule writes it: text, or the special token some tokenizers have for it."""
        tokens = self._tokenizer.tokenize_str(marker, parse_special=True)
        if len(tokens) == 1 and self._tokenizer.is_special_token(tokens[0]):
            return f"<[{tokens[0]}]>", True
        return json.dumps(marker), False

    def _compiled(self, source: _Source, begin: str | None) -> _Template:
        enforced: Literal["full", "partial"] = "full"
        matcher = self._matcher(source, lenient=False)
        if matcher.is_error():
            reason = matcher.get_error().split("\n")[0]
            if source.strict:
                raise GrammarRefused(source.what, reason)
            enforced, matcher = "partial", self._matcher(source, lenient=True)
            if matcher.is_error():
                raise GrammarRefused(source.what, matcher.get_error().split("\n")[0])
        residual = tuple(matcher.get_grammar_warnings())
        free = self._free(matcher, begin) if begin is not None else None
        text = source.text(lenient=enforced == "partial")
        return _Template(matcher, self._eos, self._vocab, text, enforced, residual, free)

    def _matcher(self, source: _Source, *, lenient: bool) -> LLMatcher:
        grammar = LLMatcher.grammar_from_lark(source.text(lenient=lenient))
        return LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)

    def _free(self, matcher: LLMatcher, begin: str) -> _Free | None:
        """The mask of free text, when the tokens it forbids cannot carry a part of the marker.

        What llguidance forbids in free text is no text: control tokens, and bytes that are no UTF-8 by
        themselves. Such tokens may be let through, and then free text needs no mask at all.
        """
        mask = matcher.deep_copy().compute_bitmask()
        refused = frozenset(token for token in range(self._vocab) if not mask[token >> 3] >> (token & 7) & 1)
        first = begin[0].encode()
        for token in refused:
            if not self._tokenizer.is_special_token(token) and first in self._tokenizer.decode_bytes([token]):
                return None
        return _Free(mask, refused)


class LLGuidanceGrammar:
    """One branch's state. `enforced` is "partial" where `residual` names what only validation can check."""

    def __init__(self, template: _Template, matcher: LLMatcher, past: list[bool], ended: bool) -> None:
        self._template = template
        self._matcher = matcher
        self._past = past  # for every accepted token: did the matcher take it?
        self._ended = ended
        self._mask: bytes | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} after {len(self._past)} tokens, {'done' if self.done else 'open'}>"

    @property
    def enforced(self) -> Literal["full", "partial"]:
        """Whether every keyword of the schemas is in the grammar."""
        return self._template.enforced

    @property
    def source(self) -> str:
        """The grammar from its start, for llguidance in another process: Lark, and JSON Schema behind `%json`."""
        return self._template.text

    @property
    def residual(self) -> tuple[str, ...]:
        """What is not, in the engine's words."""
        return self._template.residual

    @property
    def done(self) -> bool:
        """Nothing but the end may follow."""
        return self._ended or self._matcher.is_stopped()

    @property
    def accepting(self) -> bool:
        """The text could end here."""
        return self._ended or self._matcher.is_accepting()

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
        # Anything but try_consume_tokens would leave the matcher broken for good after a wrong token.
        if not 0 <= token < self._template.vocab or self._matcher.try_consume_tokens([token]) != 1:
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
        if any(undone) and not self._matcher.rollback(sum(undone)):
            raise GrammarRefused("a rollback", self._matcher.get_error())

    def fork(self) -> Self:
        """See Grammar."""
        return type(self)(self._template, self._matcher.deep_copy(), list(self._past), self._ended)

    def _computed(self) -> bytes:
        if self._mask is None:
            self._mask = self._matcher.compute_bitmask()
            if self._matcher.is_error():
                raise GrammarRefused("the next token", self._matcher.get_error())
        return self._mask


@dataclass(frozen=True, slots=True)
class _Source:
    """All that decides what a grammar is."""

    what: str
    lark: str
    schema: str
    strict: bool

    def text(self, *, lenient: bool) -> str:
        """All of it as llguidance reads it."""
        schema = json.loads(self.schema)
        schema["x-guidance"] = {**_OPTIONS, "lenient": lenient}
        return self.lark + "%json " + json.dumps(schema, ensure_ascii=False) + "\n"


@dataclass(frozen=True, slots=True)
class _Free:
    """Free text: its mask, and the tokens that mask forbids."""

    mask: bytes
    refused: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Template:
    """A compiled grammar before its first token; never fed, only copied."""

    matcher: LLMatcher
    eos: frozenset[int]
    vocab: int
    text: str
    enforced: Literal["full", "partial"]
    residual: tuple[str, ...]
    free: _Free | None

    def fresh(self) -> LLGuidanceGrammar:
        return LLGuidanceGrammar(self, self.matcher.deep_copy(), [], False)

    @property
    def size(self) -> int:
        """Bytes of a mask: whole words of 32 tokens."""
        return (self.vocab + 31) // 32 * 4

    @property
    def only_end(self) -> bytes:
        return sum(1 << token for token in self.eos).to_bytes(self.size, "little")


def _moved(schema: Node, home: str) -> Node:
    """The schema with its references following it to its new place."""
    agenda: list[Any] = [schema]
    while agenda:
        node = agenda.pop()
        if not isinstance(node, dict):
            continue
        reference = node.get("$ref")
        if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
            node["$ref"] = home + reference[1:]
        node.pop("$schema", None)
        agenda += [child for _, _, child in children(node)]
    return schema
