"""Loading without progress bars. Messages are left alone: what transformers says while loading has a reason."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Within this, transformers draws no bars; afterwards it does as before."""
    bars: Any = logging  # its switches have no types
    before = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            bars.enable_progress_bar()
