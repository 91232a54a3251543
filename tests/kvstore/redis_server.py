"""Debian's Redis or Valkey on loopback, for as long as the tests of one module run."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def server(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Its address and its process, which is ended by its own id. Skips where neither program is installed."""
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("neither valkey-server nor redis-server is installed: apt-get install redis-server")
    for _ in range(10):
        port = free_port()
        settings = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        process = subprocess.Popen(
            [program, *settings, "--dir", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        try:
            assert process.stdout is not None
            # It says so when it listens; it ends when somebody else took the port meanwhile.
            if any("Ready to accept connections" in line for line in process.stdout):
                yield f"redis://127.0.0.1:{port}/0", process
                return
        finally:
            process.kill()
            process.communicate()
    raise AssertionError(f"{program} did not start on any of ten free ports")


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
