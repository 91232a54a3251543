"""Tool calls are checked before they are dispatched, and what is wrong goes back to the model in a few words."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool
from langgraph.config import get_config
from langgraph.prebuilt import ToolNode
from langgraph.prebuilt.tool_node import ToolCallRequest
from langgraph.types import Command

from ...tools import BadTool, Call, Dispatch, Problem, Reject, Tool, Verdict, compact, decide, validators
from ...tools.limits import Limits
from ..errors import RepairsSpent
from ..execute.authority import Place
from ..execute.executor import Executor
from ..execute.outcome import Job, Outcome
from ..execute.policy import Policy
from .langgraph_grants import Ceilings, ceilings_of, masked, server_of, spec_of
from .langgraph_jobs import ToolMessages, configured, key_of, messages_of, sibling_in, sibling_of
from .langgraph_saver_copies import copied_from
from .langgraph_unreadable import REJECTED, AnsweringNode, check_repairs, corrections

Result = ToolMessage | Command[Any]
REPAIRS = 3
"""Rejected calls in a row that are handed back to the model before the run is given up."""


def tool_node(
    tools: Sequence[BaseTool | Callable[..., Any]],
    *,
    timeout: float | None = None,
    repairs: int = REPAIRS,
    executor: Executor | None = None,
    grants: Ceilings | None = None,
    name: str = "tools",
) -> ToolNode:
    """A ToolNode that runs only calls that fit their tool's schema.

    A call that does not fit, names no tool, raises or takes longer than `timeout` seconds is answered with a short
    error message, and so is one that could not even be read: `tools_condition` sends those here, too. After `repairs`
    rejected calls in a row RepairsSpent ends the run. An `executor` of your own says
    more of tools than how long they may take. `grants` are the most that this node may do, by tool; with it, what is
    not granted is denied.
    """
    node = ToolNode(tools, name=name)
    own = _executor(timeout, executor)
    guard = Guard(list(node.tools_by_name.values()), repairs=repairs, executor=own, grants=grants)
    # ToolNode's own error handling is off: whatever a tool raises comes to the guard, which knows what to tell.
    made = AnsweringNode(
        tools, name=name, handle_tool_errors=False, wrap_tool_call=guard.call, awrap_tool_call=guard.acall
    )
    made.repairs = repairs
    return made


class Guard:
    """The check between a model and its tools: fits `ToolNode(wrap_tool_call=...)`, sync and async."""

    def __init__(
        self,
        tools: Sequence[BaseTool],
        *,
        repairs: int = REPAIRS,
        executor: Executor | None = None,
        grants: Ceilings | None = None,
    ) -> None:
        self._executor = executor or Executor()
        self._tools = tuple(self._read(tool) for tool in tools)
        self._validators = validators(self._tools)
        self._repairs = repairs
        self._grants = grants

    def call(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Result]) -> Result:
        """Run a call if it may be; otherwise, and when it fails, say so in a few words."""
        job = self._job(request)
        if not isinstance(job, Job):
            return job
        return _answer(request, self._executor.run(job, lambda: execute(request), _VALUES))

    async def acall(self, request: ToolCallRequest, execute: Callable[[ToolCallRequest], Awaitable[Result]]) -> Result:
        """As `call`, for coroutines."""
        job = self._job(request)
        if not isinstance(job, Job):
            return job
        return _answer(request, await self._executor.arun(job, lambda: execute(request), _VALUES))

    def verdict(self, asked: ToolCall) -> Verdict:
        """May this call be dispatched?"""
        try:
            text = json.dumps(asked["args"], ensure_ascii=False)
        except RecursionError:
            problem = Problem("", "the arguments are nested too deep")
            return Reject(Call(str(asked["id"]), asked["name"], {}, ""), (problem,), compact([problem]))
        return decide(Call(str(asked["id"]), asked["name"], asked["args"], text), self._tools, self._validators)

    def _read(self, tool: BaseTool) -> Tool:
        try:
            return spec_of(tool)
        except (BadTool, ValueError):  # LangChain's own reading may refuse it first
            self._executor.refuse(tool.name)
            raise

    def _job(self, request: ToolCallRequest) -> Job | ToolMessage:
        known = configured(request)
        sibling, whole = sibling_of(request, known)
        if sibling is not None and whole:
            self._executor.expect(sibling)
        verdict = self.verdict(request.tool_call)
        place = Place(
            str(known.get("tenant") or "default"),
            str(known.get("thread_id") or ""),
            str(known.get("langgraph_checkpoint_ns") or ""),
            server_of(request.tool),
        )
        origin = copied_from(known.get("__pregel_checkpointer"), place.session)
        if origin is not None:  # a copy of a thread has no budget of its own
            self._executor.authority.follow(place.tenant, origin, place.session)
        if isinstance(verdict, Dispatch):
            return Job(
                verdict.call,
                verdict.tool,
                place,
                sibling=sibling,
                ceilings=ceilings_of(self._grants, request.state),
                key=key_of(request, known),
                alone=not whole or sibling is None,
            )
        self._executor.reject(verdict.call, place, "invalid" if request.tool is not None else "unknown tool", sibling)
        told = verdict.message
        check_repairs(messages_of(request.state), self._repairs, told)
        return _error(request, told, rejected=True)


class ToolGuard(AgentMiddleware):
    """The same check for `create_agent(middleware=[ToolGuard()])`.

    A call that could not even be read (it was cut off, or is no JSON) goes back to the model too, at most `repairs`
    times a turn.
    """

    def __init__(
        self,
        *,
        timeout: float | None = None,
        repairs: int = REPAIRS,
        executor: Executor | None = None,
        grants: Ceilings | None = None,
    ) -> None:
        super().__init__()
        self._repairs = repairs
        self._grants = grants
        self._executor = _executor(timeout, executor)
        self._guards: dict[int, tuple[BaseTool | None, Guard]] = {}

    def wrap_tool_call(self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Result]) -> Result:
        return self._guard(request).call(request, handler)

    async def awrap_tool_call(
        self, request: ToolCallRequest, handler: Callable[[ToolCallRequest], Awaitable[Result]]
    ) -> Result:
        return await self._guard(request).acall(request, handler)

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        request = masked(request, self._executor.authority, self._grants, _configured())
        response = handler(request)
        for _ in range(self._repairs):
            again = _ask_again(request, response)
            if again is None:
                break
            request, response = again, handler(again)
        return self._answered(response)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        request = masked(request, self._executor.authority, self._grants, _configured())
        response = await handler(request)
        for _ in range(self._repairs):
            again = _ask_again(request, response)
            if again is None:
                break
            request, response = again, await handler(again)
        return self._answered(response)

    def _answered(self, response: ModelResponse[Any]) -> ModelResponse[Any]:
        """With an answer to each call that could not be read; those beside it are made."""
        _spent(response, self._repairs)
        self._expect(response)
        said = response.result[-1]
        if isinstance(said, AIMessage) and (told := [each for each in corrections(said) if each.type == "tool"]):
            return replace(response, result=[*response.result, *told])
        return response

    def _expect(self, response: ModelResponse[Any]) -> None:
        """All of these calls will come, each as a task of its own: known only here, where they are new."""
        said = response.result[-1]
        if isinstance(said, AIMessage) and len(said.tool_calls) > 1 and said.id:
            sibling = sibling_in(said, str(said.tool_calls[0]["id"]), _configured())
            if sibling is not None:
                self._executor.expect(sibling)

    def _guard(self, request: ToolCallRequest) -> Guard:
        # By the tool itself, which is kept along: two tools of one name may have different schemas.
        tool = request.tool
        if id(tool) not in self._guards:
            guard = Guard(
                [] if tool is None else [tool], repairs=self._repairs, executor=self._executor, grants=self._grants
            )
            self._guards[id(tool)] = (tool, guard)
        return self._guards[id(tool)][1]


_VALUES = ToolMessages()


def _configured() -> dict[str, Any]:
    given = get_config()
    return {**given.get("metadata", {}), **given.get("configurable", {})}


def _executor(timeout: float | None, executor: Executor | None) -> Executor:
    """The one given, or one that knows of tools only how long they may take. Raises ValueError for both at once."""
    if executor is None:
        return Executor(Policy(default=Limits(timeout=timeout)))
    if timeout is not None:
        raise ValueError(f"timeout {timeout} and an executor: give Policy(default=Limits(timeout={timeout})) to that")
    return executor


def _answer(request: ToolCallRequest, outcome: Outcome) -> Result:
    if outcome.answered:
        given: Result = outcome.value
        return given
    return _error(request, outcome.told, rejected=False)


def once(specs: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same tools without repetition: a class and its own schema are one tool. Titles make no difference."""
    kept: dict[str, dict[str, Any]] = {}
    for spec in specs:
        kept.setdefault(json.dumps(_untitled(spec), sort_keys=True, default=str), spec)
    return list(kept.values())


