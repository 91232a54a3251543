"""One turn as it is handed to the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..kvstore import RAW
from ..scheduler import TurnId
from ..tools import Grammar
from ..tracing import Place
from .ask import Ask
from .engines import End, Watch
from .remnant import Remnant
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
    shape: Callable[[str, End], str] = lambda text, reason: ""
    """Of what those tools were given: pauses of one shape are alike."""
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
    remnant: Remnant | None = None
    """What of the context is left, where it was thinned."""
    watches: Sequence[Watch] = ()
    """Who looks at its logits."""
    ending: Callable[[TurnId], object] = lambda turn: None
    """Called in the loop when the turn is about to end, while what it has computed is its own."""

    def __post_init__(self) -> None:
        if self.forced == ():
            raise ValueError("forced: found no token; give at least one, or None for an answer of the model's own")
        if not 0 <= self.said <= len(self.tokens):
            raise ValueError(f"said: found {self.said} of {len(self.tokens)} tokens; give 0 to {len(self.tokens)}")

    @property
    def owner(self) -> tuple[str, str]:
        """Whose context it is, and by which codec it is stored: its root is made of both."""
        return self.tenant, self.codec

    @property
    def slots(self) -> tuple[int, ...]:
        """What the schedule knows it by: all tokens, or what is left of those that were thinned, and the rest."""
        return self.tokens if self.remnant is None else self.remnant.slots(self.tokens)

    @property
    def least(self) -> int:
        """Leading slots that must be found, because they cannot be computed."""
        return 0 if self.remnant is None else len(self.remnant.kept)

    @property
    def dropped(self) -> int:
        """Of so many tokens of the context each head has nothing any more."""
        return 0 if self.remnant is None else self.remnant.dropped
