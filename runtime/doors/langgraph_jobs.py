"""A tool call of a graph as a job: for whom it is made, which calls stand beside it, what its results are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, ToolMessage
from langgraph import errors
from langgraph.errors import GraphBubbleUp, GraphInterrupt
from langgraph.prebuilt.tool_node import ToolCallRequest

from ...tools import Call
from ..execute.outcome import Sibling

_invalid_resume = getattr(errors, "is_invalid_resume", lambda error: False)  # LangGraph from 1.2 on


class ToolMessages:
    """Of tools whose results are messages to the model, or commands to the graph."""

    def text(self, value: Any) -> str | None:
        return str(value.text) if isinstance(value, ToolMessage) else None

    def structured(self, value: Any) -> Any:
        return value.artifact if isinstance(value, ToolMessage) else None

    def again(self, value: Any, call: Call) -> Any | None:
        # A command changes the state of its own graph, and an error may be another one the next time.
        if not isinstance(value, ToolMessage) or value.status == "error":
            return None
        return value.model_copy(update={"tool_call_id": call.id, "id": None})

    def passes(self, error: BaseException) -> bool:
        return isinstance(error, GraphBubbleUp) or bool(_invalid_resume(error))

    def put_off(self) -> Exception:
        return GraphInterrupt(())  # LangGraph calls it again when the interrupt of the other one has been answered


def configured(request: ToolCallRequest) -> Mapping[str, Any]:
    """The run's configuration and metadata in one: tenant, thread, task."""
    runtime = request.runtime
    config = getattr(runtime, "config", None) or {}
    return {**config.get("metadata", {}), **config.get("configurable", {})}


def key_of(request: ToolCallRequest, known: Mapping[str, Any]) -> str:
    """Names the call in its thread; empty where there is no thread to come back to."""
    said = next((each for each in reversed(messages_of(request.state)) if isinstance(each, AIMessage)), None)
    if said is None or not said.id or not known.get("thread_id"):
        return ""
    return f"{said.id} {request.tool_call['id']}"


def sibling_of(request: ToolCallRequest, known: Mapping[str, Any]) -> tuple[Sibling | None, bool]:
    """Where the call stands in its turn, and whether all calls of the turn are made by this very node."""
    messages = messages_of(request.state)
    said = next((message for message in reversed(messages) if isinstance(message, AIMessage)), None)
    if said is None:
        return None, False
    path = known.get("langgraph_path") or ("",)
    whole = path[0] == "__pregel_pull"
    answered = set() if whole else {each.tool_call_id for each in messages if isinstance(each, ToolMessage)}
    found = sibling_in(said, str(request.tool_call["id"]), known, skipped=answered, node=whole)
    # Every run of a graph makes a writer of its own, which all its tasks are given: there is no name for a run.
    run = getattr(request.runtime, "stream_writer", None)
    return found and replace(found, run=run), whole


def sibling_in(
    said: AIMessage, call: str, known: Mapping[str, Any], *, skipped: Collection[str] = (), node: bool = False
) -> Sibling | None:
    """The place of a call among those that a message makes; None where it stands alone."""
    calls = [each for each in said.tool_calls if each["id"] not in skipped]
    place = next((place for place, each in enumerate(calls) if each["id"] == call), None)
    if place is None or len(calls) < 2:
        return None
    run = known.get("langgraph_checkpoint_ns") if node else ""
    turn = (known.get("tenant"), known.get("thread_id"), run, said.id, *(each["id"] for each in calls))
    return Sibling(turn, place, tuple((each["name"], each["args"]) for each in calls))


def messages_of(state: Any) -> Sequence[AnyMessage]:
    """A state's messages, whatever kind of state it is."""
    if isinstance(state, list):
        return state
    found = state.get("messages", []) if isinstance(state, dict) else getattr(state, "messages", [])
    return list(found)
