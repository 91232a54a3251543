"""The way from the HTTP process to the scheduler's: a Unix socket that only this user can open.

vLLM's own remote calls reach its workers, not the scheduler, and answer only when a step runs. One line of JSON goes
in, one comes out.
"""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import socketserver
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

LIMIT = 1 << 22
"""Bytes of a message at most."""
PATIENCE = 10.0
"""Seconds to wait for an answer: the scheduler's thread holds the table for microseconds."""


class NoChannel(ConnectionError):
    """Nobody answers at the other end."""


def place(engine: str) -> Path:
    """The socket of an engine, by its id."""
    return Path(tempfile.gettempdir()) / f"sostenuto-{engine}" / "leases.sock"


class Channel:
    """Answers messages on a thread of its own until it is closed."""

    def __init__(self, path: Path, answer: Callable[[object], dict[str, Any]]) -> None:
        self._path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_mode & 0o077:
            raise NoChannel(f"{path.parent} is open to other users: remove it")
        path.unlink(missing_ok=True)
        _sweep(path)

        class Handler(socketserver.StreamRequestHandler):
            timeout = PATIENCE

            def handle(self) -> None:
                with suppress(OSError):  # whoever asked has gone
                    try:
                        message = json.loads(self.rfile.readline(LIMIT))
                    except ValueError:
                        message = None
                    self.wfile.write(json.dumps(answer(message)).encode() + b"\n")

        self._server = socketserver.ThreadingUnixStreamServer(str(path), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=lambda: self._server.serve_forever(poll_interval=0.1), name="sostenuto-leases", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop answering. Closing twice is harmless."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._path.parent.rmdir()


async def ask(path: Path, message: object) -> dict[str, Any]:
    """The answer to one message. Raises NoChannel."""
    try:
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(str(path), limit=LIMIT)
            try:
                writer.write(json.dumps(message).encode() + b"\n")
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
        found = json.loads(line)
    except (OSError, ValueError) as error:  # a timeout is an OSError
        raise NoChannel(f"nobody answers at {path}: {error or type(error).__name__}") from error
    if not isinstance(found, dict):
        raise NoChannel(f"{path} answered {line[:80]!r}")
    return found


def _sweep(path: Path) -> None:
    """Remove what engines left that were killed, as vLLM does with its own: nobody answers there any more."""
    for other in path.parent.parent.glob(f"sostenuto-*/{path.name}"):
        with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
            if probe.connect_ex(str(other)) == errno.ECONNREFUSED:
                other.unlink()
                other.parent.rmdir()
