"""Hosts that doors share: one for each model, policy and pool, opened on first use, closed with the process."""

from __future__ import annotations

import atexit
import threading

from .host import POOL_TOKENS, Host

_hosts: dict[tuple[str | None, str, int], Host] = {}
_lock = threading.Lock()


def shared_host(model: str | None = None, *, policy: str = "sostenuto", pool_tokens: int = POOL_TOKENS) -> Host:
    """The process's host of this model, policy and pool. Raises what `Host.open` raises."""
    key = (model, policy, pool_tokens)
    with _lock:
        if key not in _hosts or _hosts[key].closed:
            _hosts[key] = Host.open(model, policy=policy, pool_tokens=pool_tokens)
        return _hosts[key]


@atexit.register
def close_shared() -> None:
    """Close every shared host; the next `shared_host` opens a new one."""
    with _lock:
        for host in _hosts.values():
            host.close()
        _hosts.clear()
