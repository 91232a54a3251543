"""Prints the verdicts on the programs as JSON: `python -P -m sostenuto.tests.tracing.programs`."""

# ruff: noqa: T201  (a script that prints)

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from . import OURS, PROGRAMS, run


def main(given: Sequence[str] | None = None) -> int:
    """Runs the programs whose names hold one of the given words; 1 if a check failed."""
    parser = argparse.ArgumentParser(prog="programs")
    parser.add_argument("words", nargs="*", help="run only programs whose names hold one of these")
    parser.add_argument("--adapter", default=OURS.spec, help="module:attribute of the instrumentor's adapter")
    parser.add_argument("--faults", action="store_true", help="print only what failed, as text")
    asked = parser.parse_args(given)
    module, _, name = asked.adapter.partition(":")
    adapter: Any = getattr(import_module(module), name)
    chosen = [each for each in PROGRAMS if not asked.words or any(word in str(each) for word in asked.words)]
    results = run(adapter, chosen)
    if asked.faults:
        for each in results:
            for fault in each["faults"]:
                print(f"{each['program']}: {fault}")
        print(f"{sum(each['passed'] for each in results)} of {len(results)} passed", file=sys.stderr)
    else:
        print(json.dumps({"adapter": adapter.name, "results": results}, indent=1))
    return 0 if all(each["passed"] for each in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
