"""One process with one peer: each of the tracer's own programs in a fork of it, and the verdict as a line of JSON.

For peers patch for good, hang or crash: a fork that is not done in time is killed, and that is its verdict.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from contextlib import suppress
from importlib import import_module
from select import select
from typing import Any, NoReturn

from sostenuto.tests.tracing.programs import OURS, PROGRAMS, Program, judge

from .tracing_peers import ADAPTERS, Peer

PATIENCE = 60
"""Seconds a program may take, with the instrumentor and without."""


def main(name: str) -> None:
    adapter: Any = next((each for each in ADAPTERS if each.name == name), OURS)
    if isinstance(adapter, Peer):
        for module in adapter.instrumentor.modules:
            import_module(module)  # once, and not in each fork
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)  # what a peer prints must not come among the verdicts
        for program in PROGRAMS:
            if program.runs_here:
                answers.write(json.dumps(_forked(program, adapter)) + "\n")
                answers.flush()


def _forked(program: Program, adapter: Any) -> dict[str, Any]:
    """The verdict of a fork, or what became of it."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a peer has begun a thread: it had it before the fork
        child = os.fork()
    if child == 0:
        os.close(read)
        _judged(program, adapter, write)
    os.close(write)
    with os.fdopen(read) as told:
        in_time = bool(select([told], [], [], PATIENCE)[0])
        if not in_time:
            os.killpg(child, signal.SIGKILL)
        said = told.read()
    os.waitpid(child, 0)
    if said:
        found: dict[str, Any] = json.loads(said)
        return found
    what = "crashed" if in_time else f"not done after {PATIENCE} s"
    return {"program": program.name, "category": program.category, "passed": False, "checks": {}, "faults": [what]}


def _judged(program: Program, adapter: Any, write: int) -> NoReturn:
    os.setpgid(0, 0)  # with the processes that the program begins
    with suppress(BaseException), os.fdopen(write, "w") as verdict:
        verdict.write(json.dumps(judge(program, adapter).told(adapter)))
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
