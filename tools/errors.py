"""What can go wrong with a tool call, and what to tell the model.

ToolError
├── BadTool           a tool's description is not one: no name, a schema that is none, ...
│   └── BadSchema     the schema of its parameters (or of an answer) cannot be used
├── BadChoice         a tool choice names no offered tool, or is of no known form
├── MalformedCall     what the model wrote is not strict JSON
└── GrammarRefused    the grammar engine cannot build what was asked
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

SHOWN = 3
"""Problems shown to the model at once: more only cost tokens."""


class ToolError(Exception):
    """Any fault around a tool call."""


class BadTool(ToolError):
    """A tool cannot be registered."""

    def __init__(self, name: str, found: str, expected: str) -> None:
        super().__init__(f"tool {name!r}: found {found}; expected {expected}")
        self.name = name


class BadSchema(BadTool):
    """A JSON Schema cannot be used; `path` is the place inside it."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        ToolError.__init__(self, f"schema at {path or '/'}: found {found}; expected {expected}")
        self.name = ""
        self.path = path
        self.found = found
        self.expected = expected


class BadChoice(ToolError):
    """A tool choice cannot be honoured with the tools offered."""

    def __init__(self, found: object, offered: Sequence[str]) -> None:
        names = ", ".join(sorted(offered)) or "no tool at all"
        super().__init__(
            f"tool choice {found!r}: expected 'auto', 'any', 'none' or the name of an offered tool ({names})"
        )


class MalformedCall(ToolError):
    """Text that should be JSON is not, or not strictly."""


class GrammarRefused(ToolError):
    """The grammar engine refused; `reason` is what it said."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"no grammar for {what}: {reason}; simplify the schema, or decode without a grammar")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a call, small enough to be shown to a model."""

    path: str
    """JSON Pointer into the arguments; empty for the call as a whole."""
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


def compact(problems: Sequence[Problem], *, shape: str = "", tools: Sequence[str] = ()) -> str:
    """The message handed back to the model: what was wrong, the shape expected, the names that exist.

    At most SHOWN problems, no traceback, the same bytes for the same input.
    """
    shown = [str(problem) for problem in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append(f"and {len(problems) - SHOWN} more")
    lines = ["The tool was not called. " + "; ".join(shown) + "."]
    if shape:
        lines.append(f"Expected arguments: {shape}")
    if tools:
        lines.append("Tools: " + ", ".join(sorted(tools)))
    return "\n".join(lines)
