"""Dropping tokens of a context under a strict budget: always lossy, hence off unless asked for.

Policies are plain functions, one file each. They say which tokens to keep; `Thinned` takes those out of keys and
values. What follows on a thinned context is not what the model would have said, so its names, spans and rollout rows
must be marked (`Thinned.exact` is False), and who asked for exactness is refused before this is called.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from . import h2o, keydiff, streaming
from .thinned import Thinned, checked

__all__ = ["POLICIES", "Policy", "Thinned", "check", "h2o", "keydiff", "streaming", "thin"]

Policy = Callable[[torch.Tensor, torch.Tensor | None, int], torch.Tensor]
"""From keys [layers, kv_heads, tokens, head_dim], attention mass [layers, kv_heads, tokens] where there is one, and a
budget, to the positions that are kept: int64 [layers, kv_heads, min(tokens, budget)]."""


def thin(policy: str, keys: torch.Tensor, budget: int, *, mass: torch.Tensor | None = None) -> Thinned:
    """What the named policy keeps of a context with these keys [layers, kv_heads, tokens, head_dim].

    At most `budget` tokens in each head, all of them if there are no more. H2O needs `mass`, the attention that each
    token has drawn, [layers, kv_heads, tokens]; the others do not look at it. Raises ValueError for a policy that is
    unknown, a budget that is too small, a mass that is missing or of another context.
    """
    _known(policy)
    if mass is not None and mass.shape != keys.shape[:-1]:
        raise ValueError(f"found attention mass {list(mass.shape)}; expected {list(keys.shape[:-1])}, as the keys have")
    return Thinned(POLICIES[policy](keys, mass, budget), keys.shape[-2], policy)


def check(policy: str, budget: int) -> None:
    """Raises ValueError, as `thin` would of a long context, for an unknown policy and a budget that is too small."""
    _known(policy)
    checked(checked(budget), streaming.SINKS + 1 if policy == "streaming" else 1)


def _known(policy: str) -> None:
    if policy not in POLICIES:
        raise ValueError(f"policy {policy!r} is unknown: give one of {', '.join(POLICIES)}")


def _streaming(keys: torch.Tensor, mass: torch.Tensor | None, budget: int) -> torch.Tensor:
    kept = streaming.keep(keys.shape[-2], budget)
    return kept.expand(*keys.shape[:-2], len(kept))


def _h2o(keys: torch.Tensor, mass: torch.Tensor | None, budget: int) -> torch.Tensor:
    if mass is None:
        raise ValueError("h2o needs the attention that each token has drawn: gather it with h2o.mass in every step")
    return h2o.keep(mass, budget)


def _keydiff(keys: torch.Tensor, mass: torch.Tensor | None, budget: int) -> torch.Tensor:
    return keydiff.keep(keys, budget)


POLICIES: Mapping[str, Policy] = {"streaming": _streaming, "h2o": _h2o, "keydiff": _keydiff}
"""Every policy by its name."""
