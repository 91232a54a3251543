"""What a chat model says of the tiers below the device, and of how contexts are stored there, is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from sostenuto.runtime import shared
from sostenuto.runtime.doors.langgraph import ChatSostenuto, wrap
from sostenuto.runtime.host import Host

SECRET = "redis://:secret@127.0.0.1:6379"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """With which words hosts are opened, of which none is."""
    told: list[dict[str, Any]] = []

    def open(model: str | None, **words: Any) -> Mock:
        told.append(words)
        return Mock(spec=Host, closed=False)

    monkeypatch.setattr(shared, "_hosts", {})
    monkeypatch.setattr(Host, "open", open)
    return told


def test_a_chat_model_hands_its_tiers_on_and_shares_its_host_with_those_that_agree(
    opened: list[dict[str, Any]],
) -> None:
    below: dict[str, Any] = {"host_tokens": 64, "store": "kv", "store_tokens": 640, "remote": SECRET}
    first = ChatSostenuto(**below)
    assert ChatSostenuto(**below).served_by is first.served_by
    assert ChatSostenuto(**below | {"remote": None}).served_by is not first.served_by
    assert [{name: each[name] for name in below} for each in opened] == [below, {**below, "remote": None}]


def test_the_servers_password_is_not_shown(opened: list[dict[str, Any]]) -> None:
    assert "secret" not in repr(ChatSostenuto(remote=SECRET))


def test_a_lossy_chat_model_shares_nothing_with_an_exact_one_and_its_answers_say_so(
    host: Host, model: ChatSostenuto
) -> None:
    lossy = ChatSostenuto(host=host, codec="int8", max_tokens=4)
    for each, codec, found in ((model, "raw", False), (lossy, "int8", False), (lossy, "int8", True)):
        message = each.invoke("Which way did the lossy one go?")
        facts = message.response_metadata["sostenuto"]["turn"]
        assert facts["codec"] == codec
        assert message.usage_metadata is not None
        read = message.usage_metadata["input_token_details"]["cache_read"]
        assert (read == facts["prompt_tokens"] - 1) is found
    for program in list(host.loop.kernel.books.programs):
        host.finish(program)


def test_checkpoints_of_a_lossy_model_keep_its_contexts(
    host: Host, model: ChatSostenuto, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: list[str] = []
    mark = host.mark

    def watched(key: str, tokens: Sequence[int], **whose: Any) -> None:
        marked.append(whose["codec"])
        mark(key, tokens, **whose)

    monkeypatch.setattr(host, "mark", watched)
    lossy = ChatSostenuto(host=host, codec="fp8", max_tokens=4)
    agent: Any = wrap(create_agent(lossy, [], checkpointer=InMemorySaver()))
    thread: Any = {"configurable": {"thread_id": "a lossy one"}}
    agent.invoke({"messages": [("user", "Say a word.")]}, thread)
    assert marked == ["fp8"]
    agent.checkpointer.delete_thread("a lossy one")


def test_an_unknown_codec_is_refused_by_the_chat_model_too(host: Host) -> None:
    unknown: Any = "zip"
    with pytest.raises(ValueError, match="'raw', 'fp8', 'int8', 'rotated4' or 'rotated3'"):
        ChatSostenuto(host=host, codec=unknown)
    with pytest.raises(ValueError, match="codec 'zip' is unknown: give one of raw, fp8, int8, rotated4, rotated3"):
        ChatSostenuto(host=host).invoke("Hello.", codec=unknown)


def test_an_agent_that_asks_a_person_in_a_node_is_taken_up_by_the_next_host(babbler: Path, tmp_path: Path) -> None:
    saver, thread = InMemorySaver(), RunnableConfig(configurable={"thread_id": "order"})
    asked: list[Any] = [{"messages": [HumanMessage("word " * 100)]}, Command(resume="yes")]
    told = []
    for given in asked:
        with Host.open(str(babbler), pool_tokens=2048, dtype="float32", store=tmp_path / "kv") as opened:
            model = ChatSostenuto(host=opened, max_tokens=12)
            graph = StateGraph(MessagesState)
            graph.add_node("plan", lambda state, model=model: {"messages": [model.invoke(state["messages"])]})
            graph.add_node("person", lambda state: {"messages": [HumanMessage(interrupt("May I?"))]})
            graph.add_node("tell", lambda state, model=model: {"messages": [model.invoke(state["messages"])]})
            graph.add_edge(START, "plan").add_edge("plan", "person").add_edge("person", "tell")
            result: Any = wrap(graph.compile(checkpointer=saver)).invoke(given, thread)
            told.append(result["messages"][-1].response_metadata["sostenuto"]["turn"])
    assert told[1]["tier"] == "disk"
    assert told[1]["reused_tokens"] >= told[0]["prompt_tokens"]
