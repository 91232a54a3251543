"""Regular expressions from strangers: will matching end, and when? And do all read them alike?"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import count
from math import log2

MANY = 16
"""From so many repetitions on, a repeated group counts as repeated without end."""

MAX_STEPS = 100_000_000
"""Steps of matching, a second or two, that a text may cost."""

LEAST_REACH = 32
"""A pattern that cannot be held against a text of so many characters is refused."""
WITHOUT_END = 1000.0

_SPACES = r"\t-\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_", "s": _SPACES}
_BRACES = re.compile(r"\{(\d*)(,?)(\d*)\}")


def why_unsafe(pattern: str) -> str | None:
    """Why Python's `re` should not be given this pattern; None when it may.

    Python backtracks, so a quantifier around something that itself may match in several lengths, as in
    `(a+)+$`, takes time exponential in the text. Such patterns are refused as a whole, the harmless ones too:
    telling them apart is as hard as matching them well.
    """
    try:
        compiled(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"which is no regular expression ({error})"
    if _nested(pattern):
        return "which repeats what already repeats"
    return "which may match in too many ways" if reach(pattern) < LEAST_REACH else None


def plain(pattern: str, *, end: str = "$") -> str:
    """The pattern as Python and Rust both read it, meaning what JavaScript makes of it, as JSON Schema wants.

    `$` is `end`, the very end: Python's own lets a line break follow. Digits and letters are those of ASCII, `.` is
    anything but an end of line.
    """
    out: list[str] = []
    place, inside = 0, False
    while place < len(pattern):
        char, after = pattern[place], pattern[place + 1 : place + 2]
        place += 1
        if char == "\\":
            place += 1
            out.append(_escape(after, inside=inside))
        elif inside:
            inside = char != "]"
            out.append("\\[" if char == "[" else char)
        elif char == "[":
            inside = True
            out.append(char)
        elif char == "(" and re.match(r"\?<[A-Za-z_]", pattern[place:]):
            place += 2
            out.append("(?P<")
        else:
            out.append({"$": end, ".": r"[^\n\r\u2028\u2029]"}.get(char, char))
    return "".join(out)


@lru_cache(maxsize=512)
def compiled(pattern: str) -> re.Pattern[str]:
    """For Python."""
    return re.compile(plain(pattern, end=r"\Z"))


@lru_cache(maxsize=512)
def reach(pattern: str) -> int:
    """The longest text that Python should hold against this pattern: trying all the ways takes no more than a moment.

    Every repetition whose end the text does not mark may end anywhere, and so may a search begin anywhere.
    """
    repeated, ways = divmod(_weight(_atoms(pattern)), WITHOUT_END)
    degree = repeated + (not pattern.startswith(("^", r"\A")))
    return int((MAX_STEPS / 2 ** min(ways, 100)) ** (1 / max(1, degree)))


def _escape(char: str, *, inside: bool) -> str:
    if char.lower() not in _CLASSES:
        return char if char == "/" else "\\" + char
    ranges = _CLASSES[char.lower()]
    if char.islower():
        return ranges if inside else f"[{ranges}]"
    return "\\" + char if inside else f"[^{ranges}]"  # what a class leaves out cannot be listed inside another


_ALPHABET = [*map(chr, range(128)), "\xe9", "\u0663", "\u4f60", "\u2028", "\U0001f642"]


@dataclass(frozen=True, slots=True)
class _Atom:
    """One character of a pattern, or a group of them that may repeat."""

    takes: frozenset[str]
    least: int
    weight: float
    """MANY for what may come without end, else the logarithm of the number of ways to come."""
    within: tuple[int, ...]
    """The groups it stands in that may be left out, or in one of whose branches it stands."""


def _weight(atoms: list[_Atom]) -> float:
    """Of the heaviest chain of repetitions of which each could take over what the one before it took."""
    heaviest: list[float] = []
    for place, atom in enumerate(atoms):
        before = (heaviest[n] for n in range(place) if atom.weight and atoms[n].weight and _runs_on(atoms, n, place))
        heaviest.append(atom.weight + max(before, default=0) if atom.weight else 0)
    return max(heaviest, default=0)


def _runs_on(atoms: list[_Atom], first: int, last: int) -> bool:
    both = atoms[first].takes & atoms[last].takes
    ways = {*atoms[first].within, *atoms[last].within}
    marks = (atom for atom in atoms[first + 1 : last] if atom.least and ways.issuperset(atom.within))
    return bool(both) and not any(both.isdisjoint(mark.takes) for mark in marks)


def _atoms(pattern: str) -> list[_Atom]:
    atoms: list[_Atom] = []
    opened: list[list[int]] = []  # of each open group: its first atom, and its branch if it has several
    numbers, place = count(1), 0
    while place < len(pattern):
        char, start = pattern[place], place
        if char == "(":
            opened.append([len(atoms), 0])
            place = _after_opening(pattern, place)
        elif char == "|" and opened:
            if not opened[-1][1]:  # what came before stood in a branch too
                first = next(numbers)
                atoms[opened[-1][0] :] = [replace(a, within=(*a.within, first)) for a in atoms[opened[-1][0] :]]
            opened[-1][1] = next(numbers)
            place += 1
        elif char in "^$|":
            place += 1
        elif char == ")":
            least, most, place = _quantifier(pattern, place + 1) or (1, 1, place + 1)
            _close(atoms, opened.pop()[0], least, most, next(numbers))
        else:
            place = _after_class(pattern, place) if char == "[" else place + 1 + (char == "\\")
            takes = _taken(pattern[start:place])
            least, most, place = _quantifier(pattern, place) or (1, 1, place)
            atoms.append(_Atom(takes, least, _ways(least, most), tuple(n for _, n in opened if n)))
    return atoms


def _close(atoms: list[_Atom], first: int, least: int, most: int | None, number: int) -> None:
    """The end of a group: what repeats without end becomes one atom, what repeats a few times gets one before it."""
    inner = atoms[first:]
    if not inner or least == most:
        return
    ways, within = _ways(least, most), inner[0].within
    if ways == WITHOUT_END:
        atoms[first:] = [_Atom(frozenset().union(*(atom.takes for atom in inner)), 0, ways, within)]
        return
    sure = next((n for n, atom in enumerate(inner) if atom.least), len(inner))
    begins = frozenset().union(*(atom.takes for atom in inner[: sure + 1]))
    kept = [replace(atom, within=(*atom.within, number)) for atom in inner]
    atoms[first:] = [_Atom(begins, 0, ways, within), *kept]


def _ways(least: int, most: int | None) -> float:
    return WITHOUT_END if most is None or most >= MANY else log2(most - least + 1)


@lru_cache(maxsize=512)
def _taken(spelled: str) -> frozenset[str]:
    try:
        known = re.compile(plain(spelled), re.DOTALL)
    except re.error:  # a reference back, or the like: whatever
        return frozenset(_ALPHABET)
    return frozenset(char for char in _ALPHABET if known.fullmatch(char))


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
    char = pattern[place : place + 1]
    if char and char in "*+?":
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
