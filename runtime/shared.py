"""Hosts that doors share: one for each model, mode, policy, pool and tiers, opened on first use, closed at the end."""

from __future__ import annotations

import atexit
import threading
from typing import Any

from .engines import Mode
from .host import POOL_TOKENS, Host

_hosts: dict[tuple[object, ...], Host] = {}
_lock = threading.Lock()


def shared_host(
    model: str | None = None,
    *,
    mode: Mode = "exact",
    policy: str = "sostenuto",
    pool_tokens: int = POOL_TOKENS,
    host_tokens: int = 0,
    store: str | None = None,
    store_tokens: int | None = None,
    remote: str | None = None,
) -> Host:
    """The process's host of this model, mode, policy, pool and tiers. Raises what `Host.open` raises."""
    tiers: Any = {"host_tokens": host_tokens, "store": store, "store_tokens": store_tokens, "remote": remote}
    key = (model, mode, policy, pool_tokens, *tiers.values())
    with _lock:
        if key not in _hosts or _hosts[key].closed:
            _hosts[key] = Host.open(model, mode=mode, policy=policy, pool_tokens=pool_tokens, **tiers)
        return _hosts[key]


@atexit.register
def close_shared() -> None:
    """Close every shared host; the next `shared_host` opens a new one."""
    with _lock:
        for host in _hosts.values():
            host.close()
        _hosts.clear()
