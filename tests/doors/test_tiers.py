"""What a chat model says of the tiers below the device reaches the host that it opens."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from sostenuto.runtime import shared
from sostenuto.runtime.doors.langgraph import ChatSostenuto
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
    below: dict[str, Any] = {"host_tokens": 64, "store": "kv", "remote": SECRET}
    first = ChatSostenuto(**below)
    assert ChatSostenuto(**below).served_by is first.served_by
    assert ChatSostenuto(**below | {"remote": None}).served_by is not first.served_by
    assert [{name: each[name] for name in below} for each in opened] == [below, {**below, "remote": None}]


def test_the_servers_password_is_not_shown(opened: list[dict[str, Any]]) -> None:
    assert "secret" not in repr(ChatSostenuto(remote=SECRET))
