"""The pages say what the code says: tables, links, and programs that can be run."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sostenuto.docs import engines
from sostenuto.runtime.engines import Capabilities

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
PROGRAMS = {
    f"{page.stem}-{number}": program
    for page in PAGES
    for number, program in enumerate(re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S), 1)
}
ALONE = [name for name, program in PROGRAMS.items() if "os.environ" not in program]
"""The others are told where a server is."""


def test_the_table_of_engines_is_what_they_say() -> None:
    assert engines.PAGE.read_text(encoding="utf-8") == engines.page(), "run: python docs/engines.py"


def test_every_capability_has_a_meaning_and_some_engine_has_it() -> None:
    assert list(engines.meanings()) == list(Capabilities.__slots__)
    can = engines.columns().values()
    assert [name for name in engines.meanings() if not any(getattr(each, name) for each in can)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_links_to_nothing_that_is_not_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    here = [link for link in links if not re.match(r"[a-z]+:", link)]
    assert [link for link in here if not _found(page, link)] == []


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_in_a_page_imports_what_there_is(name: str) -> None:
    for node in ast.walk(ast.parse(PROGRAMS[name])):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("sostenuto"):
            module = importlib.import_module(str(node.module))
            assert [each.name for each in node.names if not hasattr(module, each.name)] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ALONE)
def test_a_program_in_a_page_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAMS[name]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _found(page: Path, link: str) -> bool:
    path, _, heading = link.partition("#")
    target = page.parent / path if path else page
    if not heading:
        return target.exists()
    headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.M)
    return heading in {re.sub(r"[^\w\- ]", "", each).lower().replace(" ", "-") for each in headings}
