"""Where blocks lie when they are not on the device: host memory, disk, another machine."""

from __future__ import annotations

from .base import Counts, Entry, Shared, Tier
from .disk import DiskTier
from .host import HostTier
from .log import Freed
from .marks import Mark
from .shelf import Shelf
from .store import Report, Store

__all__ = ["Counts", "DiskTier", "Entry", "Freed", "HostTier", "Mark", "Report", "Shared", "Shelf", "Store", "Tier"]
