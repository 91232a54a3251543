"""From text to calls, while it streams."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from .bare import BareScanner
from .dialects import Dialect
from .errors import MalformedCall, Problem
from .scan import Argued, Closed, Named, ObjectScanner, Piece
from .schema import loads
from .spec import Call, Tool

LONGEST_NAME = 256
"""Characters in which a name must come to its end."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More text outside of calls."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call whose name is known; `index` counts the calls of the turn."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """More of a call's arguments, as the model wrote them."""

    index: int
    text: str


Delta: TypeAlias = TextDelta | CallBegun | ArgumentsDelta


Kind: TypeAlias = Literal["called", "text", "truncated", "malformed", "denied", "unknown_tool"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a turn came to."""

    kind: Kind
    """The worst that happened: truncated, then malformed, denied, unknown_tool, called, text.

    `truncated` is a turn cut inside a call, or in text before any call was finished.
    """
    text: str
    """All text outside of calls."""
    calls: tuple[Call, ...]
    """Every call that was finished and is strict JSON; of an unknown or denied tool too, so that it can be answered."""
    problems: tuple[Problem, ...] = ()


class Prose:
    """Where no tool may be called, nothing is a call: an answer is text, whatever it looks like."""

    def __init__(self) -> None:
        self._text: list[str] = []

    def feed(self, text: str) -> list[Delta]:
        """What this piece of text adds."""
        self._text.append(text)
        return [TextDelta(text)] if text else []

    def finish(self, truncated: bool) -> Outcome:
        """The outcome: all of it, as text."""
        return Outcome("truncated" if truncated else "text", "".join(self._text), ())


class Parser:
    """Splits a streaming answer into text and calls.

    Deltas of a call join to its final argument text byte for byte. A marker may arrive in any number of
    pieces. A call that was cut short, or is no strict JSON, never becomes a Call though deltas of it may have
    gone out.
    """

    def __init__(
        self,
        dialect: Dialect,
        tools: Sequence[Tool],
        *,
        ids: Callable[[], str] | None = None,
        allowed: Collection[str] | None = None,
    ) -> None:
        """`ids` gives the next call's id; by default call_0, call_1, ... `allowed` are the names that may be called,
        where those are not all that were shown."""
        self._dialect = dialect
        self._names = {tool.name for tool in tools}
        self._allowed = self._names if allowed is None else set(allowed)
        self._ids = ids or counted("call_")
        self._held = ""
        self._text: list[str] = []
        self._calls: list[Call] = []
        self._problems: list[tuple[Kind, Problem]] = []
        self._draft: _Draft | None = None
        self._begun = 0
        self._state: Literal["start", "text", "calls", "name"] = "start" if dialect.anchored else "text"

    def feed(self, text: str) -> list[Delta]:
        """What this piece of text adds."""
        self._held += text
        out: list[Delta] = []
        while self._step(out):
            pass
        return out

    def finish(self, truncated: bool) -> Outcome:
        """The outcome; `truncated` when the text was cut rather than ended by the model.

        Text held back as a possible marker counts as text. A call whose object is whole but whose end marker
        is missing counts only when the model itself ended there.
        """
        draft, self._draft = self._draft, None
        open_now = draft is not None or self._state == "name" or (self._state == "calls" and not self._calls)
        open_now |= self._state == "calls" and bool(self._dialect.opening)
        cut = truncated and (open_now or not self._calls)
        if draft is not None:
            if not truncated:
                self._close(draft)
        elif self._state == "name":
            self._wrong("malformed", "a tool call was not finished")
        elif self._state != "calls" or self._held.strip():
            self._text.append(self._held)
        self._held = ""
        kinds: set[Kind] = {kind for kind, _ in self._problems}
        order: tuple[Kind, ...] = ("malformed", "denied", "unknown_tool")
        worst: Kind = "called" if self._calls else "text"
        kind: Kind = "truncated" if cut else next((each for each in order if each in kinds), worst)
        problems = [problem for _, problem in self._problems]
        if cut and open_now:
            problems.append(Problem("", "the answer was cut off inside a tool call: say it in fewer tokens"))
        return Outcome(kind, "".join(self._text), tuple(self._calls), tuple(problems))

    def _step(self, out: list[Delta]) -> bool:
        """One move over the held text; False when more is needed."""
        if self._draft is None:
            steps = {
                "start": self._step_start,
                "text": self._step_text,
                "calls": self._step_calls,
                "name": self._step_name,
            }
            return steps[self._state](out)
        if self._draft.scanner.state == "inside":
            used, pieces = self._draft.scanner.feed(self._held)
            self._held = self._held[used:]
            self._take(self._draft, pieces, out)
            if self._draft.scanner.state == "inside":
                return False
        return self._step_end()

    def _step_start(self, out: list[Delta]) -> bool:
        """At the answer's first character, which says whether it is a call."""
        if not (rest := self._held.lstrip()):
            return False
        self._state = "calls" if rest.startswith("{") else "text"
        return True

    def _step_text(self, out: list[Delta]) -> bool:
        sign = self._dialect.opening or self._dialect.begin
        before, marker, after = self._held.partition(sign) if sign else (self._held, "", "")
        if not marker:
            keep = _overlap(self._held, sign)
            before, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        elif self._dialect.opening:
            self._held, self._state = after, "calls"
        else:
            self._held = after
            self._begin()
        if before:
            self._text.append(before)
            out.append(TextDelta(before))
        return bool(marker)

    def _step_calls(self, out: list[Delta]) -> bool:
        """Between the calls of a section, where blanks and what parts calls mean nothing."""
        dialect = self._dialect
        held = self._held.lstrip(" \t\r\n" + (dialect.lead + dialect.between).strip())
        for sign in filter(None, (dialect.closing, dialect.begin or "{")):
            if held.startswith(sign):
                if sign == dialect.closing:
                    self._held, self._state = held[len(sign) :], "text"
                else:
                    self._held = held[len(dialect.begin) :]
                    self._begin()
                return True
            if sign.startswith(held):
                return False  # it may still become one
        self._state = "text"
        return True

    def _begin(self) -> None:
        """A call begins here; where its name stands apart, with that."""
        if self._dialect.head:
            self._state = "name"
        else:
            self._draft = _Draft(ObjectScanner(self._dialect.name_key, self._dialect.arguments_key))

    def _step_name(self, out: list[Delta]) -> bool:
        before, _, after = self._dialect.head.partition("{name}")
        held = self._held
        sign = after or "{"  # where nothing stands behind the name, its arguments end it
        name, marker, rest = held[len(before) :].partition(sign)
        fits = held.startswith(before) or before.startswith(held)
        fits &= not self._dialect.end or self._dialect.end not in name
        if fits and not marker and "{" not in name and len(name) < LONGEST_NAME:
            return False
        quote = self._dialect.quote
        written = ObjectScanner(self._dialect.name_key, self._dialect.arguments_key, bare=True)
        draft = _Draft(BareScanner(quote) if quote else written)
        self._draft, self._state = draft, "calls" if self._dialect.opening else "text"
        if not fits or not marker:
            draft.scanner.state, draft.scanner.fault = "broken", f"expected a name and {sign!r}"
            return True
        self._held = rest if after else marker + rest
        self._take(draft, [Named(name.strip())], out)
        return True

    def _step_end(self) -> bool:
        draft = self._draft
        assert draft is not None
        end = self._dialect.end
        if not end and draft.scanner.state == "closed":
            self._draft = None
            self._state = "calls" if self._dialect.opening or self._dialect.anchored else "text"
            self._close(draft)
            return bool(self._held)
        between, marker, after = self._held.partition(end) if end else ("", "", "")
        if not marker:
            keep = _overlap(self._held, end)
            draft.trailing += self._held[: len(self._held) - keep]
            self._held = self._held[len(self._held) - keep :]
            return False
        draft.trailing += between
        self._held, self._draft = after, None
        self._close(draft)
        return True

    def _take(self, draft: _Draft, pieces: Sequence[Piece], out: list[Delta]) -> None:
        for piece in pieces:
            match piece:
                case Named(name):
                    draft.name = name
                    draft.index, self._begun = self._begun, self._begun + 1
                    draft.id = self._ids()
                    out.append(CallBegun(draft.index, draft.id, name))
                    if draft.arguments:
                        out.append(ArgumentsDelta(draft.index, "".join(draft.arguments)))
                case Argued(text):
                    draft.arguments.append(text)
                    if draft.name is not None:
                        out.append(ArgumentsDelta(draft.index, text))
                case Closed():
                    if draft.name is not None and not draft.arguments:
                        draft.arguments.append("{}")
                        out.append(ArgumentsDelta(draft.index, "{}"))

    def _close(self, draft: _Draft) -> None:
        """The draft becomes a call, or a problem."""
        scanner = draft.scanner
        if scanner.state == "inside":
            self._wrong("malformed", "a tool call was not finished")
        elif scanner.state == "broken":
            self._wrong("malformed", f"a tool call is not JSON of the expected form: {scanner.fault}")
        elif rest := draft.trailing.strip().removesuffix(self._dialect.tail.strip()).strip():
            self._wrong("malformed", f"after a tool call's object stands {rest[:40]!r}")
        elif draft.name is None:
            self._wrong("malformed", f"a tool call has no {json.dumps(self._dialect.name_key)}")
        else:
            text = "".join(draft.arguments)
            try:
                arguments = loads(text)
            except MalformedCall as fault:
                self._wrong("malformed", f"the arguments of {draft.name} are {fault}")
                return
            assert isinstance(arguments, dict)  # the scanner lets nothing else by
            self._calls.append(Call(draft.id, draft.name, arguments, text))
            if draft.name not in self._names:
                self._wrong("unknown_tool", f"there is no tool {draft.name[:140]!r}")
            elif draft.name not in self._allowed:
                self._wrong("denied", f"the tool {draft.name!r} may not be called here")

    def _wrong(self, kind: Kind, message: str) -> None:
        self._problems.append((kind, Problem("", message)))


def counted(prefix: str) -> Callable[[], str]:
    """Ids that are the prefix and a number: the same for every replay."""
    count = -1

    def following() -> str:
        nonlocal count
        count += 1
        return f"{prefix}{count}"

    return following


class _Draft:
    """A call being written."""

    def __init__(self, scanner: ObjectScanner | BareScanner) -> None:
        self.scanner = scanner
        self.index = -1
        self.id = ""
        self.name: str | None = None
        self.arguments: list[str] = []
        self.trailing = ""


def _overlap(text: str, marker: str) -> int:
    """How many characters at the end of the text may be the beginning of the marker."""
    return next((n for n in range(min(len(marker) - 1, len(text)), 0, -1) if marker.startswith(text[-n:])), 0)
