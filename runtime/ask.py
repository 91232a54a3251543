"""What is wanted of a model: an answer to these messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..tools import Call, Choice, Tool
from .sampling import Sampling

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    text: str
    calls: tuple[Call, ...] = ()
    """What an assistant called; its text stands before them."""
    tokens: tuple[int, ...] = ()
    """The ids an assistant's answer was sampled as, if we sampled it."""
    tool: str = ""
    """The tool whose result this is."""
    call: str = ""
    """The call that it answers."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One question, and all that decides how it is answered."""

    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    choice: Choice = field(default_factory=lambda: Choice("auto"))
    parallel: bool = True
    returns: bool = True
    """Whether results of its calls will come; off, a call is the answer itself, and nothing is held for it."""
    constrain: bool = True
    """Off: calls are parsed and checked, and nothing keeps the model from writing wrong ones."""
    schema: Mapping[str, Any] | None = None
    """The whole answer must be JSON that fits this schema."""
    sampling: Sampling = field(default_factory=Sampling)
    program: str = ""
    """Empty: a program of its own, that nobody tends."""
    tended: bool = True
    """Somebody will say when the program is over, with `Host.finish`; else its holds give way to whoever waits."""
    branch: str = "main"
    tenant: str = "default"
    timeout: float | None = None
    """Seconds the answer may take, waiting for admission included; then TooLate."""
