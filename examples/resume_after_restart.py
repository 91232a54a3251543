"""An agent that waits for a person over night: the process ends, and a new one goes on without computing the past.

Needs a checkpointer that outlives the process: pip install langgraph-checkpoint-sqlite
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from sostenuto import ChatSostenuto, tool_node, wrap

RULES = "You look after a workshop's orders. Nothing is ordered before a person has approved it. " * 12
ASKED: Any = {"messages": [("system", RULES), ("user", "We are out of bass strings. Order a set.")]}
THREAD: Any = {"configurable": {"thread_id": "order-17"}}


@tool
def approve(order: str) -> str:
    """Ask the person in charge whether this may be ordered."""
    return str(interrupt({"may this be ordered?": order}))


def graph(folder: Path) -> StateGraph[Any, Any, Any, Any]:
    """Asks for approval, then says what came of it. What is computed on the way lies in `folder`."""
    model = ChatSostenuto(pool_tokens=4096, store=str(folder / "kv"), max_tokens=48)
    plan: StateGraph[Any, Any, Any, Any] = StateGraph(MessagesState)

    def say(state: MessagesState, tool_choice: str) -> Any:
        answer = model.bind_tools([approve], tool_choice=tool_choice).invoke(state["messages"])
        return {"messages": [answer]}

    plan.add_node("plan", lambda state: say(state, "approve"))
    plan.add_node("tools", tool_node([approve]))
    plan.add_node("tell", lambda state: say(state, "none"))
    plan.add_edge(START, "plan").add_edge("plan", "tools").add_edge("tools", "tell")
    return plan


def run(folder: Path, given: Any) -> None:
    """One process: from what it is given to the next stop."""
    with SqliteSaver.from_conn_string(str(folder / "threads.sqlite")) as saver:
        agent = wrap(graph(folder).compile(checkpointer=saver))
        before = len(agent.get_state(THREAD).values.get("messages", ()))
        result = agent.invoke(given, THREAD)
    for message in result["messages"][before:]:
        if isinstance(message, AIMessage) and message.usage_metadata is not None:
            usage = message.usage_metadata
            reused = usage["input_token_details"]["cache_read"]
            said = message.text or f"{message.tool_calls[0]['name']}({message.tool_calls[0]['args']})"
            print(
                f"prompt {usage['input_tokens']}: reused {reused}, computed {usage['input_tokens'] - reused} | {said}"
            )
    if "__interrupt__" in result:
        print(f"waits for a person: {result['__interrupt__'][0].value}")


def main() -> None:
    if len(sys.argv) == 3:
        run(Path(sys.argv[2]), ASKED if sys.argv[1] == "today" else Command(resume="yes, go ahead"))
        return
    with tempfile.TemporaryDirectory() as folder:
        for day in ("today", "tomorrow"):  # each in a process of its own
            print(f"{day}:", flush=True)
            subprocess.run([sys.executable, __file__, day, folder], check=True)


if __name__ == "__main__":
    main()
