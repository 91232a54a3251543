"""A server with OpenAI's interface over a host: unmodified clients, and contexts that outlive their tool calls."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Mapping
from functools import partial
from ipaddress import ip_address
from types import FrameType

import uvicorn
from starlette.applications import Starlette

from ..host import Host
from .http_door import MOST_TURNS, Door, read_keys

__all__ = ["app", "serve"]

GRACE_S = 10
"""Seconds for which answers on their way may go on when the server is to end."""
AFTER_S = 5
"""Seconds more in which their callers are told that they were broken off."""

_SAY = partial(print, flush=True)  # at once, also where somebody reads it through a pipe


def app(
    host: Host, *, keys: Mapping[str, str] | None = None, name: str | None = None, most: int = MOST_TURNS
) -> Starlette:
    """The server as an ASGI application. The host stays its owner's to close.

    `keys` maps API keys to tenants, who share no context; without them every caller is the tenant `default`. `name`
    is what the model is called, by default what the host calls it; `default` always means it too. `/health` and
    `/metrics` need no key. Raises ValueError for keys that cannot be.
    """
    return Door(host, read_keys(keys), name or host.engine.name, most).app()


def serve(
    host: Host,
    *,
    bind: str = "127.0.0.1",
    port: int = 8000,
    keys: Mapping[str, str] | None = None,
    name: str | None = None,
    open: bool = False,
    ready: Callable[[str], None] = _SAY,
) -> None:
    """Serve until SIGINT or SIGTERM; returns when the answers on their way have ended, after GRACE_S at the latest.

    Listens on loopback unless told otherwise; elsewhere only with `keys`, or with `open` for whoever comes by. With
    port 0 the system chooses one. `ready` is called with the server's address once it listens. Raises ValueError for
    an address that is open to all, and OSError for one that cannot be had.
    """
    if keys is None and not open and not _loopback(bind):
        raise ValueError(
            f"bind: found {bind!r} and no keys, so that everybody there could use the model; give keys, bind to "
            "127.0.0.1, or say open=True if that is wanted"
        )
    door = app(host, keys=keys, name=name)
    family = socket.getaddrinfo(bind, port, type=socket.SOCK_STREAM)[0][0]
    with socket.create_server((bind, port), family=family, backlog=1024) as listening:
        shown = f"[{bind}]" if ":" in bind else bind
        config = uvicorn.Config(
            door,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_S + AFTER_S,
        )
        server = _Server(config, host)
        ready(f"{host.engine.name}, mode {host.mode}, on http://{shown}:{listening.getsockname()[1]}/v1")
        server.run(sockets=[listening])


class _Server(uvicorn.Server):
    """Ends at a signal and returns, so that whoever called can close what is theirs."""

    def __init__(self, config: uvicorn.Config, host: Host) -> None:
        super().__init__(config)
        self._host = host

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        late = asyncio.create_task(self._break_off())
        try:
            await super().shutdown(sockets)
        finally:
            late.cancel()

    async def _break_off(self) -> None:
        """Answers that take longer than the grace end where they are, and their callers are told why."""
        await asyncio.sleep(GRACE_S)
        await asyncio.to_thread(self._host.abort)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not kept: uvicorn would raise it again at its end.
        self.force_exit = self.should_exit and sig == signal.SIGINT
        self.should_exit = True


def _loopback(bind: str) -> bool:
    try:
        return ip_address(bind).is_loopback
    except ValueError:
        return bind == "localhost"
