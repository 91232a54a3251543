"""What a finished answer calls: tools by their names, and the shape of what they were given. It is read once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..tools import Call, Parser, Prose, Tool, alike
from .engines import End


class Called:
    """The calls of one answer that goes on from `before`; both functions are asked when it has ended."""

    def __init__(self, parser: Callable[[], Parser | Prose], before: str, tools: Sequence[Tool]) -> None:
        self._parser = parser
        self._before = before
        self._tools = tools
        self._read: tuple[str, End, tuple[Call, ...]] = ("", "stop", ())

    def names(self, text: str, reason: End) -> tuple[str, ...]:
        """Of the tools that are called."""
        return tuple(call.name for call in self._calls(text, reason))

    def shape(self, text: str, reason: End) -> str:
        """Of their arguments: calls of one shape are alike."""
        return alike(self._calls(text, reason), self._tools)

    def _calls(self, text: str, reason: End) -> tuple[Call, ...]:
        if self._read[:2] != (text, reason):
            reader = self._parser()
            reader.feed(self._before + text)
            self._read = (text, reason, tuple(reader.finish(truncated=reason != "stop").calls))
        return self._read[2]
