"""The named bundles."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .autellix import ATLAS, PLAS
from .bundle import Policy
from .continuum import CONTINUUM
from .fixed import FIXED_TTL, SKI_RENTAL
from .infercept import INFERCEPT
from .kvflow import KVFLOW
from .mars import MARS
from .sostenuto import SOSTENUTO
from .thunderagent import THUNDERAGENT

FORGETFUL = Policy(name="forgetful")
"""First come, first served and least recently used: what serving engines do today."""

_ALL = (
    SOSTENUTO,
    FORGETFUL,
    FIXED_TTL,
    SKI_RENTAL,
    CONTINUUM,
    INFERCEPT,
    PLAS,
    ATLAS,
    MARS,
    THUNDERAGENT,
    KVFLOW,
)
POLICIES: Mapping[str, Policy] = MappingProxyType({policy.name: policy for policy in _ALL})


def named(name: str) -> Policy:
    """The bundle of this name; ValueError names those there are."""
    if name == "oracle":
        raise ValueError("oracle knows the future: only a simulation can have it, which knows that too")
    try:
        return POLICIES[name]
    except KeyError:
        raise ValueError(
            f"there is no policy {name!r}: choose one of {', '.join(sorted(POLICIES))}, or, to simulate, oracle"
        ) from None
