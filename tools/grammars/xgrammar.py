"""Grammars by xgrammar: its masks with our own reading of schemas, since what it looks past it does not say.

Handed a schema, xgrammar drops keywords without a word and lets raw control characters into strings with a limit
(0.2.8); so objects, lists, choices and strings are rules of ours, and what those leave out is known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import xgrammar as xgr

from ..bounds import Bounds
from ..errors import GrammarRefused
from ..normal import FORMATS, normal
from ..places import Node
from ..schema import closed
from .compiling import Asked, Body, Compiling, Prepared, residual
from .following import Free, Template
from .leaves import Leaves
from .turns import SEPARATORS, turn
from .values import NUMBER, PLACE, Nothing, Written

LONGEST = 256
"""Characters that can be counted; each costs some ten milliseconds to compile."""

_INTEGER = r"INTEGER: /-?(0|[1-9][0-9]{0,14})/"
_ESCAPE = (
    r'esc ::= ["\\/bfnrt] | "u" ([0-9a-cA-CefEF] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F]'
    r" | [dD] [0-7] [0-9a-fA-F] [0-9a-fA-F])"
)
"""After a backslash; half a surrogate pair is no character, and a pair can be written as it is."""
_RANGE = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LOOKS = ("(?=", "(?!", "(?<", "\\b", "\\B", "\\1", "\\k", "\\p", "\\P")
"""What it ignores in a pattern, or reads in its own way."""


class XGrammarCompiler(Compiling):
    """See Compiling. Without `bounds` strings that state no length have none: counting them is what takes it long."""

    def __init__(self, tokenizer_json: str, *, eos: Sequence[int], vocab: int, bounds: Bounds | None = None) -> None:
        """`tokenizer_json` is a Hugging Face tokenizer.json; the rest as in Compiling. Raises GrammarRefused."""
        super().__init__(eos=eos, vocab=vocab, bounds=bounds)
        self._characters = None if bounds is None else bounds.characters
        words, kind, self._special = _vocabulary(tokenizer_json, vocab)
        read = xgr.TokenizerInfo(words, kind, vocab_size=vocab, stop_token_ids=sorted(eos)).decoded_vocab
        for token in self._special.values():
            read[token] = b"\xff" + read[token]  # no text is written like this, and a rule can still name the token
        self._read = read
        self._info = xgr.TokenizerInfo(read, xgr.VocabType.RAW, vocab_size=vocab, stop_token_ids=sorted(eos))
        self._engine = xgr.GrammarCompiler(self._info, max_threads=1, cache_enabled=False)

    @classmethod
    def alone(cls) -> XGrammarCompiler:
        """For no model: every byte is a token. Good to see which schemas can be enforced."""
        return cls("byte", eos=[261], vocab=262)

    def _numbers(self) -> _Leaves:
        return _Leaves(self._characters)

    def _prepared(self, text: str, tool: str) -> Prepared:
        given = json.loads(text)
        schema, noted = normal(closed(given) if tool else given)
        leaves = _Leaves(self._characters)
        written = Written(schema, leaves, items=self._bounds.items)
        left_out = tuple(sorted({*noted, *written.residual, *leaves.residual}))
        return Prepared(written.start, tuple(written.rules), left_out, tuple(leaves.named.items()))

    def _vocabulary(self) -> list[bytes]:
        return [word.removeprefix(b"\xff") for word in self._read]

    def _compiled(self, asked: Asked, bodies: tuple[Body, ...]) -> Template:
        named = {
            name.replace(PLACE, str(place)): xgr.Grammar.from_ebnf(text)
            for place, body in enumerate(bodies)
            for name, text in body.schema.named
        }
        parts = [body.rules(place) if body.head else body.schema.at(place) for place, body in enumerate(bodies)]
        rules = [SEPARATORS, NUMBER, _INTEGER, *parts]
        start, sign, loop = "value0", "", False
        if asked.dialect is not None:
            made = turn(asked.dialect, parallel=asked.parallel, calls=len(bodies), spelled=self._spelled)
            rules += made.rules
            start, sign = made.together, made.sign if asked.free else ""
            if sign and not asked.dialect.opening:
                start, loop = "body", asked.parallel
            elif asked.free and not sign:
                rules.append(r"PROSE: /(\s*[^\s{](.|\n)*)?/")
                start += " | PROSE"
            elif not asked.free:
                start = f"{made.opening} {start}"
        text = "\n".join([f"start: {start}", *rules]) + "\n"
        try:
            grammar = xgr.Grammar.from_lark(text, tokenizer_info=self._info, named_grammars=named)
            if sign:
                compiled = self._engine.compile_structural_tag(_dispatch(sign, str(grammar), loop=loop))
            else:
                compiled = self._engine.compile_grammar(grammar)
        except RuntimeError as error:
            raise GrammarRefused("the turn", str(error).split("\n")[0][-200:]) from error
        matcher = _Matcher(xgr.GrammarMatcher(compiled), self._vocab, self._eos)
        free = self._free(matcher, sign) if asked.free else None
        return Template(matcher, self._eos, self._vocab, str(compiled.grammar), residual(bodies), free)

    def _free(self, matcher: _Matcher, sign: str) -> Free:
        """The mask of free text. What is forbidden there are the end, where others end too, and control tokens."""
        prose = matcher.copy()
        if not sign:  # only the first character decides
            prose.spell(b"a")
        mask = prose.mask()
        return Free(mask, frozenset(token for token in range(self._vocab) if not mask[token >> 3] >> (token & 7) & 1))

    def _spelled(self, text: str) -> str:
        parts: list[str] = []
        while text:
            found = [(at, -len(word), word) for word in self._special if word and (at := text.find(word)) >= 0]
            at, _, word = min(found, default=(len(text), 0, ""))
            if at:
                parts.append(json.dumps(text[:at], ensure_ascii=False))
            if word:
                parts.append(f"<[{self._special[word]}]>")
            text = text[at + len(word) :]
        return " ".join(parts)


class _Leaves(Leaves):
    """Plain values in JSON, as xgrammar reads them where it can be trusted."""

    def __init__(self, characters: int | None) -> None:
        """`characters`: of a string that states no limit; None for as many as come."""
        super().__init__()
        self._characters = characters
        self.named: dict[str, str] = {}

    def _string(self, node: Node) -> str:
        least, most = node.get("minLength", 0), node.get("maxLength")
        if most is not None and least > most:
            raise Nothing
        for word in ("pattern", "format"):
            if word in node and (rule := self._read(word, node[word])):
                others = {"pattern", "format", "minLength", "maxLength"} - {word}
                self.residual |= others & node.keys()
                return rule
        if least > LONGEST:
            self.residual.add("minLength")
            least = 0
        if most is not None and most > LONGEST:
            self.residual.add("maxLength")
            most = None
        return self._text(least, most)

    def _read(self, word: str, value: str) -> str:
        """xgrammar's own reading, where it has one."""
        known = value in FORMATS if word == "format" else not any(each in value for each in _LOOKS)
        found = _own(json.dumps({"type": "string", word: value})) if known else ""
        if not found:
            self.residual.add(word)
        return found and self._named(found)

    def number(self, node: Node, kind: str) -> str:
        """See Leaves."""
        self.residual |= {"multipleOf"} & node.keys()
        stated = {key: node[key] for key in _RANGE if key in node}
        if not stated:
            return "INTEGER" if kind == "integer" else "NUMBER"
        found = _own(json.dumps({"type": kind, **stated}))
        if not found:
            raise Nothing
        return self._named(found)

    def _text(self, least: int, most: int | None) -> str:
        if most is None and self._characters is not None:
            most = max(self._characters, least)
        return self._named(_string(least, most))

    def _named(self, text: str) -> str:
        for name, known in self.named.items():
            if known == text:
                return f"@{name}"
        name = f"n{PLACE}_{len(self.named)}"
        self.named[name] = text
        return f"@{name}"


