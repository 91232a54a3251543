"""Results as plain data that can be compared: without the ids that every run makes anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import Command, Interrupt, Send, StateSnapshot
from pydantic import BaseModel

_RANDOM = {
    *("id", "run_id", "checkpoint_id", "ts", "created_at", "checkpoint", "parent_config", "config", "metadata"),
    *("langgraph_checkpoint_ns", "checkpoint_ns", "interrupt_id", "callbacks", "timestamp"),
}


def plain(value: Any) -> Any:
    """The same value out of dicts, lists, texts and numbers."""
    match value:
        case None | bool() | int() | float() | str() | bytes():
            return value
        case BaseMessage():
            calls = [(each["name"], plain(each["args"])) for each in getattr(value, "tool_calls", ())]
            return value.type, plain(value.content), calls, getattr(value, "status", None)
        case Interrupt():
            return "interrupt", plain(value.value)
        case Send():
            return "send", value.node, plain(value.arg)
        case Command():
            return "command", str(value.goto), plain(value.update)
        case StateSnapshot():
            tasks = sorted((each.name, len(each.interrupts), str(each.error)) for each in value.tasks)
            return "state", plain(value.values), value.next, tasks
        case BaseException():
            return type(value).__name__, str(value)
        case BaseModel():
            return plain(value.model_dump())
        case Mapping():
            return {str(key): plain(each) for key, each in value.items() if key not in _RANDOM}
        case tuple() | list():
            return [plain(each) for each in value]
        case set() | frozenset():
            return sorted(map(repr, value))
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    return type(value).__name__
