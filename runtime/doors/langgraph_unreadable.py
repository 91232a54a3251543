"""Calls that nobody could read, since they were cut off or are no JSON: each is answered, and none ends a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, ToolMessage
from langchain_core.runnables import RunnableConfig
from langgraph.prebuilt import ToolNode

from ..errors import RepairsSpent
from .langgraph_jobs import messages_of

REJECTED = "sostenuto_rejected"
"""Marks what was told of a call that was not made, so that those in a row can be counted."""


def corrections(said: AIMessage) -> list[AnyMessage]:
    """What to say to each call that could not be read: as its result, where it has an id, else in so many words."""
    marked = {REJECTED: True}
    found: list[AnyMessage] = []
    for call in said.invalid_tool_calls:
        told = f"Your tool call could not be read: {call['error'] or 'it is no JSON'}. Write it again."
        if call["id"]:
            name = call["name"] or ""
            answer = ToolMessage(told, name=name, tool_call_id=call["id"], status="error", additional_kwargs=marked)
            found.append(answer)
        else:
            found.append(HumanMessage(told, additional_kwargs=marked))
    return found


def rejected_in_a_row(messages: Sequence[AnyMessage]) -> int:
    """Calls that were not made since the last one that was, or since somebody spoke."""
    count = 0
    for message in reversed(messages):
        if message.additional_kwargs.get(REJECTED):
            count += 1
        elif not isinstance(message, AIMessage):
            break
    return count


def check_repairs(messages: Sequence[AnyMessage], repairs: int, told: str) -> None:
    """Raises RepairsSpent if this rejected call, of which `told` is said, is one more in a row than `repairs`."""
    before = rejected_in_a_row(messages)
    if before >= repairs:
        raise RepairsSpent(f"{before + 1} tool calls in a row were rejected; the last: {told}")


def tools_condition(state: Any) -> str:
    """Where a graph goes behind its model: to `tools` for calls, read or not, else to its end.

    LangGraph's own ends a run whose only call could not be read, without a word.
    """
    messages = messages_of(state)
    said = messages[-1] if messages else None
    return "tools" if isinstance(said, AIMessage) and (said.tool_calls or said.invalid_tool_calls) else "__end__"


class AnsweringNode(ToolNode):
    """A ToolNode that also answers the calls which could not be read; after `repairs` of these it gives up."""

    repairs: int = 0

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        told = self._told(input)
        return _with(input, super().invoke(input, config, **kwargs), told)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        told = self._told(input)
        return _with(input, await super().ainvoke(input, config, **kwargs), told)

    def _told(self, given: Any) -> list[AnyMessage]:
        messages = messages_of(given)
        said = messages[-1] if messages else None
        told = corrections(said) if isinstance(said, AIMessage) else []
        if told:
            check_repairs(messages, self.repairs, told[-1].text)
        return told


def _with(given: Any, result: Any, told: list[AnyMessage]) -> Any:
    """The same result and these messages, in whichever of its forms the node answers."""
    if not told:
        return result
    if isinstance(result, dict):
        return {**result, "messages": [*result.get("messages", ()), *told]}
    return [*result, *told] if isinstance(given, list) else [*result, {"messages": told}]
