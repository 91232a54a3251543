"""Tools of a rollout: plain functions by name, called only with arguments that fit."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from anyio import to_thread

from ...tools import BadTool, Call, Dispatch, Problem, Tool, compact, decide, read_tools, validators
from ..ask import Message
from ..execute.deadline import ToolTimedOut, awithin, within

EXCUSED = (ValueError, ArithmeticError, LookupError, TimeoutError, ToolTimedOut)
"""What a tool may raise because of what the model asked for."""

TIMEOUT_S = 60.0
"""How long a tool may take unless said otherwise: a sample that never ends would keep its whole group."""
FOREVER = 86_400.0 * 365
"""None, where a number is wanted."""


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
        self.tools: tuple[Tool, ...] = read_tools(specs)
        self._functions = dict(functions or {})
        self._timeout = timeout
        self._excused = excused
        self._validators = validators(self.tools)
        names = {tool.name for tool in self.tools}
        for name in sorted(names - self._functions.keys()):
            raise BadTool(name, "a specification and no function", "a function of this name")
        for name in sorted(self._functions.keys() - names):
            raise BadTool(name, "a function and no specification", "a specification of this name")

    async def run(self, call: Call) -> Result:
        """Check the arguments and call the tool; a call that must not run is answered with what is wrong with it."""
        verdict = decide(call, self.tools, self._validators)
        if not isinstance(verdict, Dispatch):
            return Result(_told(call, verdict.message), "rejected", 0.0)
        clock = asyncio.get_running_loop().time
        begun = clock()
        try:
            value = await self._call(call)
            text = _text(value)
        except self._excused as error:
            text = compact([Problem("", f"{type(error).__name__}: {error}")])
            return Result(_told(call, text), "failed", clock() - begun)
        return Result(_told(call, text), "ran", clock() - begun)

    async def _call(self, call: Call) -> Any:
        function = self._functions[call.name]
        if inspect.iscoroutinefunction(function):
            return await awithin(self._timeout, lambda: function(**call.arguments))
        # A thread of its own, which nobody waits for in the end: a tool that hangs must not keep the process.
        calling = partial(within, self._timeout or FOREVER, lambda: function(**call.arguments))
        value = await to_thread.run_sync(calling, abandon_on_cancel=True)
        return await awithin(self._timeout, lambda: value) if inspect.isawaitable(value) else value


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
