"""The demo: an agent at work in a small piano workshop."""

from __future__ import annotations
