"""One turn as it is handed to the loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..kvstore.exactness import RAW
from ..tools import Grammar
from ..tracing import Place
from .ask import Ask
from .engines import End
from .sampling import Sampling


@dataclass(frozen=True, slots=True)
class Request:
    """One turn to be run. ValueError for what can never be one."""

    program: str
    branch: str
    tokens: tuple[int, ...]
    sampling: Sampling
    tenant: str = "default"
    codec: str = RAW
    """How its context is stored below the device."""
    said: int = 0
    """So many of the last tokens are the answer itself, begun before, that goes on."""
    grammar: Grammar | None = None
    """Stands behind what was said."""
    tools_called: Callable[[str, End], tuple[str, ...]] = lambda text, reason: ()
    """Names of the tools that a finished answer calls: if there are any, the program pauses and will come back."""
    forced: tuple[int, ...] | None = None
    """Said instead of an answer of the model's own; at least one token."""
    tended: bool = True
    """Somebody will say when the program is over (`Closed`)."""
    timeout: float | None = None
    """Seconds after which an answer is wanted no more, waiting for admission included."""
    ask: Ask | None = None
    """The question behind the tokens, for engines that take messages."""
    place: Place | None = None
    """The model call's, in its trace."""

    def __post_init__(self) -> None:
        if self.forced == ():
            raise ValueError("forced: found no token; give at least one, or None for an answer of the model's own")
        if not 0 <= self.said <= len(self.tokens):
            raise ValueError(f"said: found {self.said} of {len(self.tokens)} tokens; give 0 to {len(self.tokens)}")
