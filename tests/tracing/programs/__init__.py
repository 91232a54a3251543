"""LangGraph programs that tell where their code ran, and the checks of the spans that instrumentors make of them."""

from __future__ import annotations

from . import (
    agents,
    ends,
    functional,
    handoffs,
    pauses,
    retries,
    shapes,
    strange,
    streams,
    subgraphs,
    together,
    travel,
)
from .adapters import OURS, Adapter, Spoken
from .suite import CHECKS, PROGRAMS, Program, Verdict, judge, run

__all__ = ["CHECKS", "OURS", "PROGRAMS", "Adapter", "Program", "Spoken", "Verdict", "judge", "run"]

CATEGORIES = (
    *(agents, shapes, subgraphs, pauses, travel, handoffs),
    *(retries, ends, streams, functional, together, strange),
)
