"""The rollout example trains, and what it counts is what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "rl_rollout.py"


@pytest.mark.timeout(600)
def test_a_few_steps_compute_each_token_once_and_none_stale(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")  # it asserts its own counts
    lines = capsys.readouterr().out.splitlines()
    steps = [line for line in lines if line.startswith("step ")]
    assert len(steps) == 3
    for line in steps:
        found = re.search(r"reward ([\d.]+) \| (\d+) of (\d+) tokens computed \| \d+% of the time waiting", line)
        assert found is not None, line
        assert int(found[2]) < int(found[3])
    assert any(re.fullmatch(r"\d+ tokens computed for \d+ asked, 0 of them stale; \d+ calls", line) for line in lines)
