"""An agent whose model writes no call that can be read gives up by itself; the others and the demo go on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from sostenuto.runtime.demo.agents import run_all
from sostenuto.runtime.demo.tasks import Task
from sostenuto.runtime.demo.tell import table
from sostenuto.runtime.errors import RepairsSpent


class Agents:
    """One of them gives up."""

    async def astream(self, asked: Any, config: Any, stream_mode: str) -> AsyncIterator[Any]:
        if config["configurable"]["thread_id"] == "mute":
            raise RepairsSpent("4 answers in a row held no tool call that could be read")
        yield {"model": {"messages": [AIMessage("seven")]}}


async def test_who_gives_up_is_told_of_and_counted_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    tasks = [Task("mute", "How many?"), Task("clear", "How many?")]
    mute, clear = await run_all(Agents(), tasks, lambda task, message: None, tenant="t")
    assert (mute.gave_up, mute.refused) == ("4 answers in a row held no tool call that could be read", "")
    assert (mute.unread, clear.unread) == (1, 0)
    assert (clear.gave_up, clear.answer) == ("", "seven")
    table((mute,))
    assert "gave up: 4 answers in a row" in capsys.readouterr().out
