"""Policies: plain functions in a bundle, and the named bundles.

A policy is a value. Each function gets the read-only world and one item that was touched, and answers for that item
alone; the kernel keeps the queues.
"""

from __future__ import annotations

from .bundle import Policy
from .checked import checked
from .named import POLICIES, named
from .oracle import Future, oracle
from .retain import Retention

__all__ = ["POLICIES", "Future", "Policy", "Retention", "checked", "named", "oracle"]
