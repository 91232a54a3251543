"""What a tool may show to others for this one call. Never in a state, a prompt, a span or a record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_here: ContextVar[str | None] = ContextVar("sostenuto_tool_credential", default=None)


def credential() -> str | None:
    """The token that was obtained for the call in which this is asked; None where none was."""
    return _here.get()


@contextmanager
def holding(token: str | None) -> Iterator[None]:
    """In here, `credential` is this."""
    reset = _here.set(token)
    try:
        yield
    finally:
        _here.reset(reset)
