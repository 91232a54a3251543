"""Regular expressions from strangers: will matching end?"""

from __future__ import annotations

import re
from dataclasses import dataclass

MANY = 16
"""From so many repetitions on, a repeated group counts as repeated without end."""

_BRACES = re.compile(r"\{(\d*)(,?)(\d*)\}")


def why_unsafe(pattern: str) -> str | None:
    """Why Python's `re` should not be given this pattern; None when it may.

    Python backtracks, so a quantifier around something that itself may match in several lengths, as in
    `(a+)+$`, takes time exponential in the text. Such patterns are refused as a whole, the harmless ones too:
    telling them apart is as hard as matching them well.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"which is no regular expression ({error})"
    return "which repeats what already repeats" if _nested(pattern) else None


@dataclass(slots=True)
class _Group:
    varies: bool = False
    """Something inside may match in more than one length, or in more than one way."""


def _nested(pattern: str) -> bool:
    stack = [_Group()]
    last: _Group | None = None  # the group just closed, when a quantifier could refer to it
    place = 0
    while place < len(pattern):
        char = pattern[place]
        if char == "\\":
            place, last = place + 2, None
        elif char == "[":
            place, last = _after_class(pattern, place), None
        elif char == "(":
            stack.append(_Group())
            place, last = _after_opening(pattern, place), None
        elif char == ")":
            last = stack.pop()
            stack[-1].varies |= last.varies
            place += 1
        elif char == "|":
            stack[-1].varies |= len(stack) > 1 and _same_start(pattern, place)
            place, last = place + 1, None
        elif (found := _quantifier(pattern, place)) is not None:
            least, most, place = found
            if last is not None and last.varies and (most is None or most >= MANY):
                return True
            stack[-1].varies |= least != most
            last = None
        else:
            place, last = place + 1, None
    return False


def _quantifier(pattern: str, place: int) -> tuple[int, int | None, int] | None:
    """(least, most, the place after it) of the quantifier here; None when there is none."""
    char = pattern[place]
    if char in "*+?":
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}[char]
        after = place + 1
    elif char == "{" and (braces := _BRACES.match(pattern, place)) and (braces[1] or braces[3]):
        least = int(braces[1] or 0)
        most = int(braces[3]) if braces[3] else (None if braces[2] else least)
        after = braces.end()
    else:
        return None
    if after < len(pattern) and pattern[after] in "?+":
        after += 1
    return least, most, after


def _after_class(pattern: str, place: int) -> int:
    place += 1
    if pattern[place] == "^":
        place += 1
    if pattern[place] == "]":
        place += 1
    while pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1


def _after_opening(pattern: str, place: int) -> int:
    named = re.compile(r"\(\?(?:P?<[^=!>][^>]*>|P=[^)]*(?=\))|[:=!>]|<[=!]|#[^)]*(?=\))|[a-zA-Z-]+:?)")
    found = named.match(pattern, place)
    return found.end() if found else place + 1


def _same_start(pattern: str, bar: int) -> bool:
    """May the branches on both sides of this bar begin alike? Only plain, different letters say no."""
    depth = 0
    for start in range(bar - 1, -1, -1):
        depth += {")": 1, "(": -1}.get(pattern[start], 0)
        if depth < 0 or (depth == 0 and pattern[start] == "|"):
            break
    left = _after_opening(pattern, start) if pattern[start] == "(" else start + 1
    a, b = pattern[left : left + 1], pattern[bar + 1 : bar + 2]
    return not (a.isalnum() and b.isalnum() and a != b)
