"""What can go wrong with the schedule.

ScheduleError
├── BadPolicy       a policy raised, or answered what cannot be used
├── Stalled         a simulation in which turns wait and nothing is left to happen
├── UnknownTurn     an event names a turn that never arrived
└── NotTheSame      a replay gave other effects than the journal holds
"""

from __future__ import annotations


class ScheduleError(Exception):
    """Any fault of the scheduler."""


class BadPolicy(ScheduleError, ValueError):
    """A policy of somebody's own raised, or answered what cannot be used."""


class Stalled(ScheduleError, ValueError):
    """A simulation in which turns wait and nothing is left to happen."""


class UnknownTurn(ScheduleError, KeyError):
    """An event names a turn that never arrived, or arrives twice."""

    def __str__(self) -> str:
        return str(self.args[0])


class NotTheSame(ScheduleError):
    """A replay gave other effects than the journal holds."""
