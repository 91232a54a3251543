"""Plain functions as tools: checked, allowed, run and recorded by an executor, whoever asks for them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

from anyio import to_thread

from ...tools import BadTool, Call, Dispatch, Tool, decide, read_tools, validators
from ...tools.grants import Ceiling
from .authority import Place
from .deadline import within
from .executor import Executor
from .outcome import Job, Outcome, Values

FOREVER = 86_400.0 * 365
"""None, where a number is wanted."""


class Toolset:
    """Functions and coroutine functions, each with the specification that a model is shown.

    Functions run in threads, so that calls wait for their tools side by side.
    """

    def __init__(
        self,
        specs: Iterable[Mapping[str, Any]] = (),
        functions: Mapping[str, Callable[..., Any]] | None = None,
        *,
        executor: Executor | None = None,
        grants: Mapping[str, Ceiling] | None = None,
    ) -> None:
        """`specs` as OpenAI or the Model Context Protocol writes them; `grants` the most that may be done, by tool.

        Raises BadTool for a specification that is none, and where specifications and functions differ.
        """
        self.tools: tuple[Tool, ...] = read_tools(specs)
        self._functions = dict(functions or {})
        self._executor = executor or Executor()
        self._grants = grants
        self._validators = validators(self.tools)
        names = {tool.name for tool in self.tools}
        for name in sorted(names - self._functions.keys()):
            raise BadTool(name, "a specification and no function", "a function of this name")
        for name in sorted(self._functions.keys() - names):
            raise BadTool(name, "a function and no specification", "a specification of this name")

    async def run(
        self,
        call: Call,
        place: Place | None = None,
        *,
        values: Values | None = None,
        then: Callable[[Any], Any] = lambda v: v,
    ) -> Outcome:
        """What comes of a call, one that does not fit included; `then` makes of its result what is wanted.

        Raises only what `values` lets pass.
        """
        where = place or Place()
        verdict = decide(call, self.tools, self._validators)
        if not isinstance(verdict, Dispatch):
            known = any(tool.name == call.name for tool in self.tools)
            self._executor.reject(call, where, "invalid" if known else "unknown tool")
            return Outcome("invalid", told=verdict.message)
        job = Job(verdict.call, verdict.tool, where, ceilings=self._grants)

        async def attempt() -> Any:
            return then(await self._call(verdict.call))

        return await self._executor.arun(job, attempt, values)

    async def _call(self, call: Call) -> Any:
        function = self._functions[call.name]
        if inspect.iscoroutinefunction(function):
            return await function(**call.arguments)
        # A thread of its own, which nobody waits for in the end: a tool that hangs must not keep the process.
        seconds = self._executor.policy.limit(call.name).timeout or FOREVER
        calling = partial(within, seconds, lambda: function(**call.arguments))
        value = await to_thread.run_sync(calling, abandon_on_cancel=True)
        return await value if inspect.isawaitable(value) else value
