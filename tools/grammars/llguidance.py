"""Grammars by llguidance."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from llguidance import LLMatcher, LLParserLimits, LLTokenizer

from ..bounds import FREE, Bounds, bounded
from ..errors import GrammarRefused
from ..normal import normal
from ..places import Node, places, resolve
from ..schema import closed
from .compiling import Asked, Body, Compiling, Prepared, residual
from .following import Free, Template
from .turns import CALLS, SEPARATORS, turn
from .values import NUMBER, Nothing, Written

_OPTIONS = {"whitespace_flexible": False, "key_separator": ": ?", "item_separator": ", ?"}
"""At most one space, after colons and commas: with unbounded whitespace an answer may never end."""


_AMISS = {
    "are not disjoint": ("patternProperties",),
    "too many digits": ("multipleOf",),
    "nsatisfiable": ("unevaluatedProperties", "unevaluatedItems"),
}
"""What llguidance says of keywords that it cannot do, or takes for more than they say."""


class LLGuidanceCompiler(Compiling):
    """See Compiling."""

    def __init__(self, tokenizer_json: str, *, eos: Sequence[int], vocab: int, bounds: Bounds | None = None) -> None:
        """`tokenizer_json` is a Hugging Face tokenizer.json; the rest as in Compiling. Raises GrammarRefused."""
        super().__init__(eos=eos, vocab=vocab, bounds=bounds)
        self._tokenizer = LLTokenizer(tokenizer_json, n_vocab=vocab, eos_token=list(eos))
        self._bytes = LLTokenizer("byte")  # what can be built at all does not depend on the tokens
        self._limits = LLParserLimits(verbose_errors=False)

    @classmethod
    def alone(cls) -> LLGuidanceCompiler:
        """For no model: every byte is a token. Good to see which schemas can be enforced."""
        return cls("byte", eos=[261], vocab=262)

    def _prepared(self, text: str, tool: str) -> Prepared:
        given = json.loads(text)
        schema, noted = normal(closed(given) if tool else given)
        schema = bounded(schema, self._bounds)
        left_out = set(noted)
        for pattern in self._unreadable(schema):
            left_out.add("pattern")
            _without(schema, pattern)
        for lenient in (False, *(True for _ in _AMISS), True):
            written = Written(schema, _Leaves(schema, lenient=lenient), items=self._bounds.items)
            made = Prepared(written.start, tuple(written.rules))
            matcher = self._matcher(f"start: value0\n{made.at(0)}\n{SEPARATORS}\n{NUMBER}\n", self._bytes)
            if not matcher.is_error():
                left_out |= _keywords(matcher.get_grammar_warnings(), schema)
                return Prepared(written.start, tuple(written.rules), tuple(sorted(left_out)))
            if lenient:
                left_out |= _relieved(schema, _said(matcher))
        raise GrammarRefused(f"the tool {tool}" if tool else "the schema", _said(matcher))

    def _numbers(self) -> _Numbers:
        return _Numbers(self)

    def reads(self, schema: Node) -> bool:
        """Whether the engine can hold a model to a plain schema, all of it."""
        return not self._matcher("start: %json " + _json(schema, lenient=False) + "\n", self._bytes).is_error()

    def _unreadable(self, schema: Node) -> list[str]:
        """Patterns that the engine cannot read even where it may look past things: those that look around or back."""
        found = {str(node["pattern"]) for _, node in places(schema) if "pattern" in node}
        found |= {name for _, node in places(schema) for name in node.get("patternProperties", ())}
        texts = {each: _json({"type": "string", "pattern": each}, lenient=False) for each in sorted(found)}
        return [
            each for each, text in texts.items() if self._matcher("start: %json " + text + "\n", self._bytes).is_error()
        ]

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

    def _vocabulary(self) -> list[bytes]:
        return [self._tokenizer.decode_bytes([token]) for token in range(self._vocab)]

    def _compiled(self, asked: Asked, bodies: tuple[Body, ...]) -> Template:
        parts = [body.rules(place) if body.head else body.schema.at(place) for place, body in enumerate(bodies)]
        text = "\n".join([self._turn(asked, len(bodies)), SEPARATORS, NUMBER, *parts]) + "\n"
        matcher = self._matcher(text)
        if matcher.is_error():
            raise GrammarRefused("the turn", _said(matcher))
        free = None
        if asked.free and asked.dialect is not None:
            # Freedom is known by comparing masks, so only a grammar that begins with free text can have it.
            free = self._free(matcher, asked.dialect.opening or asked.dialect.begin or "{")
        return Template(_Matcher(matcher), self._eos, self._vocab, text, residual(bodies), free)

    def _turn(self, asked: Asked, calls: int) -> str:
        """The rules of a turn, without those of its calls."""
        dialect = asked.dialect
        if dialect is None:
            return "start: value0"
        made = turn(dialect, parallel=asked.parallel, calls=calls, spelled=self._spelled)
        rules = [*made.rules, r"TEXT: /(.|\n)*/"]
        if dialect.anchored:
            rules.append(r"PROSE: /(\s*[^\s{](.|\n)*)?/")
            start = f"{made.together} | PROSE" if asked.free else made.together
        elif not asked.free:
            start = f"{made.opening} {made.together}"
        else:
            # A lazy lexeme ends with the first marker, however many tokens spell it.
            rules.append(f"head: TEXT {made.sign}" if made.sign.startswith("<") else f"head[lazy]: TEXT {made.sign}")
            alone = f"(head body){{0,{CALLS}}} TEXT" if asked.parallel else "TEXT | head body"
            start = f"TEXT | head {made.together}" if dialect.opening else alone
        return "\n".join([f"start: {start}", *rules])

    def _matcher(self, lark: str, tokenizer: LLTokenizer | None = None) -> LLMatcher:
        return LLMatcher(
            tokenizer or self._tokenizer, LLMatcher.grammar_from_lark(lark), log_level=0, limits=self._limits
        )

    def _free(self, matcher: LLMatcher, begin: str) -> Free | None:
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
        return Free(mask, refused)


class _Numbers:
    """Numbers by themselves, where the rest is no JSON."""

    def __init__(self, compiler: LLGuidanceCompiler) -> None:
        self._compiler = compiler
        self.residual: set[str] = set()
        self.named: dict[str, str] = {}

    def number(self, node: Node, kind: str) -> str:
        """See Numbers."""
        words = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf")
        stated = {word: node[word] for word in words if word in node}
        if kind == "number" and not stated:
            return "NUMBER"
        schema = bounded({"type": kind, **stated}, Bounds())
        if "multipleOf" in stated and not self._compiler.reads(schema):
            self.residual.add("multipleOf")
            schema = bounded({"type": kind, **{word: stated[word] for word in words[:-1] if word in stated}}, Bounds())
        if not self._compiler.reads(schema):
            raise Nothing
        return "%json " + _json(schema, lenient=False)


class _Leaves:
    """What is left to llguidance's own reading of JSON Schema: all but the way to numbers that state no bounds.

    Those it writes without exponents where they are given an end, and without an end where not.
    """

    def __init__(self, root: Node, *, lenient: bool) -> None:
        self._root = root
        self._lenient = lenient
        found = [node for _, node in places(root)]
        self._homes: Node = {key: root[key] for key in ("$defs", "definitions") if key in root}
        inside = all(str(node.get("$ref", "#/$defs/")).startswith(("#/$defs/", "#/definitions/")) for node in found)
        self._apart = inside and any(FREE in node for node in found)

    def __call__(self, node: Node) -> str | None:
        if node.get(FREE) and node.get("type") == "number" and not {"enum", "const"} & node.keys():
            return "NUMBER"
        words = json.dumps({key: value for key, value in node.items() if key not in self._homes})
        if self._apart and (f'"{FREE}"' in words or '"$ref"' in words) and _plain(node):
            return None
        homes: Node = self._homes if '"$ref"' in words else {}
        return "%json " + _json({**homes, **node}, lenient=self._lenient)


def _plain(node: Node) -> bool:
    """Whether the rules say all that a schema does that is no plain value."""
    keys = node.keys() - {FREE, "$defs", "definitions"}
    if keys == {"$ref"} or keys == {"anyOf"}:
        return True
    if isinstance(node.get("type"), list):
        return not keys & {"enum", "const", "anyOf", "oneOf", "allOf", "not", "if", "$ref"}
    if keys == {"type", "items"} | (keys & {"minItems", "maxItems"}):
        return node["type"] == "array" and isinstance(node["items"], dict)
    stated = node.get("properties")
    if node.get("additionalProperties") is not False or not stated:
        return False
    named = set(node.get("required", ())) <= stated.keys()
    return named and keys <= {"type", "properties", "required", "additionalProperties"}


class _Matcher:
    """llguidance's own, which must be asked with care: what it is wrongly fed breaks it for good."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def mask(self) -> bytes:
        mask = self._matcher.compute_bitmask()
        if self._matcher.is_error():
            raise GrammarRefused("the next token", self._matcher.get_error())
        return mask

    def take(self, token: int) -> bool:
        # Anything but try_consume_tokens would leave the matcher broken for good after a wrong token.
        return self._matcher.try_consume_tokens([token]) == 1

    def back(self, tokens: int) -> None:
        if not self._matcher.rollback(tokens):
            raise GrammarRefused("a rollback", self._matcher.get_error())

    def copy(self) -> _Matcher:
        return _Matcher(self._matcher.deep_copy())

    @property
    def stopped(self) -> bool:
        return self._matcher.is_stopped()

    @property
    def accepting(self) -> bool:
        return self._matcher.is_accepting()


