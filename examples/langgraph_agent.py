"""A LangGraph agent of your own, wrapped: its context survives its tool calls."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langchain_core.tools import tool

from sostenuto import ChatSostenuto, ToolGuard, wrap


@tool
def opening_hours(day: str) -> str:
    """When the workshop is open on a day of the week."""
    return {"saturday": "10:00 to 14:00", "sunday": "closed"}.get(day.lower(), "9:00 to 18:00")


def main() -> None:
    model = ChatSostenuto(pool_tokens=4096, max_tokens=96)
    agent = wrap(create_agent(model, [opening_hours], middleware=[ToolGuard(timeout=10)]))
    asked: Any = {"messages": [("user", "When do you open on Saturday?")]}
    answer = agent.invoke(asked, {"configurable": {"thread_id": "visitor-1"}})
    for message in answer["messages"]:
        usage = getattr(message, "usage_metadata", None)
        counted = (
            f"   [{usage['input_token_details']['cache_read']} of {usage['input_tokens']} reused]" if usage else ""
        )
        called = ", ".join(f"{call['name']}({call['args']})" for call in getattr(message, "tool_calls", []))
        print(f"{message.type:>6}: {message.text or called}{counted}")


if __name__ == "__main__":
    main()