class _Matcher:
    """xgrammar's own. It does not say that nothing but the end may come: its mask does."""

    def __init__(self, matcher: Any, vocab: int, eos: frozenset[int]) -> None:
        self._matcher = matcher
        self._vocab = vocab
        self._eos = eos
        self._mask: bytes | None = None

    def mask(self) -> bytes:
        if self._mask is None:
            mask = np.full((1, (self._vocab + 31) // 32), -1, dtype=np.int32)
            self._matcher.fill_next_token_bitmask(mask)
            self._mask = _trimmed(mask.tobytes(), self._vocab)
        return self._mask

    def take(self, token: int) -> bool:
        taken = bool(self._matcher.accept_token(token))
        if taken:
            self._mask = None
        return taken

    def spell(self, text: bytes) -> bool:
        self._mask = None
        return bool(self._matcher.accept_string(text))

    def back(self, tokens: int) -> None:
        self._mask = None
        try:
            self._matcher.rollback(tokens)
        except RuntimeError as error:
            raise GrammarRefused("a rollback", str(error)) from error

    def copy(self) -> _Matcher:
        return _Matcher(self._matcher.fork(), self._vocab, self._eos)

    @property
    def stopped(self) -> bool:
        if not self.accepting:
            return False
        return int.from_bytes(self.mask(), "little") & ~sum(1 << token for token in self._eos) == 0

    @property
    def accepting(self) -> bool:
        return bool(self._matcher.is_completed())


def _trimmed(mask: bytes, vocab: int) -> bytes:
    """Without the bits behind the last token, which are set where all is allowed."""
    behind = len(mask) * 8 - vocab
    return mask if not behind else (int.from_bytes(mask, "little") & ((1 << vocab) - 1)).to_bytes(len(mask), "little")


def _dispatch(sign: str, grammar: str, *, loop: bool) -> str:
    """Free text in which a sign begins what the grammar says; afterwards text again, or the end."""
    after = {"type": "grammar", "grammar": grammar}
    if sign.startswith("<["):
        rule = {"type": "token_dispatch", "rules": [[int(sign[2:-2]), after]], "loop": loop}
    else:
        rule = {"type": "dispatch", "rules": [[json.loads(sign), after]], "loop": loop}
    return json.dumps({"type": "structural_tag", "format": rule})


@lru_cache(maxsize=1024)
def _string(least: int, most: int | None) -> str:
    """A JSON string; where it is counted, a rule for every character, which is what makes masks cheap."""
    char = r'[^"\\\x00-\x1f]'
    counted = least if most is None else most
    rules = ['root ::= "\\"" s0', _ESCAPE]
    for place in range(counted):
        end = "" if place < least else r'"\"" | '
        rules.append(f's{place} ::= {end}{char} s{place + 1} | "\\\\" esc s{place + 1}')
    last = f'"\\"" | {char} s{counted} | "\\\\" esc s{counted}' if most is None else '"\\""'
    return "\n".join([*rules, f"s{counted} ::= {last}"])


@lru_cache(maxsize=1024)
def _own(schema: str) -> str:
    """What xgrammar makes of a plain value; empty where it refuses."""
    try:
        return str(xgr.Grammar.from_json_schema(schema))
    except RuntimeError:
        return ""


def _vocabulary(tokenizer_json: str, vocab: int) -> tuple[list[Any], xgr.VocabType, dict[str, int]]:
    """What each token is, how that is written, and the control tokens by name."""
    if tokenizer_json == "byte":
        return [bytes([byte]) for byte in range(256)] + [b""] * (vocab - 256), xgr.VocabType.RAW, {}
    told = json.loads(tokenizer_json)
    listed = told["model"]["vocab"]
    known = dict(listed) if isinstance(listed, dict) else {word: place for place, (word, _) in enumerate(listed)}
    known |= {each["content"]: each["id"] for each in told["added_tokens"]}
    words = [""] * vocab
    for word, token in known.items():
        if token < vocab:
            words[token] = word
    decoder = json.dumps(told.get("decoder"))
    ways = {"ByteLevel": xgr.VocabType.BYTE_LEVEL, "ByteFallback": xgr.VocabType.BYTE_FALLBACK}
    kind = next((kind for name, kind in ways.items() if name in decoder), xgr.VocabType.RAW)
    special = {each["content"]: each["id"] for each in told["added_tokens"] if each["special"] and each["id"] < vocab}
    return words, kind, special
