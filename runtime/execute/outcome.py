"""A call to be made, and what came of it: one of a closed set."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from ...tools import Call, Tool
from ...tools.grants import Ceiling
from .authority import Place

Code: TypeAlias = Literal[
    "ran",  # it answered
    "cached",  # an earlier answer still holds
    "shared",  # an equal call was under way, and its answer is this one's too
    "invalid",  # the arguments do not fit, or there is no such tool
    "denied",  # no grant allows it
    "unmet",  # a precondition does not hold
    "limited",  # too many calls
    "open",  # the tool kept failing and is left alone
    "late",  # it did not begin or answer in time, and has done nothing
    "failed",  # it raised
    "misshapen",  # it answered, with what is too long or not what it promised
    "unknown",  # it was cut off: nobody knows whether it took effect
    "cancelled",  # it was given up, and has done nothing
    "put_off",  # it will be called again, when whoever was asked has answered
]


@dataclass(frozen=True, slots=True)
class Sibling:
    """Where a call stands among those of its turn."""

    turn: Hashable
    place: int
    calls: tuple[tuple[str, Mapping[str, Any]], ...]
    """All of the turn: names and arguments."""
    run: object = None
    """Tells one run of the graph from another: what a person was asked in the one is answered in the next."""


@dataclass(frozen=True, slots=True)
class Job:
    """A call that fits its tool, and for whom it is made."""

    call: Call
    tool: Tool
    place: Place = field(default_factory=Place)
    sibling: Sibling | None = None
    ceilings: Mapping[str, Ceiling] | None = None
    """What the node may do at most, by tool; None: nobody has said that anything needs a grant."""
    key: str = ""
    """Names the call in its session, so that it is known again; empty where nothing does."""
    alone: bool = True
    """No other call of the same node can be asking a person at the same time."""

    @property
    def tenant(self) -> str:
        return self.place.tenant

    @property
    def session(self) -> str:
        return self.place.session


class Denied(Exception):
    """Raised by an attempt that did nothing, since it must not: the tool is not what was granted, say."""

    def __init__(self, code: str, told: str) -> None:
        super().__init__(told)
        self.code = code
        """As of a refusal: `missing`, `changed`."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call."""

    code: Code
    value: Any = None
    told: str = ""
    """To the model, where there is no value."""
    attempts: int = 0
    seconds: float = 0.0
    retry_after: float | None = None

    @property
    def answered(self) -> bool:
        """There is a value."""
        return self.code in ("ran", "cached", "shared")


class Values(Protocol):
    """What may be known of the values that tools of one kind return."""

    def text(self, value: Any) -> str | None:
        """What the model will read; None where it is no text."""
        ...

    def structured(self, value: Any) -> Any:
        """What a tool that says what it returns must have returned."""
        ...

    def again(self, value: Any, call: Call) -> Any | None:
        """The same answer as that of another, equal call; None if it is only that call's own."""
        ...

    def passes(self, error: BaseException) -> bool:
        """It is no fault of the tool's, but a message to whoever runs the graph."""
        ...

    def put_off(self) -> Exception:
        """What to raise in a call that must wait for one that was itself put off; it `passes`, if such there are."""
        ...


class Plain:
    """Of functions that return plain values."""

    def text(self, value: Any) -> str | None:
        return value if isinstance(value, str) else None

    def structured(self, value: Any) -> Any:
        return value

    def again(self, value: Any, call: Call) -> Any | None:
        return value

    def passes(self, error: BaseException) -> bool:
        return False

    def put_off(self) -> Exception:
        return RuntimeError("an earlier call of the turn was put off, though nothing can put it off")
