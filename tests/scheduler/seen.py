"""A world as a test says it is, for policies that are asked by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sostenuto.scheduler import Costs, Forecasts, Link, Meters, Pause, Program, ProgramId, TurnId, Waiting

COSTS = Costs(
    step_s=0.0,
    token_s=0.01,
    pair_s=0.0,
    turn_s=0.0,
    seen_s=0.0,
    links={"host": Link(0.5, 0.001, 0.002)},
    chunk=100,
    source="a hundred tokens a second",
)


@dataclass
class Seen:
    """Everything that a policy may read, as plain fields."""

    now: float = 0.0
    room: int = 100
    available: int = 100
    held: int = 0
    page: int = 10
    grows: bool = True
    tiers: tuple[str, ...] = ()
    running: int = 0
    waiting: int = 0
    holding: int = 0
    active: int = 0
    programs: Mapping[ProgramId, Program] = field(default_factory=dict)
    seen: int = 0
    pressure: float = 0.0
    committed: int = 0
    acting: float = 0.0
    calls: int = 0
    workers: int | None = None
    window: float = 1e9
    costs: Costs = COSTS
    forecasts: Forecasts = field(default_factory=Forecasts)
    meters: Meters = field(default_factory=Meters)
    leads: Mapping[str, float] = field(default_factory=dict)

    def growth(self, tokens: int, more: float) -> float:
        return more / self.page

    def lead(self, tenant: str) -> float:
        return self.leads.get(tenant, 0.0)


def program(number: int = 1, *, tokens: int = 0, pause: Pause | None = None, turns: int = 1) -> Program:
    """A program that came when its number says; paused, if a pause is given."""
    made = Program(ProgramId(f"default/p{number}"), float(number), number, turns=turns, tokens=tokens)
    if pause is not None:
        made.pauses[pause.branch] = pause
    return made


def pause(tokens: int, *tools: str, since: float = 0.0) -> Pause:
    return Pause("main", tools or ("bash",), since, tokens)


def waiting(of: Program, *, tokens: int = 100, arrived: float = 0.0, holds: bool = False) -> Waiting:
    return Waiting(TurnId(f"t{of.number}"), of, arrived, of.number, tokens, holds, path=of.path)
