"""Every example runs as it stands."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "examples"


def test_the_agent_calls_its_tool_and_computes_only_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / "langgraph_agent.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert any("opening_hours({" in line for line in lines)
    said = [line for line in lines if line.lstrip().startswith("ai:")]
    reused, prompt = (int(word) for word in said[-1].split("[")[1].split(" reused")[0].split(" of "))
    assert prompt - reused < 40


@pytest.mark.parametrize("example", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_fits_on_a_page(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 100
