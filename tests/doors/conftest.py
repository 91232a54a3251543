"""One host with the packaged model for all tests of the doors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sostenuto.runtime.doors.langgraph import ChatSostenuto
from sostenuto.runtime.host import Host


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    with Host.open(pool_tokens=8192) as opened:
        yield opened


@pytest.fixture
def model(host: Host) -> Iterator[ChatSostenuto]:
    """A greedy model; whatever a test does with it, nothing is left running, waiting or held."""
    yield ChatSostenuto(host=host, max_tokens=64)
    assert idle(host)


def idle(host: Host) -> bool:
    """Whether nothing waits, runs or is held; raises BrokenBooks if the books are wrong."""
    told = host.loop.ask()
    return "0 waiting | 0 running" in told and "0 held by 0" in told
