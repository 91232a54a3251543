"""What a schedule is given from files: a policy of one's own, and what was learnt of tools in earlier runs."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

from ..scheduler import Forecasts, Policy, named

FORMAT = 1


def load_policy(name: str) -> Policy:
    """A policy by its name, or FILE.py:NAME for one of your own. Raises ValueError, which says what there is."""
    file, colon, value = name.rpartition(":")
    if not (colon and file.endswith(".py")):
        return named(name)
    found = named_in(file, value, "--policy")
    if not isinstance(found, Policy):
        raise ValueError(f"--policy: {file} has no policy {value}: found {type(found).__name__}")
    return found


def named_in(file: str, name: str, option: str) -> object:
    """What a file of Python calls by this name. Raises ValueError where there is no such file."""
    if not (file.endswith(".py") and Path(file).is_file()):
        raise ValueError(f"{option}: there is no file {file}: give FILE.py:NAME")
    found: object = runpy.run_path(file).get(name)
    return found


def read_forecasts(path: Path) -> Forecasts:
    """What `write_forecasts` left there; nothing is known where there is no file yet. ValueError for another file."""
    if not path.exists():
        return Forecasts()
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        found = data["format"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no file of forecasts: name one that is, or one that is not there yet") from error
    if found != FORMAT:
        raise ValueError(f"{path}: found forecasts of format {found!r}; expected {FORMAT}: name another file")
    return Forecasts.read(data)


def write_forecasts(path: Path, forecasts: Forecasts) -> None:
    """Keep what is known for the next run. The file is the old one or the new one, never a part."""
    text = json.dumps({"format": FORMAT, **forecasts.data()})
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text + "\n", encoding="utf-8")
    beside.replace(path)
