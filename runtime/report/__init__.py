"""Reports of simulations for people to read."""

from __future__ import annotations

from .page import page

__all__ = ["page"]
