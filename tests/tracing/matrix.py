"""Runs the tracer's programs on every Python and every LangGraph it is made for: `make test-matrix`.

Each cell is a virtual environment with the tracer's own dependencies and no torch; the package is installed in it
without its dependencies. A cell whose interpreter this machine lacks is printed as not run, and the exit code is
then 2, unless `--allow-missing` is given. Made with the standard library alone.
"""

# ruff: noqa: T201  (a script that prints)

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHONS = ("3.11", "3.12", "3.13")
LANGGRAPHS = ("1.0", "1.1", "1.2")
PINS = {"1.0": ("langgraph-prebuilt==1.0.8",)}
"""What pip alone would take too new: later ones ask for what only LangGraph 1.1 has."""
PACKAGES = (
    "langchain>=1.0,<2",
    "langgraph-checkpoint-conformance>=0.0.2",
    "langgraph-checkpoint-sqlite>=3",
    "opentelemetry-sdk>=1.30",
    "pytest>=8.4",
    "pytest-asyncio>=1.0",
    "pytest-timeout>=2.3",
)
TESTS = ("tests/tracing/test_programs.py", "tests/tracing/test_both_ways.py")
_LABELS = {"passed": r"(\d+) passed", "failed": r"(\d+) (?:failed|error)", "skipped": r"(\d+) (?:skipped|deselected)"}


@dataclass(frozen=True, slots=True)
class Cell:
    """One Python with one LangGraph."""

    python: str
    langgraph: str

    def __str__(self) -> str:
        return f"{self.python}/{self.langgraph}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a cell. `code` is None where it was not run."""

    cell: Cell
    code: int | None
    versions: str = ""
    counts: str = ""
    seconds: float = 0.0
    note: str = ""

    @property
    def row(self) -> tuple[str, ...]:
        said = {None: "not run", 0: "passed"}.get(self.code, "FAILED")
        took = f"{self.seconds:.0f} s" if self.code is not None else ""
        return (self.cell.python, self.versions or self.cell.langgraph, said, self.counts, took, self.note)


def main(given: Sequence[str] | None = None) -> int:
    """Runs the cells one after the other and prints the table; the exit code."""
    asked = _arguments(given)
    outcomes = []
    for cell in _cells(asked.cells):
        print(f"== {cell}", flush=True)
        outcomes.append(_run(cell, asked.folder, asked.tests, asked.pytest))
    print("\n" + table(outcomes))
    if any(each.code not in (None, 0) for each in outcomes):
        return 1
    return 2 if any(each.code is None for each in outcomes) and not asked.allow_missing else 0


def table(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table in Markdown."""
    rows = [("Python", "LangGraph, LangChain", "", "tests", "took", ""), ("---",) * 6, *(each.row for each in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def interpreter(python: str) -> str | None:
    """A Python of this version that can make environments, if there is one."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    installed = sorted(map(str, pyenv.glob(f"{python}*/bin/python")), reverse=True)
    for name in (f"python{python}", "python3", sys.executable, *installed):
        found = shutil.which(name)
        if found is not None and _says(found, "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])") == python:
            return found
    return None


def environment(cell: Cell, folder: Path) -> Path:
    """The Python of the cell's environment, made if it is not there or not for these packages."""
    wanted = (f"langgraph=={cell.langgraph}.*", *PINS.get(cell.langgraph, ()), *PACKAGES)
    home = folder / f"py{cell.python}-lg{cell.langgraph}"
    python = home / "bin" / "python"
    ready = home / f".ready-{hashlib.sha256('|'.join(wanted).encode()).hexdigest()[:12]}"
    if ready.exists() and python.exists():
        return python
    base = interpreter(cell.python)
    if base is None:
        raise FileNotFoundError(f"no python{cell.python} with ensurepip on the path")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n", encoding="utf-8")  # the folder hides itself
    subprocess.run([base, "-m", "venv", "--clear", str(home)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for what in (wanted, ("--no-deps", "-e", str(ROOT))):
        done = subprocess.run([*pip, *what], capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout, done.stderr, sep="\n", flush=True)
            done.check_returncode()
    ready.touch()
    return python


def _run(cell: Cell, folder: Path, tests: Sequence[str], more: Sequence[str]) -> Outcome:
    try:
        python = environment(cell, folder)
    except FileNotFoundError as missing:
        return Outcome(cell, None, note=str(missing))
    except subprocess.CalledProcessError as failed:
        return Outcome(cell, failed.returncode or 1, note="its environment could not be made")
    began = time.monotonic()
    command = [str(python), "-P", "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, *tests, *more], cwd=ROOT, capture_output=True, text=True, check=False)
    took = time.monotonic() - began
    if done.returncode:
        print(done.stdout[-20_000:], done.stderr[-2_000:], sep="\n", flush=True)
    return Outcome(cell, done.returncode, _versions(python), _counts(done.stdout), took)


def _counts(said: str) -> str:
    last = said.strip().splitlines()[-1] if said.strip() else ""
    found = {label: sum(map(int, re.findall(pattern, last))) for label, pattern in _LABELS.items()}
    return ", ".join(f"{number} {label}" for label, number in found.items() if number) or last


def _versions(python: Path) -> str:
    code = "from importlib.metadata import version as v; print(v('langgraph'), v('langchain'), sep=', ')"
    return _says(str(python), code)


def _says(python: str, code: str) -> str:
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _cells(chosen: Sequence[str]) -> Iterator[Cell]:
    for python in PYTHONS:
        for langgraph in LANGGRAPHS:
            cell = Cell(python, langgraph)
            if not chosen or str(cell) in chosen:
                yield cell


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    caption = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -P tests/tracing/matrix.py", description=caption)
    parser.add_argument("cells", nargs="*", help="such as 3.12/1.1; all of them if none is named")
    parser.add_argument("--folder", type=Path, default=ROOT / ".matrix", help="where the environments are made")
    parser.add_argument("--allow-missing", action="store_true", help="a missing interpreter is no failure")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="the test files to run")
    parser.add_argument("--pytest", nargs="+", default=(), help="more arguments for pytest")
    return parser.parse_args(given)


if __name__ == "__main__":
    raise SystemExit(main())
