"""Which release of ours a span or a metric comes from."""

from __future__ import annotations

from functools import cache
from importlib import metadata

from . import names


@cache
def version() -> str:
    """The installed package's; 0 in a checkout that is not installed."""
    try:
        return metadata.version(names.SCOPE)
    except metadata.PackageNotFoundError:
        return "0"
