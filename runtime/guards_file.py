"""Guards as a file says them, for a server: rates, bounds, rules, and how many answers are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .guards import Bounds, Guards, Rate, WordRules

_FIELDS = {"rate", "rates", "bounds", "block", "keep"}


def read_guards(path: Path) -> Guards:
    """Raises ValueError for a file that says something else, with what it should say, and OSError."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"--guards: {path} is no JSON ({error}); expected an object such as {EXAMPLE}") from error
    if not isinstance(told, dict) or not told.keys() <= _FIELDS:
        raise ValueError(f"--guards: {path}: expected an object with some of {', '.join(sorted(_FIELDS))}: {EXAMPLE}")
    try:
        rates = {tenant: Rate(**rate) for tenant, rate in told.get("rates", {}).items()}
        rules = WordRules(**told["block"]) if "block" in told else None
        return Guards(
            rate=Rate(**told["rate"]) if "rate" in told else None,
            rates=rates,
            bounds=Bounds(**_whole(told.get("bounds", {}))),
            classifiers=[] if rules is None else [rules],
            keep=told.get("keep", 0),
        )
    except (TypeError, AttributeError) as error:
        raise ValueError(f"--guards: {path}: {error}; expected an object such as {EXAMPLE}") from error


EXAMPLE = (
    '{"rate": {"a_second": 2, "burst": 10}, "bounds": {"characters": 20000}, "block": {"answer": ["sk-[a-z0-9]{20}"]}}'
)


def _whole(bounds: Mapping[str, Any]) -> Mapping[str, int]:
    for name, value in bounds.items():
        if not isinstance(value, int):
            raise TypeError(f"bounds: {name}: found {value!r}; expected a whole number")
    return bounds
