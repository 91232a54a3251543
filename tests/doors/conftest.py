"""A host with a tiny model, one with the packaged model, and answers put into a model's mouth.

Most tests ask what a door does with an answer, whatever it says: they run on the tiny one. Where the model itself must
say something sensible, it is the packaged one.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sostenuto.runtime.answer import Answering
from sostenuto.runtime.ask import Ask
from sostenuto.runtime.doors.langgraph import ChatSostenuto
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.host import Host
from sostenuto.scheduler import Effect, Event

from ..babbler import build

Say = Callable[..., None]


def said(name: str, **arguments: Any) -> str:
    """A call as the packaged model writes it."""
    call = json.dumps({"name": name, "arguments": arguments})
    return f"<tool_call>{call}</tool_call>"


def idle(host: Host) -> bool:
    """Whether nothing waits, runs or is held; raises BrokenBooks if the books are wrong."""
    told = host.loop.ask()
    return "| 0 waiting | 0 running |" in told and "| 0 held by 0>" in told


class Watched:
    """What the scheduler of a host was told, and what it ordered, from here on."""

    def __init__(self, host: Host) -> None:
        self.effects: list[Effect] = []
        host.loop.watch(self.effects.append)
        host.loop.ask()  # from here on

    def of(self, kind: type[Effect] | type[Event]) -> list[Any]:
        return [effect for effect in self.effects if isinstance(effect, kind)]


@pytest.fixture(scope="session")
def babbler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model") / "babbler")


@pytest.fixture(scope="session")
def host(babbler: Path) -> Iterator[Host]:
    with Host.open(str(babbler), pool_tokens=8192, dtype="float32") as opened:
        yield opened


@pytest.fixture(scope="session")
def real_host() -> Iterator[Host]:
    """With the packaged model."""
    with Host.open(pool_tokens=8192) as opened:
        yield opened


@pytest.fixture
def model(host: Host) -> Iterator[ChatSostenuto]:
    with greedy(host) as opened:
        yield opened


@pytest.fixture
def real_model(real_host: Host) -> Iterator[ChatSostenuto]:
    """The packaged model, for what it says of itself."""
    with greedy(real_host) as opened:
        yield opened


@contextmanager
def greedy(host: Host) -> Iterator[ChatSostenuto]:
    """A greedy model. Whatever a test does with it, nothing is left running, waiting or held."""
    # Calls outside of a wrapped graph leave holds that end by time.
    for program in list(host.loop.kernel.books.programs):
        host.finish(program)
    yield ChatSostenuto(host=host, max_tokens=48)
    assert idle(host)


@pytest.fixture
def say(host: Host, monkeypatch: pytest.MonkeyPatch) -> Say:
    """`say(text, ...)`: the next answers, one a turn. They run through engine, scheduler and parser like any other."""
    return script(host, monkeypatch)


def smaller(host: Host, pool_tokens: int, policy: str = "sostenuto") -> Host:
    """Another pool and schedule over the same weights."""
    assert isinstance(host.engine, TorchEngine)
    return Host(TorchEngine(host.engine.model, pool_tokens=pool_tokens), policy=policy)


def script(host: Host, monkeypatch: pytest.MonkeyPatch) -> Say:
    """Every next turn says the next of the texts that were handed to what this returns."""
    answers: deque[str] = deque()
    speak(host, monkeypatch, lambda wanted: answers.popleft())
    return lambda *texts: answers.extend(texts)


def speak(host: Host, monkeypatch: pytest.MonkeyPatch, answer: Callable[[Ask], str]) -> None:
    """Every turn says what `answer` makes of it."""

    assert isinstance(host.engine, TorchEngine)
    engine = host.engine

    def ask(wanted: Ask) -> Answering:
        forced = engine.tokenizer.encode(answer(wanted), add_special_tokens=False)
        tokens = host.render.tokens(wanted.messages, wanted.tools)
        return host.resume(wanted, tokens, forced=(*forced, engine.eos[0]))

    monkeypatch.setattr(host, "ask", ask)
