"""A module `os` for the disk tier that dies, or fails, at the call one says."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sostenuto.kvstore.tiers import folder, segment

CHANGES = ("pwritev", "pwrite", "ftruncate", "fdatasync", "fsync")
"""The calls that change or settle files; and, of Path, unlink and replace."""


class Crash(BaseException):
    """The machine stops here: nothing that would have come later happens."""


class BrokenOs:
    """Counts the calls that matter, and stops for good before call number `at`; everything else is the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int | None = None) -> None:
        self.calls: list[str] = []
        self.at = at
        self._patch = monkeypatch
        for module in (folder, segment):
            monkeypatch.setattr(module, "os", self)
        for name in ("unlink", "replace"):
            monkeypatch.setattr(Path, name, self._counted(name, getattr(Path, name)))

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        return self._counted(name, real) if name in CHANGES else real

    def mend(self) -> None:
        """The real calls again."""
        self._patch.undo()

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.at is not None and len(self.calls) >= self.at:
                raise Crash(name)
            self.calls.append(name)
            return real(*arguments, **named)

        return call
