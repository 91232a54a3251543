"""The rules of a turn, without those of its calls: where text may stand, and where a call begins and ends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ..dialects import Dialect

CALLS = 16
"""Most calls in one answer: a required choice must come to an end."""
SEPARATORS = "COLON: /: ?/\nCOMMA: /, ?/"
"""At most one space, after colons and commas: with unbounded whitespace an answer may never end."""

Spell: TypeAlias = Callable[[str], str]
"""Text as a rule writes it, with the special tokens that some tokenizers have for parts of it."""

_SPACE = r"/[ \n]/"


@dataclass(frozen=True, slots=True)
class Turn:
    """An answer, as Lark rules over `call`."""

    together: str
    """What all calls of an answer are where they stand together, without what opens them."""
    opening: str
    sign: str
    """After this in free text there is a call and nothing else; empty where only the first brace tells."""
    rules: tuple[str, ...]


def turn(dialect: Dialect, *, parallel: bool, calls: int, spelled: Spell) -> Turn:
    """The rules for so many tools, which are `call0`, `call1` and on; `body` is a call with what always stands
    around it."""
    begin, end, opening = (spelled(each) for each in (dialect.begin, dialect.end, dialect.opening))
    any_call = " | ".join(f"call{place}" for place in range(calls))
    # Where a marker stands on both sides, a line break may stand inside of them.
    blank = '"\\n"?' if dialect.end and not (dialect.opening or dialect.head) else ""
    rules = (f"call: {any_call}", f"body: {blank} call {blank} {end}")
    joint = f"({_blanks(dialect.between)} {begin} body){{0,{CALLS - 1}}}" if parallel else ""
    together = f"{spelled(dialect.lead)} {begin} body {joint} {spelled(dialect.closing)}"
    return Turn(together, opening, "" if dialect.anchored else opening if dialect.opening else begin, rules)


def around(dialect: Dialect, name: str, spelled: Spell) -> tuple[str, str]:
    """What stands before a call's arguments, and after them, as rules write it."""
    if dialect.head:
        before, after = dialect.head.split("{name}")
        return spelled(before + name + after), spelled(dialect.tail)
    keys = [json.dumps(key) for key in (dialect.name_key, name, dialect.arguments_key)]
    return r"/\{{{}: ?{}, ?{}: ?/".format(*map(_regex, keys)), '"}"'


def _blanks(between: str) -> str:
    """What parts two calls, with or without the blanks in it."""
    mark = between.strip()
    return f"{json.dumps(mark)} {_SPACE}?" if mark else f"{_SPACE}?" if between else ""


def _regex(text: str) -> str:
    """The text as it stands, for a regular expression between slashes."""
    return re.sub(r"[\\.+*?()|\[\]{}^$/]", r"\\\g<0>", text)
