"""The simulator: the same kernel under a virtual clock, on recorded or made-up programs."""

from __future__ import annotations

from .alone import STATED, alone
from .figures import ALPHA, Figures, figures, jain
from .load import Load, load_of
from .simulate import Conditions, simulate
from .tally import Lane, Stretch, Tally, quantile
from .workload import Call, Session, Workload, common, script

__all__ = [
    "ALPHA",
    "STATED",
    "Call",
    "Conditions",
    "Figures",
    "Lane",
    "Load",
    "Session",
    "Stretch",
    "Tally",
    "Workload",
    "alone",
    "common",
    "figures",
    "jain",
    "load_of",
    "quantile",
    "script",
    "simulate",
]