def _untitled(value: Any) -> Any:
    if isinstance(value, list):
        return [_untitled(item) for item in value]
    if not isinstance(value, dict):
        return value
    # A title is text; a property of that name is a schema.
    return {key: _untitled(item) for key, item in value.items() if key != "title" or not isinstance(item, str)}


def _ask_again(request: ModelRequest[Any], response: ModelResponse[Any]) -> ModelRequest[Any] | None:
    last = response.result[-1]
    if not isinstance(last, AIMessage) or last.tool_calls or not last.invalid_tool_calls:
        return None
    return request.override(messages=[*request.messages, last, *corrections(last)])


def _spent(response: ModelResponse[Any], repairs: int) -> None:
    """A run does not end on a call that nobody read."""
    last = response.result[-1]
    if isinstance(last, AIMessage) and last.invalid_tool_calls and not last.tool_calls:
        told = corrections(last)[-1].text
        raise RepairsSpent(f"{repairs + 1} answers in a row held no tool call that could be read; the last: {told}")


def _error(request: ToolCallRequest, told: str, *, rejected: bool) -> ToolMessage:
    call = request.tool_call
    extra = {REJECTED: True} if rejected else {}
    return ToolMessage(told, name=call["name"], tool_call_id=call["id"], status="error", additional_kwargs=extra)
