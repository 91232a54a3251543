"""Where this user's converted models and built kernels lie."""

from __future__ import annotations

import os
from pathlib import Path


def folder() -> Path:
    """`sostenuto` in the user's cache folder; it need not exist."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "sostenuto"
