"""What to do next: events in, effects out.

The kernel decides, by plain functions, over plain books, on a clock that is handed to it. It does no I/O.
"""

from __future__ import annotations

from .batch import Demand, Share, compose
from .errors import NotTheSame, ScheduleError, UnknownTurn
from .events import (
    Arrived,
    Cancelled,
    Closed,
    Effect,
    Event,
    Finished,
    Forking,
    Grow,
    Hold,
    Interrupted,
    NeedRoom,
    Paused,
    Preempt,
    ProgramId,
    Progress,
    Refuse,
    Release,
    Start,
    Stepped,
    Stop,
    Tick,
    ToolEnded,
    ToolStarted,
    Travelled,
    TurnId,
    Wake,
)
from .kernel import Kernel
from .policies import POLICIES, Policy, Retention, named
from .world import Program, Waiting, World

__all__ = [
    "POLICIES",
    "Arrived",
    "Cancelled",
    "Closed",
    "Demand",
    "Effect",
    "Event",
    "Finished",
    "Forking",
    "Grow",
    "Hold",
    "Interrupted",
    "Kernel",
    "NeedRoom",
    "NotTheSame",
    "Paused",
    "Policy",
    "Preempt",
    "Program",
    "ProgramId",
    "Progress",
    "Refuse",
    "Release",
    "Retention",
    "ScheduleError",
    "Share",
    "Start",
    "Stepped",
    "Stop",
    "Tick",
    "ToolEnded",
    "ToolStarted",
    "Travelled",
    "TurnId",
    "UnknownTurn",
    "Waiting",
    "Wake",
    "World",
    "compose",
    "named",
]
