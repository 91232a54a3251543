"""Breaks the tracer in many ways, one at a time, in a copy of it, and sees each caught by the programs: `make mutants`.

The working tree is never touched. The script fails if a mutant survives, or if the source no longer has the words
that it replaces. Made with the standard library alone.
"""

# ruff: noqa: T201  (a script that prints)

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("__init__.py", "py.typed", "pyproject.toml", "tracing", "tests/tracing")
TEST = "tests/tracing/test_programs.py"
LIMIT = 300


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault: in a file of the tracer these words are replaced, which stand in it exactly once."""

    what: str
    file: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "a node's span is not current in its body",
        "graph_tasks.py",
        "trace.set_span_in_context(self.span)))",
        "trace.set_span_in_context(self.run.span)))",
    ),
    Mutant(
        "the reader of a stream sees the run's span",
        "graph_hooks.py",
        """                        except StopIteration:
                            return
                    _watch(run, chunk)
                    yield chunk
""",
        """                        except StopIteration:
                            return
                    _watch(run, chunk)
                    with run.active():
                        yield chunk
""",
    ),
    Mutant(
        "the reader of an async stream sees the run's span",
        "graph_hooks.py",
        """                        except StopAsyncIteration:
                            return
                    _watch(run, chunk)
                    yield chunk
""",
        """                        except StopAsyncIteration:
                            return
                    _watch(run, chunk)
                    with run.active():
                        yield chunk
""",
    ),
    Mutant(
        "a context is not given back",
        "spans.py",
        "        otel.detach(self._token)\n",
        "        return\n",
    ),
    Mutant(
        "no links to what started a node",
        "graph_run.py",
        "in () if channel is None else channel.writers(visit):",
        "in ():",
    ),
    Mutant(
        "a send is linked to all senders", "graph_run.py", "        return exact or goal\n", "        return goal\n"
    ),
    Mutant(
        "what a sibling wrote counts as what started a node",
        "graph_run.py",
        "for step, write, span in self.writes if step < visit.step]",
        "for step, write, span in self.writes]",
    ),
    Mutant(
        "a run's span is not ended",
        "graph_run.py",
        "        end(self.span)\n        self.timed.end(error)\n",
        "        self.timed.end(error)\n",
    ),
    Mutant(
        "a run that fails or is given up does not end",
        "graph_hooks.py",
        "    finally:\n        status = signal(run.span, error)\n",
        "    if error is None:\n        status = signal(run.span, error)\n",
    ),
    Mutant(
        "a node that is cancelled does not end",
        "graph_tasks.py",
        "        status = signal(self.span, error)\n",
        "        if kind is not None and not issubclass(kind, Exception):\n            return\n"
        "        status = signal(self.span, error)\n",
    ),
    Mutant(
        "a task that another one calls stands beside it",
        "graph_run.py",
        "parent = ambient if called else self._superstep(visit)",
        "parent = self._superstep(visit)",
    ),
    Mutant(
        "a node stands under the run instead of its step",
        "graph_run.py",
        "        return self._step.span\n",
        "        return self.span\n",
    ),
    Mutant("an interrupt is an error", "graph_signals.py", "QUIET: Quiet = (GraphBubbleUp,)", "QUIET: Quiet = ()"),
    Mutant(
        "a node ends before its last attempt",
        "graph_tasks.py",
        "last = self._open == 0",
        "last = self._open <= 1",
    ),
    Mutant("a step is not ended", "graph_run.py", "            end(step.span, step.last_end)\n", ""),
    Mutant(
        "one step for the whole run",
        "graph_run.py",
        "if self._step is None or self._step.number != visit.step:",
        "if self._step is None:",
    ),
    Mutant(
        "a run says nothing of itself in its checkpoints",
        "graph_resume.py",
        '"metadata": {**carrier, **(config.get("metadata") or {})}}',
        '"metadata": {**(config.get("metadata") or {})}}',
    ),
    Mutant(
        "a resumed run leads to an older run than it takes up",
        "graph_resume.py",
        "if run is not None or at.parent_config is None or (up := store.get_tuple(at.parent_config)) is None:",
        "if at.parent_config is None or (up := store.get_tuple(at.parent_config)) is None:",
    ),
    Mutant("a fork leads nowhere", "graph_resume.py", "_FARTHEST = 4", "_FARTHEST = 0"),
    Mutant("every resumption is a crash", "graph_resume.py", 'return "interrupt" if waits', 'return "crash" if waits'),
    Mutant("a stop asked for is taken for a crash", "graph_resume.py", "    if waits:\n", "    if not waits:\n"),
    Mutant(
        "siblings in one step are visits of their own",
        "graph_run.py",
        "        if step != visit.step:\n            count += 1\n",
        "        if True:\n            count += 1\n",
    ),
    Mutant(
        "runs are kept",
        "graph_run.py",
        "        self.timed = timed\n",
        '        self.timed = timed\n        globals().setdefault("_KEPT", []).append(self)\n',
    ),
    Mutant(
        "every node has two spans",
        "graph_tasks.py",
        "        self.span = run.start(self.visit)\n",
        "        run.start(self.visit).end()\n        self.span = run.start(self.visit)\n",
    ),
    Mutant(
        "attempts are not counted",
        "graph_tasks.py",
        "names.GRAPH_ATTEMPTS: max(1, self.attempts),",
        "names.GRAPH_ATTEMPTS: 1,",
    ),
    Mutant(
        "an attempt's span is not current in it",
        "graph_tasks.py",
        "yield Active(trace.set_span_in_context(span))",
        "yield Active(trace.set_span_in_context(self.span))",
    ),
    Mutant(
        "a stream that is closed leaves the graph's own open",
        "graph_hooks.py",
        "                    await inner.close()\n",
        "                    pass\n",
    ),
    Mutant(
        "async tools have no spans",
        "graph.py",
        '    (BaseTool, "arun", calls.traced_arun),\n',
        "",
    ),
    Mutant(
        "the reader of a model's words sees its span",
        "graph_calls.py",
        """                        except StopIteration:
                            return
                    streamed.take(chunk)
                    yield chunk
