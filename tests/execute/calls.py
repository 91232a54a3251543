"""Jobs for an executor, a clock that tests turn, tools that end when they are told to."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import anyio.lowlevel
import pytest

from sostenuto.runtime.execute.authority import Place
from sostenuto.runtime.execute.clock import Clock
from sostenuto.runtime.execute.executor import Executor
from sostenuto.runtime.execute.outcome import Job, Outcome, Sibling
from sostenuto.runtime.execute.policy import Policy
from sostenuto.tools import Call, read_tool
from sostenuto.tools.contracts import Contract
from sostenuto.tools.limits import Limits

PURE, READ, WRITE = Contract("pure"), Contract("read"), Contract("write")
Run = Callable[[Executor, Job, Callable[[], Any]], Outcome]


def in_a_thread(executor: Executor, one: Job, attempt: Callable[[], Any]) -> Outcome:
    return executor.run(one, attempt)


def in_a_loop(executor: Executor, one: Job, attempt: Callable[[], Any]) -> Outcome:
    async def soon() -> Any:
        await anyio.lowlevel.checkpoint()
        return attempt()

    return asyncio.run(executor.arun(one, soon))


BOTH = pytest.mark.parametrize("run", [in_a_thread, in_a_loop])


def policy(contract: Contract = READ, **limits: Any) -> Policy:
    return Policy({"look": contract}, {"look": Limits(**limits)})


def eager(made: Policy, **given: Any) -> Executor:
    """Does not wait between attempts."""
    return Executor(made, luck=lambda: 0.0, **given)


class Fails:
    """Raises so many times, then answers."""

    def __init__(self, times: int, error: Exception | None = None) -> None:
        self.times, self.calls = times, 0
        self.error = error or ValueError("no")

    def __call__(self) -> str:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return "yes"


class Turned:
    """A clock that stands until it is turned."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clock = Clock(lambda: self.now, lambda: self.now)


def job(
    name: str = "look", *, tenant: str = "a", session: str = "s", sibling: Sibling | None = None, **arguments: Any
) -> Job:
    tool = read_tool({"name": name, "parameters": {"type": "object"}})
    return Job(Call("c1", name, arguments, json.dumps(arguments)), tool, Place(tenant, session), sibling)


def turn(*calls: tuple[str, dict[str, Any]], key: str = "t1") -> list[Job]:
    """The jobs of one turn."""
    return [job(name, sibling=Sibling(key, place, calls), **arguments) for place, (name, arguments) in enumerate(calls)]


@contextmanager
def beside(executor: Executor, jobs: list[tuple[Job, Callable[[], Any]]]) -> Iterator[list[Future[Outcome]]]:
    """All of them at once, each in a thread, started in the order given."""
    futures: list[Future[Outcome]] = []
    threads = []
    for one, attempt in jobs:
        future: Future[Outcome] = Future()
        futures.append(future)

        def work(one: Job = one, attempt: Callable[[], Any] = attempt, future: Future[Outcome] = future) -> None:
            try:
                future.set_result(executor.run(one, attempt))
            except BaseException as error:
                future.set_exception(error)

        threads.append(threading.Thread(target=work, daemon=True))
    for thread in threads:
        thread.start()
    yield futures
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
