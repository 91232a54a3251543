"""The process of one peer in the benchmark of engines: opens it, then answers questions, a line of JSON each way.

python -P -m sostenuto.bench.engine_worker .engine_ours '{"cores": [0, 1], "pool_tokens": 24576, ...}'
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
import traceback
from typing import Any, TextIO

from .engine_measures import MEASURES, Measure
from .engine_speaking import Measuring, Speaker, own_stdout


def main() -> None:
    """Ends when nobody asks any more."""
    module, settings = sys.argv[1], json.loads(sys.argv[2])
    os.sched_setaffinity(0, settings["cores"])
    with own_stdout() as out:
        asyncio.run(_serve(module, settings, out))


async def _serve(module: str, settings: dict[str, Any], out: TextIO) -> None:
    speaker: Speaker | Measuring = await importlib.import_module(module, __package__).opened(settings)
    try:
        _tell(out, {"versions": speaker.versions, "settings": speaker.settings})
        while line := await asyncio.to_thread(sys.stdin.readline):
            asked = json.loads(line)
            try:
                found = await _measured(speaker, asked["what"], asked["with"])
            except (RuntimeError, ValueError, OSError) as error:  # the driver is told, and asks for the next
                traceback.print_exc()
                found = {"fault": f"{type(error).__name__}: {error}"}
            _tell(out, found)
    finally:
        await speaker.close()


async def _measured(speaker: Speaker | Measuring, what: str, given: dict[str, Any]) -> dict[str, Any]:
    if isinstance(speaker, Measuring):
        return speaker.measure(what, given)
    measure: Measure = MEASURES[what]
    return await measure(speaker, **given)


def _tell(out: TextIO, found: dict[str, Any]) -> None:
    print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()
