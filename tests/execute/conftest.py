"""Tools that hang are let go when their test is over."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a tool that hangs waits for."""
    event = threading.Event()
    yield event
    event.set()
