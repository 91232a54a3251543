"""The running system: sessions, the loop, engines, doors."""

from __future__ import annotations
