"""What a call takes that has the device to itself, and a device to simulate where none was measured."""

from __future__ import annotations

from types import MappingProxyType

from ..costs import Costs, Link

STATED = Costs(
    step_s=5e-3,
    token_s=4e-5,
    pair_s=1.3e-9,
    turn_s=4e-5,
    seen_s=3.9e-8,
    links=MappingProxyType({"host": Link(1e-4, 5.2e-6, 5.2e-6), "disk": Link(1e-3, 4.4e-5, 4.4e-5)}),
    source="stated, not measured: 8B in 16 bits, 3.35 TB/s, 400 TFLOP/s, 25 GB/s to memory, 3 GB/s to disk",
)
"""The roofline of a model of eight billion parameters (32 layers, 8 key-value heads of 128) on such a card."""


def alone(costs: Costs, known: int, prompt: int, out: int) -> float:
    """Seconds of a call with nobody beside it, of whose prompt the first `known` tokens are there already."""
    new = max(1, prompt - known)
    more = out - 1
    seen = more * prompt + more * (more + 1) // 2
    return costs.prefill(new, prompt - new) + more * costs.decode(1, 0) + seen * costs.seen_s
