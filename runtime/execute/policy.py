"""What an operator says of tools: their contracts and limits, and how much a tenant may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...tools.contracts import UNDECLARED, Contract
from ...tools.limits import Limits


@dataclass(frozen=True, slots=True)
class Policy:
    """By the tool's name. Of a tool that is not named here nothing is known, so it is taken for one that may do all."""

    contracts: Mapping[str, Contract] = field(default_factory=dict)
    limits: Mapping[str, Limits] = field(default_factory=dict)
    default: Limits = field(default_factory=Limits)
    """Of tools that `limits` does not name."""
    tenant: Limits = field(default_factory=lambda: Limits(at_once=256))
    """Of all calls of one tenant together: `at_once`, `rate` and `burst`."""

    def contract(self, tool: str) -> Contract:
        return self.contracts.get(tool, UNDECLARED)

    def limit(self, tool: str) -> Limits:
        return self.limits.get(tool, self.default)
