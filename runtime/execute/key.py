"""How a tool knows a call that it was given before, by whichever process: an idempotency key, to be handed on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_here: ContextVar[str] = ContextVar("sostenuto_tool_key", default="")


def call_key() -> str:
    """Names the call in which this is asked, in its tenant and thread, however often its node runs; empty without one.

    A node that runs again in another process makes calls again that were over: what must not be done twice is known
    by this.
    """
    return _here.get()


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """In here, `call_key` is this."""
    reset = _here.set(key)
    try:
        yield
    finally:
        _here.reset(reset)
