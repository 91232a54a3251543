"""The demo's agents: LangGraph's own `create_agent`, a real model, real tools."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import AIMessage, BaseMessage, ToolCall, ToolMessage
from langchain_core.tools import BaseTool

from ...tools import Reject
from ..doors.langgraph import ChatSostenuto, ToolGuard, wrap
from ..doors.langgraph_messages import KEY
from ..doors.langgraph_tools import Guard
from ..doors.langgraph_unreadable import REJECTED
from ..errors import Refused, RepairsSpent
from ..host import Host
from .tasks import Task

SYSTEM = "You work at an instrument workshop. Use the tools to find the answer, then give it with final_answer."


@dataclass(frozen=True, slots=True)
class Run:
    """What one agent did."""

    task: Task
    messages: tuple[BaseMessage, ...]
    times: tuple[float, ...]
    """When each message came, in seconds."""
    refused: str = ""
    """Why it could not go on, if it could not."""
    gave_up: str = ""
    """Why it was not asked again, if its model wrote no call that could be read."""

    @property
    def pauses(self) -> tuple[str, ...]:
        """How long tools ran after each model call."""
        told = []
        for index, message in enumerate(self.messages):
            if isinstance(message, AIMessage):
                later = [time for m, time in zip(self.messages, self.times, strict=True) if isinstance(m, ToolMessage)]
                after = [time for time in later if time >= self.times[index]]
                told.append(f"{(after[0] - self.times[index]) * 1000:.0f} ms" if after else "-")
        return tuple(told)

    @property
    def turns(self) -> tuple[dict[str, Any], ...]:
        """The facts about each model call, as its message carries them."""
        return tuple(m.response_metadata[KEY]["turn"] for m in self.messages if isinstance(m, AIMessage))

    @property
    def answer(self) -> str:
        """What the agent said in the end."""
        return str(self.messages[-1].text)

    @property
    def repaired(self) -> int:
        """Rejected calls that were followed by a valid one."""
        return sum(
            1
            for before, after in zip(self.messages, self.messages[1:], strict=False)
            if isinstance(before, ToolMessage)
            and REJECTED in before.additional_kwargs
            and isinstance(after, AIMessage)
            and after.tool_calls
        )

    @property
    def rejected(self) -> int:
        """Calls that were not dispatched because they did not fit."""
        return sum(1 for m in self.messages if isinstance(m, ToolMessage) and REJECTED in m.additional_kwargs)

    @property
    def unread(self) -> int:
        """Answers that held no readable call."""
        return sum(bool(m.invalid_tool_calls) for m in self.messages if isinstance(m, AIMessage)) + bool(self.gave_up)

    @property
    def dispatched(self) -> tuple[ToolCall, ...]:
        """Calls that were run."""
        rejected = {
            m.tool_call_id for m in self.messages if isinstance(m, ToolMessage) and REJECTED in m.additional_kwargs
        }
        made = (call for m in self.messages if isinstance(m, AIMessage) for call in m.tool_calls)
        return tuple(call for call in made if call["id"] not in rejected)

    def invalid_dispatched(self, tools: Sequence[BaseTool]) -> int:
        """Calls that were run though they do not fit their schema, checked once more after the fact."""
        guard = Guard(tools)
        return sum(isinstance(guard.verdict(call), Reject) for call in self.dispatched)


class Rounds(AgentMiddleware):
    """Every round calls a tool; the last one must give the final answer."""

    def __init__(self, limit: int, last: str) -> None:
        super().__init__()
        self._limit = limit
        self._last = last

    def _choose(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        said = sum(1 for message in request.messages if isinstance(message, AIMessage))
        return request.override(tool_choice=self._last if said + 1 >= self._limit else "any")

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        return handler(self._choose(request))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        return await handler(self._choose(request))


def build(host: Host, tools: Sequence[BaseTool], *, rounds: int) -> Any:
    """The agent: what a user would write, and one line of ours round it."""
    model = ChatSostenuto(host=host, max_tokens=160)
    agent = create_agent(
        model,
        list(tools),
        system_prompt=SYSTEM,
        middleware=[Rounds(rounds, last="final_answer"), ToolGuard(timeout=20)],
        name="workshop",
    )
    return wrap(agent)


async def run_all(
    agent: Any, tasks: Sequence[Task], told: Callable[[Task, BaseMessage], None], *, tenant: str
) -> tuple[Run, ...]:
    """All tasks at once, each in a thread of its own; `told` hears of every message as it comes."""

    async def one(task: Task) -> Run:
        messages: list[BaseMessage] = []
        times: list[float] = []
        clock = asyncio.get_running_loop()
        config = {"configurable": {"thread_id": task.id, "tenant": tenant}}
        asked = {"messages": [("user", task.question)]}
        refused = gave_up = ""
        try:
            async for update in agent.astream(asked, config, stream_mode="updates"):
                for change in update.values():
                    for message in (change or {}).get("messages", []):
                        messages.append(message)
                        times.append(clock.time())
                        told(task, message)
        except Refused as refusal:  # the others go on: one context that outgrew the pool is its own affair
            refused = str(refusal)
        except RepairsSpent as spent:  # so small a model may not find a call that ends
            gave_up = str(spent)
        return Run(task, tuple(messages), tuple(times), refused, gave_up)

    return tuple(await asyncio.gather(*(one(task) for task in tasks)))
