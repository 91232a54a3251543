"""A real server on loopback, and clients for it.

Most tests run on the doors' tiny model, on a host of their own. Where the model itself must do something sensible, it
is the packaged one.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from openai import OpenAI
from starlette.applications import Starlette

from sostenuto.runtime.answer import Answering
from sostenuto.runtime.ask import Ask
from sostenuto.runtime.doors.http import app
from sostenuto.runtime.host import Host

from ..conftest import Say, idle, script

Start = Callable[..., str]

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@contextmanager
def running(door: Starlette) -> Iterator[str]:
    """The server's address, as long as it runs."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # Clients that keep their connections are waited for, but not for ever.
        quiet: dict[str, Any] = {"log_config": None, "access_log": False, "timeout_graceful_shutdown": 5}
        server = uvicorn.Server(uvicorn.Config(door, lifespan="off", ws="none", **quiet))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture(scope="session")
def quick(babbler: Path) -> Iterator[Host]:
    """A host whose model says nothing sensible, at once."""
    with Host.open(str(babbler), pool_tokens=8192, dtype="float32") as opened:
        yield opened


@pytest.fixture(scope="session")
def door(quick: Host) -> Iterator[str]:
    """One server for all tests that need no other."""
    with running(app(quick)) as url:
        yield url


@pytest.fixture(scope="session")
def real_door(real_host: Host) -> Iterator[str]:
    """A server over the packaged model."""
    with running(app(real_host)) as url:
        yield url


@pytest.fixture(autouse=True)
def _nothing_is_left(quick: Host) -> Iterator[None]:
    """Whatever a test does, nothing is left running, waiting or held by a session."""
    _let_go(quick)
    yield
    _let_go(quick)
    assert idle(quick)


@pytest.fixture
def say(quick: Host, monkeypatch: pytest.MonkeyPatch) -> Say:
    """As for the other doors, over the quick model."""
    return script(quick, monkeypatch)


def _let_go(host: Host) -> None:
    for program in list(host.loop.kernel.books.programs):  # calls without a session leave holds that end by time
        host.finish(program)


@pytest.fixture
def client(door: str) -> Iterator[OpenAI]:
    """OpenAI's client, which is told to ask once only: a retry would hide what is wrong."""
    with OpenAI(base_url=f"{door}/v1", api_key="none", max_retries=0) as opened:
        yield opened


@pytest.fixture
def real(real_door: str, real_host: Host) -> Iterator[OpenAI]:
    """OpenAI's client before the packaged model."""
    with OpenAI(base_url=f"{real_door}/v1", api_key="none", max_retries=0) as opened:
        yield opened
    _let_go(real_host)
    assert idle(real_host)


@pytest.fixture
def raw(door: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=door, timeout=60) as opened:
        yield opened


@pytest.fixture
def start(quick: Host) -> Iterator[Start]:
    """`start(keys=..., most=...)`: a server of one's own; its address."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(running(app(given.pop("host", quick), **given)))


class Seen:
    """What a host was asked, from here on, and a sign for each answer that was given up or has come to its end."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Ask] = []
        self.handed_in = self.ended = 0
        self.begun = threading.Semaphore(0)
        self.over = threading.Semaphore(0)
        ask, resume = host.ask, host.resume

        def asking(wanted: Ask) -> Answering:
            self.asked.append(wanted)
            return ask(wanted)

        def resuming(wanted: Ask, *rest: Any, **more: Any) -> Answering:
            answering = resume(wanted, *rest, **more)
            self.handed_in += 1
            self.begun.release()
            cancel, told = answering.ticket.cancel, threading.Lock()

            def cancelling() -> None:
                cancel()
                if told.acquire(blocking=False):  # a sign for each answer, however often it is given up
                    self.ended += 1
                    self.over.release()

            monkeypatch.setattr(answering.ticket, "cancel", cancelling)
            return answering

        monkeypatch.setattr(host, "ask", asking)
        monkeypatch.setattr(host, "resume", resuming)


@pytest.fixture
def seen(quick: Host, monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(quick, monkeypatch)
