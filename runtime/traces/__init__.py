"""Traces: recorded and made-up agent programs, from the files in which they are found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ...scheduler.simulator import Workload
from .arranged import Arrangement, arranged
from .blocks import mooncake, weka, weka_original
from .generated import DAY_S, MIXES, generated
from .reading import BadTrace, lines
from .recorded import journal
from .tables import azure, sweagent, tracelab, tracelab_examples
from .texts import bfcl, lmcache

__all__ = ["MIXES", "Arrangement", "BadTrace", "arranged", "open_trace"]

GENERATED = "generated:"


@dataclass(frozen=True, slots=True)
class _Form:
    """A form of trace: how it is known by the keys of its first line, and read."""

    keys: frozenset[str]
    read: Callable[[Path, int, int], Workload]
    granule: int
    """Tokens that one of the schedule stands for, unless said otherwise."""


def _form(keys: str, read: Callable[[Path, int, int], Workload], granule: int) -> _Form:
    return _Form(frozenset(keys.split()), read, granule)


_OBJECTS: tuple[_Form, ...] = (
    _form("session block_size", lambda path, granule, seed: weka(path, granule), 64),
    _form("requests", lambda path, granule, seed: weka_original(path, granule), 64),
    _form("t_ms blk", mooncake, 128),
    _form("timestamp hash_ids", mooncake, 128),
    _form("sid base keep add", lambda path, granule, seed: lmcache(path, granule), 16),
    _form("sid classes calls", bfcl, 16),
    _form("sid cached tools", lambda path, granule, seed: tracelab_examples(path, granule), 16),
    _form("sid cmd exec_s", lambda path, granule, seed: sweagent(path, granule), 16),
    _form("format policy room", lambda path, granule, seed: journal(path), 1),
)
_TABLES: tuple[_Form, ...] = (
    _form("round_idx prefix_len input_len", lambda path, granule, seed: tracelab(path, granule), 16),
    _form("t_s in out", lambda path, granule, seed: azure(path, granule), 16),
)


def open_trace(name: str, *, granule: int | None = None, seed: int = 0) -> Workload:
    """A trace by its file, packed by gzip or not, or `generated:MIX[:SESSIONS[:day]]`.

    Its form is known by its first line. `granule`: tokens that one of the schedule stands for; None: as suits the
    form. Raises BadTrace with file and line, and ValueError for a mix that is not known.
    """
    if name.startswith(GENERATED):
        return _generated(name, granule or 64, seed)
    path = Path(name)
    if not name:
        raise ValueError("found no name of a trace; expected a file, a folder or generated:MIX")
    if path.is_dir():
        return weka_original(path, granule or 64)
    form = _known(path)
    if granule is not None and form.granule == 1 and granule != 1:
        raise ValueError(f"granule: found {granule}; a journal is run token by token")
    workload = form.read(path, granule or form.granule, seed)
    if not any(True for _ in workload.sessions):
        raise BadTrace(f"{path}: there is no session in it")
    return workload


def _known(path: Path) -> _Form:
    first = next((line for _, line in lines(path) if line.strip()), "")
    if not first:
        raise BadTrace(f"{path} is empty: expected a trace")
    keys = set(first.strip().split(","))
    if first.lstrip().startswith(("{", "[")):
        try:
            keys = set(json.loads(first))
        except (json.JSONDecodeError, TypeError):
            keys = {"requests"} if '"requests"' in first or first.strip() == "{" else set()
    found = next((form for form in (*_OBJECTS, *_TABLES) if form.keys <= keys), None)
    if found is None:
        objects, tables = ("; ".join(" ".join(sorted(form.keys)) for form in forms) for forms in (_OBJECTS, _TABLES))
        raise BadTrace(
            f"{path}, line 1: no known form of trace has {first.strip()[:80]!r}; expected an object with the keys of "
            f"one of: {objects}; or a table with the columns of one of: {tables}"
        )
    return found


def _generated(name: str, granule: int, seed: int) -> Workload:
    mix, _, rest = name.removeprefix(GENERATED).partition(":")
    count, _, day = rest.partition(":")
    if (count and not (count.isdecimal() and int(count))) or day not in ("", "day"):
        raise ValueError(
            f"found {name!r}; expected generated:MIX, generated:MIX:SESSIONS or generated:MIX:SESSIONS:day, SESSIONS "
            "from 1 up"
        )
    return generated(mix, int(count or 200), granule, seed=seed, spread_s=DAY_S if day else 0.0)
