"""Arize Phoenix as a collector for tests: in an environment of its own, where nothing outside can reach it.

It listens for gRPC on every interface whatever it is told, so it is started only where there is none but the
loopback: in a network namespace, as `make test-phoenix` and `make screenshot` make one.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from sostenuto.scheduler import named
from sostenuto.tracing import instrument, provider

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / os.environ.get("PHOENIX_VENV", ".venv-phoenix") / "bin" / "phoenix"
HTTP, GRPC = "http://127.0.0.1:6006", "grpc://127.0.0.1:4317"


def why_not() -> str | None:
    """Why Phoenix cannot be started here, if so."""
    if not PROGRAM.is_file():
        return f"there is no {PROGRAM}: run make test-phoenix"
    others = [each for each in _interfaces() if each != "lo"]
    return f"Phoenix would listen on {', '.join(others)}: run make test-phoenix" if others else None


@dataclass(frozen=True)
class Phoenix:
    """A Phoenix that runs."""

    process: subprocess.Popen[bytes]

    def get(self, path: str) -> Any:
        """What its REST API answers."""
        with urlopen(f"{HTTP}/v1/{path}", timeout=30) as answer:
            return json.load(answer)

    def spans(self, project: str) -> list[dict[str, Any]]:
        """All spans of a project."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.get(f"projects/{project}/spans?limit=100{cursor}")
            found += page["data"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def awaited(self, project: str, count: int) -> list[dict[str, Any]]:
        """All spans of a project, when there are so many: Phoenix stores them a little later than it takes them."""
        _until(lambda: any(each["name"] == project for each in self.get("projects")["data"]), self.process)
        _until(lambda: len(self.spans(project)) >= count, self.process)
        return self.spans(project)


@contextmanager
def phoenix(folder: Path) -> Iterator[Phoenix]:
    """Starts one that keeps its data in a folder and asks nobody for anything; ends it afterwards."""
    assert why_not() is None, why_not()
    settings = {
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": "6006",
        "PHOENIX_GRPC_PORT": "4317",
        "PHOENIX_TELEMETRY_ENABLED": "false",
        "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    }
    with open(folder / "log.txt", "wb") as log:
        process = subprocess.Popen([PROGRAM, "serve"], env=os.environ | settings, stdout=log, stderr=subprocess.STDOUT)
        try:
            _until(_answers, process)
            yield Phoenix(process)
        finally:
            process.terminate()
            process.wait()


def run_demo(project: str, to: str, file: Path) -> None:
    """Two of the demo's agents on the packaged model, sent to a project of Phoenix's and written to a file."""
    # Only now: they load torch.
    from sostenuto.runtime.demo.live import Live
    from sostenuto.runtime.demo.show import POOL_TOKENS
    from sostenuto.runtime.demo.tasks import load_tasks
    from sostenuto.runtime.opening import Wanted, open_engine

    os.environ["OTEL_RESOURCE_ATTRIBUTES"] = f"openinference.project.name={project}"
    try:
        made = provider("sostenuto-demo", otlp=to, trace_file=file)
    finally:
        del os.environ["OTEL_RESOURCE_ATTRIBUTES"]
    undo = instrument(made, openinference=True)
    try:
        engine = open_engine(Wanted("torch", None, None, None, POOL_TOKENS))
        Live(tuple(load_tasks(None)[:2]), 3, named("sostenuto")).run(engine, quiet=True)
    finally:
        undo()
        made.shutdown()


def _answers() -> bool:
    try:
        with urlopen(f"{HTTP}/healthz", timeout=5):
            return True
    except OSError:
        return False


def _until(true: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if true():
            return
        assert process.poll() is None, "Phoenix ended by itself; its folder has its log"
        time.sleep(0.2)
    raise AssertionError("what was waited for did not come within two minutes")


def _interfaces() -> list[str]:
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]
