"""All agents at once, on one host."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from langchain_core.messages import AIMessage, BaseMessage

from ...scheduler import Policy
from ..engines import StepEngine, TurnEngine
from ..host import Host
from .agents import Run, build, run_all
from .tasks import Task
from .tell import progress
from .tools import workshop


@dataclass(frozen=True, slots=True)
class Live:
    """What is run."""

    tasks: tuple[Task, ...]
    rounds: int
    policy: Policy

    def run(
        self, engine: StepEngine | TurnEngine, *, journal: Path | None = None, quiet: bool = False, tenant: str = "demo"
    ) -> tuple[tuple[Run, ...], int, float]:
        """The agents' runs, how many calls were dispatched that should not have been, and the seconds it took."""

        def told(task: Task, message: BaseMessage) -> None:
            if not quiet:
                progress(task, message, answered=isinstance(message, AIMessage))

        with (
            tempfile.TemporaryDirectory(prefix="sostenuto-workshop-") as root,
            Host(engine, policy=self.policy, journal=journal) as host,
        ):
            tools = workshop(Path(root))
            agent = build(host, tools, rounds=self.rounds)
            begun = perf_counter()
            runs = asyncio.run(run_all(agent, self.tasks, told, tenant=tenant))
            return runs, sum(run.invalid_dispatched(tools) for run in runs), perf_counter() - begun
