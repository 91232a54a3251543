"""What a schedule is given from files: a policy of one's own, what things cost, what was learnt of tools before."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..scheduler import Costs, Forecasts, Policy, named

FORMAT = 1
"""Of files of costs and of forecasts."""

Known = TypeVar("Known")


def load_policy(name: str) -> Policy:
    """A policy by its name, or FILE.py:NAME for one of your own. Raises ValueError, which says what there is."""
    file, colon, value = name.rpartition(":")
    if not (colon and file.endswith(".py")):
        return named(name)
    found = named_in(file, value, "--policy")
    if not isinstance(found, Policy):
        there = "nothing" if found is None else type(found).__name__
        raise ValueError(f"--policy: {file} has no policy {value}: found {there}")
    if found.name == "oracle":
        raise ValueError(f"--policy: {file}:{value} calls itself oracle, as one that ships; expected another name")
    return found


def named_in(file: str, name: str, option: str) -> object:
    """What a file of Python calls by this name. Raises ValueError for no such file, and for one that cannot be run."""
    if not (file.endswith(".py") and Path(file).is_file()):
        raise ValueError(f"{option}: there is no file {file}: give FILE.py:NAME")
    try:
        found: object = runpy.run_path(file).get(name)
    except (Exception, SystemExit) as error:  # whatever a stranger's file may raise
        raise ValueError(f"{option}: {file} cannot be run: {type(error).__name__}: {error}") from error
    return found


def read_costs(path: Path) -> Costs:
    """What `sostenuto calibrate` wrote. ValueError, with what is wrong, for another file; OSError for none."""
    return _read(path, "costs", lambda data: Costs.read(data["costs"]), f"calibrate anew, with --out {path}")


def read_forecasts(path: Path) -> Forecasts:
    """What `write_forecasts` left there; nothing is known where there is no file yet. ValueError for another file."""
    if not path.exists():
        return Forecasts()
    return _read(path, "forecasts", Forecasts.read, "name another file, or one that is not there yet")


def write_forecasts(path: Path, forecasts: Forecasts) -> None:
    """Keep what is known for the next run. The file is the old one or the new one, never a part."""
    text = json.dumps({"format": FORMAT, **forecasts.data()})
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(path)


def _read(path: Path, what: str, made: Callable[[Any], Known], advice: str) -> Known:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file {path}; expected {what}: {advice}") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or a number of thousands of digits
        raise ValueError(f"{path} is no file of {what}: found no JSON ({error}): {advice}") from error
    if not isinstance(data, dict) or "format" not in data:
        raise ValueError(f"{path} is no file of {what}: found JSON without a format, expected {FORMAT}: {advice}")
    if data["format"] != FORMAT or isinstance(data["format"], bool):
        raise ValueError(f"{path}: found {what} of format {data['format']!r}; expected {FORMAT}: {advice}")
    try:
        return made(data)
    except KeyError as error:
        raise ValueError(f"{path}: found no {error}; expected {what} as they are written: {advice}") from error
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {error}: {advice}") from error
