"""Grammars by llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from ..bounds import Bounds, bounded
from ..dialects import Dialect
from ..errors import GrammarRefused
from ..grammar import Enforced
from ..normal import normal
from ..places import Json, Node, places, resolve
from ..schema import check_schema, closed
from ..spec import Choice, Tool

CALLS = 16
"""Most calls in one answer: a required choice must come to an end."""
CACHED = 64

_OPTIONS = {"whitespace_flexible": False, "key_separator": ": ?", "item_separator": ", ?"}
"""At most one space, after colons and commas: with unbounded whitespace an answer may never end."""
_SPACE = r"/[ \n]/"


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
        self._bytes = LLTokenizer("byte")  # what can be built at all does not depend on the tokens
        self._limits = LLParserLimits(verbose_errors=False)
        self._compile = lru_cache(maxsize=CACHED)(self._compiled)
        self._prepare = lru_cache(maxsize=16 * CACHED)(self._prepared)

    @classmethod
    def alone(cls) -> LLGuidanceCompiler:
        """For no model: every byte is a token. Good to see which schemas can be enforced."""
        return cls("byte", eos=[261], vocab=262)

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
        bodies = tuple(self._call(tool, dialect) for tool in offered)
        lark = self._turn(choice.mode == "auto", dialect, parallel=parallel, calls=len(offered))
        # Freedom is known by comparing masks, so only a grammar that begins with free text can have it.
        sign = dialect.opening or dialect.begin or "{"
        return self._compile(lark, bodies, sign if choice.mode == "auto" else None).fresh()

    def check(self, tool: Tool) -> Enforced:
        """See Compiler."""
        found = self._prepare(json.dumps(tool.parameters, ensure_ascii=False), tool.name)
        if tool.strict and found.residual:
            raise GrammarRefused(f"the strict tool {tool.name}", f"it would leave out {', '.join(found.residual)}")
        return Enforced(found.residual)

    def schema(self, schema: Mapping[str, Json]) -> LLGuidanceGrammar:
        """The grammar of one JSON value and then the end. Raises BadSchema, GrammarRefused."""
        check_schema(schema)
        found = self._prepare(json.dumps(schema, ensure_ascii=False), "")
        return self._compile("start: value0", (_Body("", "", found),), None).fresh()

    def _call(self, tool: Tool, dialect: Dialect) -> _Body:
        self.check(tool)
        found = self._prepare(json.dumps(tool.parameters, ensure_ascii=False), tool.name)
        if dialect.head:
            before, after = dialect.head.split("{name}")
            return _Body(self._spelled(before + tool.name + after), self._spelled(dialect.tail), found)
        keys = [json.dumps(key) for key in (dialect.name_key, tool.name, dialect.arguments_key)]
        return _Body(r"/\{{{}: ?{}, ?{}: ?/".format(*map(_regex, keys)), '"}"', found)

    def _prepared(self, text: str, tool: str) -> _Prepared:
        """As much of a schema as can be enforced: all of it, or what is left when the engine may look past the rest.

        The arguments of a tool are closed to what they do not state; an answer of a schema is not.
        """
        given = json.loads(text)
        schema, residual = normal(closed(given) if tool else given)
        schema = bounded(schema, self._bounds)
        left_out = set(residual)
        for pattern in self._unreadable(schema):
            left_out.add("pattern")
            _without(schema, pattern)
        for lenient in (False, True):
            made = _Prepared(_json(schema, lenient=lenient), tuple(sorted(left_out)))
            matcher = self._matcher("start: value0\n" + made.rule(0), self._bytes)
            if not matcher.is_error():
                left_out |= _keywords(matcher.get_grammar_warnings(), schema)
                return replace(made, residual=tuple(sorted(left_out)))
        raise GrammarRefused(f"the tool {tool}" if tool else "the schema", _said(matcher))

    def _unreadable(self, schema: Node) -> list[str]:
        """Patterns that the engine cannot read even where it may look past things: those that look around or back."""
        found = {str(node["pattern"]) for _, node in places(schema) if "pattern" in node}
        found |= {name for _, node in places(schema) for name in node.get("patternProperties", ())}
        texts = {each: _json({"type": "string", "pattern": each}, lenient=False) for each in sorted(found)}
        return [
            each for each, text in texts.items() if self._matcher("start: %json " + text + "\n", self._bytes).is_error()
        ]

    def _turn(self, free: bool, dialect: Dialect, *, parallel: bool, calls: int) -> str:
        """The rules of a turn, without those of its calls.

        `one` is a call with what always stands around it, `all` is what one answer may hold of them where they stand
        together; free text may go before, and where they do not, between and after.
        """
        begin, end, opening = (self._spelled(each) for each in (dialect.begin, dialect.end, dialect.opening))
        any_call = " | ".join(f"call{place}" for place in range(calls))
        # Where a marker stands on both sides, a line break may stand inside of them.
        blank = '"\\n"?' if dialect.end and not dialect.opening else ""
        rules = [f"call: {any_call}", f"body: {blank} call {blank} {end}", "TEXT: /(.|\\n)*/"]
        joint = f"({_blanks(dialect.between)} {begin} body){{0,{CALLS - 1}}}" if parallel else ""
        together = f"{self._spelled(dialect.lead)} {begin} body {joint} {self._spelled(dialect.closing)}"
        if dialect.anchored:
            rules.append(r"PROSE: /(\s*[^\s{](.|\n)*)?/")
            start = f"{together} | PROSE" if free else together
        elif not free:
            start = f"{opening} {together}"
        else:
            sign = opening if dialect.opening else begin
            # A lazy lexeme ends with the first marker, however many tokens spell it.
            rules.append(f"head: TEXT {sign}" if sign.startswith("<") else f"head[lazy]: TEXT {sign}")
            alone = f"(head body){{0,{CALLS}}} TEXT" if parallel else "TEXT | head body"
            start = f"TEXT | head {together}" if dialect.opening else alone
        return "\n".join([f"start: {start}", *rules])

    def _spelled(self, text: str) -> str:
        """Text as a rule writes it, with the special tokens that some tokenizers have for parts of it."""
        parts: list[str] = []
        plain: list[int] = []
        for token in [*self._tokenizer.tokenize_str(text, parse_special=True), None]:
            if token is not None and not self._tokenizer.is_special_token(token):
                plain.append(token)
                continue
            if plain:
                parts.append(json.dumps(self._tokenizer.decode_str(plain), ensure_ascii=False))
                plain = []
            if token is not None:
                parts.append(f"<[{token}]>")
        return " ".join(parts)

    def _compiled(self, lark: str, bodies: tuple[_Body, ...], begin: str | None) -> _Template:
        text = "\n".join([lark, *(body.rules(place) for place, body in enumerate(bodies))]) + "\n"
        matcher = self._matcher(text)
        if matcher.is_error():
            raise GrammarRefused("the turn", _said(matcher))
        residual = tuple(sorted({word for body in bodies for word in body.schema.residual}))
        free = self._free(matcher, begin) if begin is not None else None
        return _Template(matcher, self._eos, self._vocab, text, Enforced(residual), free)

    def _matcher(self, lark: str, tokenizer: LLTokenizer | None = None) -> LLMatcher:
        return LLMatcher(
            tokenizer or self._tokenizer, LLMatcher.grammar_from_lark(lark), log_level=0, limits=self._limits
        )

    def _free(self, matcher: LLMatcher, begin: str) -> _Free | None:
        """The mask of free text, when the tokens it forbids cannot carry a part of the marker.

        What llguidance forbids in free text is no text: control tokens, and bytes that are no UTF-8 by
        themselves. Such tokens may be let through, and then free text needs no mask at all.
        """
        prose = matcher.deep_copy()
        if begin == "{":  # only the first character decides
            prose.try_consume_tokens(self._tokenizer.tokenize_str("a"))
        mask = prose.compute_bitmask()
        refused = frozenset(token for token in range(self._vocab) if not mask[token >> 3] >> (token & 7) & 1)
        first = begin[0].encode()
        for token in refused:
            if (
                begin != "{"
                and not self._tokenizer.is_special_token(token)
                and first in self._tokenizer.decode_bytes([token])
            ):
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
    def enforced(self) -> Enforced:
        """How much of its schemas it holds to."""
        return self._template.enforced

    @property
    def source(self) -> str:
        """The grammar from its start, for llguidance in another process: Lark, and JSON Schema behind `%json`."""
        return self._template.text

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
class _Prepared:
    """A schema that the engine takes, with what it looks past."""

    text: str
    residual: tuple[str, ...]

    def rule(self, place: int) -> str:
        return f"value{place}: %json {self.text}"


@dataclass(frozen=True, slots=True)
class _Body:
    """A call: its arguments' schema, and what stands before and after them, as rules write it."""

    head: str
    tail: str
    schema: _Prepared

    def rules(self, place: int) -> str:
        call = f"call{place}: {self.head} value{place} {self.tail}\n" if self.head else ""
        return call + self.schema.rule(place)


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
    enforced: Enforced
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


