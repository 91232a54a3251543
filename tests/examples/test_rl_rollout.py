"""The rollout example trains, and what it counts is what it says."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "rl_rollout.py"


@pytest.mark.timeout(300)
def test_a_step_computes_each_token_once(capsys: pytest.CaptureFixture[str]) -> None:
    from sostenuto.examples import rl_rollout  # it loads TRL, which takes seconds

    rl_rollout.main(steps=1, group=3)  # it asserts its own counts
    assert_it_told(capsys.readouterr().out.splitlines(), steps=1)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_few_steps_compute_each_token_once_and_none_stale(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert_it_told(capsys.readouterr().out.splitlines(), steps=3)


def assert_it_told(lines: list[str], *, steps: int) -> None:
    told = [line for line in lines if line.startswith("step ")]
    assert len(told) == steps
    for line in told:
        found = re.search(r"reward ([\d.]+) \| (\d+) of (\d+) tokens computed \| \d+% of the time waiting", line)
        assert found is not None, line
        assert int(found[2]) < int(found[3])
    assert any(re.fullmatch(r"\d+ tokens computed for \d+ asked, 0 of them stale; \d+ calls", line) for line in lines)
