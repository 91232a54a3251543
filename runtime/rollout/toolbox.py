"""Tools of a rollout: plain functions by name, called only with arguments that fit."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...tools import Call, Tool
from ...tools.limits import Limits
from ..ask import Message
from ..execute.executor import Executor
from ..execute.outcome import Plain
from ..execute.policy import Policy
from ..execute.toolset import Toolset

EXCUSED = (ValueError, ArithmeticError, LookupError, TimeoutError)
"""What a tool may raise because of what the model asked for."""

TIMEOUT_S = 60.0
"""How long a tool may take unless said otherwise: a sample that never ends would keep its whole group."""
MANY = 1_000_000
"""No bound to speak of: a model that learns fails often, and as often as there are samples."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a call."""

    message: Message
    fate: Literal["ran", "rejected", "failed"]
    seconds: float
    """For how long the rollout waited."""


class Toolbox:
    """Tools that samples may call, functions and coroutine functions alike; they return text, or what JSON can write.

    Functions run in threads, so that samples wait for their tools side by side. What it raises of
    `excused` is told to the model as the call's result; anything else ends the rollout.
    """

    def __init__(
        self,
        specs: Iterable[Mapping[str, Any]] = (),
        functions: Mapping[str, Callable[..., Any]] | None = None,
        *,
        timeout: float | None = TIMEOUT_S,
        excused: tuple[type[Exception], ...] = EXCUSED,
    ) -> None:
        """`specs` as OpenAI writes them. Raises BadTool for one that is none, and where specs and functions differ."""
        limits = Limits(timeout=timeout, at_once=MANY, failures=MANY)
        executor = Executor(Policy(default=limits, tenant=Limits(at_once=MANY)))
        self._set = Toolset(specs, functions, executor=executor)
        self._values = _Excusing(excused)
        self.tools: tuple[Tool, ...] = self._set.tools

    async def run(self, call: Call) -> Result:
        """Check the arguments and call the tool; a call that must not run is answered with what is wrong with it."""
        outcome = await self._set.run(call, values=self._values, then=_text)
        if outcome.code == "invalid":
            return Result(_told(call, outcome.told), "rejected", 0.0)
        if not outcome.answered:
            return Result(_told(call, outcome.told), "failed", outcome.seconds)
        return Result(_told(call, outcome.value), "ran", outcome.seconds)


class _Excusing(Plain):
    """Errors that nobody foresaw are the rollout's and not the model's."""

    def __init__(self, excused: tuple[type[Exception], ...]) -> None:
        self._excused = excused

    def passes(self, error: BaseException) -> bool:
        return isinstance(error, Exception) and not isinstance(error, self._excused)


def _text(value: Any) -> str:
    """Raises ValueError for what is neither text nor JSON."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, RecursionError) as error:
        raise ValueError(f"its result cannot be written as JSON: {error}") from error
    text.encode()  # half a surrogate is no text: UnicodeEncodeError is a ValueError
    return text


def _told(call: Call, text: str) -> Message:
    return Message("tool", text, tool=call.name, call=call.id)
