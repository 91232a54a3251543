"""What is wanted of a model: an answer to these messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..kvstore import RAW, codec_name
from ..tools import Call, Choice, Tool
from .errors import BadMessage
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
    granted: tuple[Tool, ...] | None = None
    """Those that may be called now, perhaps narrower: what a grammar lets through. The prompt shows all, always."""
    choice: Choice = field(default_factory=lambda: Choice("auto"))
    parallel: bool = True
    returns: bool = True
    """Whether results of its calls will come; off, a call is the answer itself, and nothing is held for it."""
    constrain: bool = True
    """Off: calls are parsed and checked, and nothing keeps the model from writing wrong ones."""
    schema: Mapping[str, Any] | None = None
    """The whole answer must be JSON that fits this schema."""
    sampling: Sampling = field(default_factory=Sampling)
    parts: bool = False
    """An answer that its limit cuts off goes on with the next ask; so no limit is too narrow for a call."""
    program: str = ""
    """Empty: a program of its own, that nobody tends."""
    tended: bool = True
    """Somebody will say when the program is over, with `Host.finish`; else its holds give way to whoever waits."""
    branch: str = "main"
    tenant: str = "default"
    codec: str = RAW
    """How its context is stored below the device: `raw`, bit for bit, or one that needs fewer bytes and loses some.

    Contexts of different codecs share nothing, so what is exact never meets what is not.
    """
    timeout: float | None = None
    """Seconds the answer may take, waiting for admission included; then TooLate."""

    def __post_init__(self) -> None:
        """Raises BadMessage for a tenant, program, branch or timeout that is none, ValueError for an unknown codec."""
        codec_name(self.codec)
        for name, value in (("tenant", self.tenant), ("program", self.program), ("branch", self.branch)):
            if not isinstance(value, str) or not _writable(value):
                raise BadMessage(f"{name}: found {value!r}; expected text")
        if not self.tenant:
            raise BadMessage("tenant: found no text; name one, or leave it out for `default`")
        if self.timeout is not None and (not isinstance(self.timeout, int | float) or not self.timeout >= 0):
            raise BadMessage(f"timeout: found {self.timeout!r}; expected seconds, or None for as many as it takes")


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a surrogate
        return False
    return True