def _json(schema: Node, *, lenient: bool) -> str:
    return json.dumps({**schema, "x-guidance": {**_OPTIONS, "lenient": lenient}}, ensure_ascii=False)


def _blanks(between: str) -> str:
    """What parts two calls, with or without the blanks in it."""
    mark = between.strip()
    return f"{json.dumps(mark)} {_SPACE}?" if mark else f"{_SPACE}?" if between else ""


def _said(matcher: LLMatcher) -> str:
    """What the engine found wrong, without where it stood in a text that nobody has seen."""
    return re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", matcher.get_error().split("\n")[0])


def _regex(text: str) -> str:
    """The text as it stands, for a regular expression between slashes."""
    return re.sub(r"[\\.+*?()|\[\]{}^$/]", r"\\\g<0>", text)


def _without(schema: Node, pattern: str) -> None:
    for where in [resolve(schema, path) for path, _ in places(schema)]:
        if isinstance(where, dict) and where.get("pattern") == pattern:
            del where["pattern"]
        if isinstance(where, dict) and pattern in where.get("patternProperties", ()):
            del where["patternProperties"][pattern]


def _keywords(warnings: Sequence[str], schema: Node) -> set[str]:
    """What the engine says it looks past, as keywords."""
    used = {key for _, node in places(schema) for key in node}
    found: set[str] = set()
    for warning in warnings:
        if warning.startswith("Unimplemented keys: "):
            found.update(re.findall(r'"([^"]+)"', warning))
            continue
        known = [word for word in ("oneOf", "minProperties", "maxProperties", "format") if word in used]
        named = [word for word in known if word in warning or ("/" in warning and word.endswith("Properties"))]
        found.update(named or [warning[:80]])
    return found