def _json(schema: Node, *, lenient: bool) -> str:
    return json.dumps({**_unmarked(schema), "x-guidance": {**_OPTIONS, "lenient": lenient}}, ensure_ascii=False)


def _unmarked(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: _unmarked(value) for key, value in schema.items() if key != FREE}
    return [_unmarked(value) for value in schema] if isinstance(schema, list) else schema


def _said(matcher: LLMatcher) -> str:
    """What the engine found wrong, without where it stood in a text that nobody has seen."""
    return re.sub(r"^at \d+\(\d+\): (failed to compile JSON schema: )?", "", matcher.get_error().split("\n")[0])


def _without(schema: Node, pattern: str) -> None:
    for where in [resolve(schema, path) for path, _ in places(schema)]:
        if isinstance(where, dict) and where.get("pattern") == pattern:
            del where["pattern"]
        if isinstance(where, dict) and pattern in where.get("patternProperties", ()):
            del where["patternProperties"][pattern]


def _relieved(schema: Node, said: str) -> set[str]:
    """Takes out of a schema what the engine stumbles over; the keywords that were there."""
    words = {word for sign, named in _AMISS.items() if sign in said for word in named}
    found: set[str] = set()
    for where in [resolve(schema, path) for path, _ in places(schema)]:
        for word in words & where.keys() if isinstance(where, dict) else ():
            del where[word]
            found.add(word)
    return found


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
