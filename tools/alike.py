"""Which calls are alike, so that what one took says something of another: the shape of their arguments, in few words.

Never the arguments themselves: what a person wrote has no place in what is learnt of tools. Numbers count by their
order of magnitude, texts and lists by their length, a command by the program that it runs; only true, false, null and
what the tool's schema enumerates stand as they are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite, log10
from typing import Any

from .places import Json
from .spec import Call, Tool

LONGEST = 200
"""Letters of a shape; what is longer is cut."""
COMMANDS = ("command", "cmd")
"""Arguments that are taken to be a shell's command."""

_PROGRAM = re.compile(r"(?:[A-Za-z_]\w*=\S*\s+)*(?:\S*/)?([A-Za-z][\w.+-]{0,23})(?=\s|$)")
_BETWEEN = re.compile(r"&&|\|\||[;\n]")


def alike(calls: Sequence[Call], tools: Sequence[Tool] = ()) -> str:
    """The shape of what these calls were given; of several at once that of each, in an order of its own."""
    known = {tool.name: tool for tool in tools}
    shapes = sorted({f"{call.name}({_arguments(call, known.get(call.name))})" for call in calls})
    return " ".join(shapes)[:LONGEST]


def _arguments(call: Call, tool: Tool | None) -> str:
    properties: Any = {} if tool is None else tool.parameters.get("properties", {})
    parts = (f"{name}:{_class(name, value, properties)}" for name, value in sorted(call.arguments.items()))
    return " ".join(parts)


def _class(name: str, value: Json, properties: Mapping[str, Any]) -> str:
    own = properties.get(name)
    if isinstance(own, Mapping) and isinstance(value, str) and value in own.get("enum", ()):
        return value
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return _magnitude(value)
    if isinstance(value, str):
        program = _program(value) if name in COMMANDS else ""
        return program or f"text{_length(len(value))}"
    return f"{'list' if isinstance(value, list) else 'object'}{_length(len(value))}"


def _magnitude(value: float) -> str:
    try:
        size = abs(float(value))
    except OverflowError:
        return "huge"
    if not size or not isfinite(size):
        return "0" if not size else "huge"
    return f"{'-' if value < 0 else ''}1e{int(log10(size) // 1)}"


def _length(count: int) -> int:
    """The next power of four."""
    most = 1 if count else 0
    while most < count:
        most *= 4
    return most


def _program(command: str) -> str:
    """What a shell's command runs first, but for changes of the folder; "" where that is not plain."""
    for part in _BETWEEN.split(command[:1000]):
        found = _PROGRAM.match(part.strip())
        if found is None:
            return ""
        if found[1] != "cd":
            return found[1]
    return ""
