"""The clocks that deadlines, grants and records go by; tests give others."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Two of them: one that never goes back, one that other machines understand."""

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
