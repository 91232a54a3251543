"""Parts of programs that run in another process, which prints what came of them for the program to go on with."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from opentelemetry.trace import SpanContext, TraceFlags

from .checks import check
from .ground import Fault, Ground
from .plain import plain
from .truth import Seen


def part(ground: Ground, name: str, **given: str) -> tuple[Any, list[SpanContext]]:
    """Runs `module:function` of the programs in another process, with the same instrumentor; the function gets a
    ground of its own and what is given. Returns its result and the spans of the graphs it called, in order. What the
    checks find there counts here.
    """
    adapter = "" if ground.adapter is None else ground.adapter.spec
    asked = json.dumps({"name": name, "way": ground.way, "adapter": adapter, "given": given})
    command = [sys.executable, "-P", "-m", __name__, asked]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode != 0:
        raise RuntimeError(f"the other process ended with {done.returncode}: {done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    ground.faults += [Fault(*each) for each in told["faults"]]
    spans = [SpanContext(int(trace, 16), int(span, 16), True, TraceFlags(1)) for trace, span in told["graphs"]]
    return told["result"], spans


def main(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the other process does."""
    module, _, function = asked["name"].partition(":")
    body = getattr(import_module(f"{__package__}.{module}"), function)
    if not asked["adapter"]:
        return {"result": _result(body, Ground(asked["way"]), asked["given"]), "faults": [], "graphs": []}
    module, _, attribute = asked["adapter"].partition(":")
    adapter = getattr(import_module(module), attribute)
    ground = Ground(asked["way"], adapter)
    undo = adapter.start(ground.provider)
    result = _result(body, ground, asked["given"])
    undo()
    faults = [(each.check, each.text) for each in check(ground, adapter)]
    seen = Seen(ground, adapter)
    graphs = sorted((id for id in seen.of("graph") if not seen.line(id, "graph")), key=seen.began_at)
    contexts = [ground.tally.began[id].get_span_context() for id in graphs]
    ids = [(f"{each.trace_id:032x}", f"{each.span_id:016x}") for each in contexts if each is not None]
    return {"result": result, "faults": faults, "graphs": ids}


def _result(body: Any, ground: Ground, given: Mapping[str, str]) -> Any:
    found = body(ground, **given)
    return plain(asyncio.run(found) if inspect.iscoroutine(found) else found)


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201  (it is read by the program)
