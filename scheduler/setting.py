"""What a schedule is told of its machine and its users before it begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .costs import TYPICAL, Costs
from .forecast import Forecasts

HOLD_BUDGET = 0.9
"""Share of the pool that may be under holds and marks at once. They also give way, so this is a second line."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Plain data but for the forecasts, which go on learning. Raises ValueError for what makes no sense."""

    costs: Costs = TYPICAL
    forecasts: Forecasts = field(default_factory=Forecasts)
    workers: int | None = None
    """How many tool calls can run at once; None: nobody has said."""
    shares: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """What tenants weigh against each other; whoever is not named weighs 1."""
    hold_budget: float = HOLD_BUDGET
    token_target_s: float | None = None
    """The time per token that turns are to keep while others' prompts are computed; None: as it comes."""

    def __post_init__(self) -> None:
        for name, kind in (("costs", Costs), ("forecasts", Forecasts), ("shares", Mapping)):
            if not isinstance(found := getattr(self, name), kind):
                raise ValueError(f"{name}: found {type(found).__name__}; expected {kind.__name__}")
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 1):
            raise ValueError(f"workers: found {self.workers}; expected at least one, or None where nobody knows")
        if not isinstance(self.hold_budget, int | float) or not 0 <= self.hold_budget <= 1:
            raise ValueError(f"hold_budget: found {self.hold_budget!r}; expected a share of the pool, from 0 to 1")
        if self.token_target_s is not None and not self.token_target_s > 0:
            raise ValueError(f"token_target_s: found {self.token_target_s}; expected seconds above 0, or None")
        for tenant, share in self.shares.items():
            if not isinstance(share, int | float) or not 0 < share < float("inf"):
                raise ValueError(f"the share of {tenant}: found {share!r}; expected a number above 0")

    def data(self) -> dict[str, Any]:
        """As plain data, for a journal; `read` is the way back."""
        told = {"costs": self.costs.data(), "forecasts": self.forecasts.data(), "workers": self.workers}
        more = {"hold_budget": self.hold_budget, "token_target_s": self.token_target_s}
        return told | {"shares": dict(self.shares)} | more

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Setting:
        """What `data` gave; KeyError, TypeError or ValueError for anything else."""
        shares = {str(tenant): float(share) for tenant, share in data["shares"].items()}
        costs, forecasts = Costs.read(data["costs"]), Forecasts.read(data["forecasts"])
        fields = {name: data[name] for name in ("workers", "hold_budget", "token_target_s")}
        return cls(costs=costs, forecasts=forecasts, shares=MappingProxyType(shares), **fields)