""",
        """                        except StopIteration:
                            return
                    streamed.take(chunk)
                    with streamed.active():
                        yield chunk
""",
    ),
    Mutant(
        "a model that cannot stream has two spans when streamed",
        "graph_calls.py",
        "    return otel.get_value(_STREAMING) == id(model)\n",
        "    return False\n",
    ),
)


def main(given: Sequence[str] | None = None) -> int:
    """Tries the mutants and prints which test caught each; 1 if one was not."""
    parser = argparse.ArgumentParser(
        prog="python -P tests/tracing/mutants.py", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("words", nargs="*", help="only mutants whose names hold one of these")
    asked = parser.parse_args(given)
    chosen = [each for each in MUTANTS if not asked.words or any(word in each.what for word in asked.words)]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "sostenuto")
        _copy(home)
        if not asked.words and (fault := _caught(home)):
            print(f"the tracer itself fails: {fault}")
            return 1
        survived = [each.what for each in chosen if not _tried(each, home)]
    print(f"{len(chosen) - len(survived)} of {len(chosen)} caught")
    return 1 if survived else 0


def _tried(mutant: Mutant, home: Path) -> bool:
    path = home / "tracing" / mutant.file
    text = path.read_text(encoding="utf-8")
    if (times := text.count(mutant.old)) != 1:
        print(f"STALE     {mutant.what}: {mutant.file} has its words {times} times, not once")
        return False
    began = time.monotonic()
    path.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    try:
        caught = _caught(home)
    finally:
        path.write_text(text, encoding="utf-8")
    took = time.monotonic() - began
    print(f"{'caught' if caught else 'SURVIVED':<9} {mutant.what} ({took:.0f} s){caught and ': ' + caught}", flush=True)
    return bool(caught)


def _caught(home: Path) -> str:
    """The first test that fails on the copy; empty if none does."""
    # The copy stands before the installed package; bytecode would not notice a change within one second.
    said = os.environ | {"PYTHONPATH": str(home.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable,
        "-P",
        "-m",
        "pytest",
        "-q",
        "-x",
        "--no-header",
        "--timeout=60",
        "-p",
        "no:cacheprovider",
    ]
    try:
        done = subprocess.run(
            [*command, str(home / TEST)], cwd=home, env=said, capture_output=True, text=True, check=False, timeout=LIMIT
        )
    except subprocess.TimeoutExpired:
        return f"it hangs: no end after {LIMIT} s"
    if done.returncode == 0:
        return ""
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0].rpartition("::")[2] if failed else done.stdout[-500:]


def _copy(home: Path) -> None:
    for each in COPIED:
        source, goal = ROOT / each, home / each
        goal.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, goal, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, goal)


if __name__ == "__main__":
    raise SystemExit(main())
