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
        timeout: float | None = None,
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
        except self._excused as error:
            text = compact([Problem("", f"{type(error).__name__}: {error}")])
            return Result(_told(call, text), "failed", clock() - begun)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return Result(_told(call, text), "ran", clock() - begun)

    async def _call(self, call: Call) -> Any:
        function = self._functions[call.name]
        if inspect.iscoroutinefunction(function):
            return await awithin(self._timeout, lambda: function(**call.arguments))
        calling = partial(within, self._timeout, lambda: function(**call.arguments))
        return await to_thread.run_sync(calling, abandon_on_cancel=True)


def _told(call: Call, text: str) -> Message:
    return Message("tool", text, tool=call.name, call=call.id)
