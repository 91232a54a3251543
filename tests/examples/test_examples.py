"""Every example runs as it stands; what takes long runs small in the usual tests."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from sostenuto.examples import tree_search
from sostenuto.runtime.cli import main
from sostenuto.runtime.search import beam, best_of, mcts

FOLDER = Path(__file__).parents[2] / "examples"


def test_the_agent_calls_its_tool_and_computes_only_what_is_new(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / "langgraph_agent.py"), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert any("opening_hours({" in line for line in lines)
    said = [line for line in lines if line.lstrip().startswith("ai:")]
    reused, prompt = (int(word) for word in said[-1].split("[")[1].split(" reused")[0].split(" of "))
    assert prompt - reused < 40


def test_every_search_by_forks_computes_a_fraction_of_what_fresh_prompts_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In float32, where the two ways find the same nodes: with so few of them it is these that are compared."""
    searches = {"best of 4": best_of(4), "beam 1x3": beam(1, 3), "mcts of 3": mcts(3, 3)}
    tree_search.main(searches, dtype="float32")
    assert_forks_compute_a_fraction(capsys.readouterr().out.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_searches_of_the_example_as_it_stands_do_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / "tree_search.py"), run_name="__main__")
    assert_forks_compute_a_fraction(capsys.readouterr().out.splitlines())


def assert_forks_compute_a_fraction(lines: list[str]) -> None:
    told = [line for line in lines if "nodes explored" in line]
    assert len(told) == 6
    computed = [int(line.split(" tokens computed")[0].split()[-1]) for line in told]
    assert all(2 * forked < fresh for forked, fresh in zip(computed[::2], computed[1::2], strict=True))
    assert any("rollback" in line for line in told)


def test_a_conversation_that_moves_computes_only_what_is_new_on_the_other_host(
    capsys: pytest.CaptureFixture[str],
) -> None:
    runpy.run_path(str(FOLDER / "migrate.py"), run_name="__main__")
    here, _, there = capsys.readouterr().out.splitlines()
    assert "reused 0" in here
    assert int(there.rsplit("computed ", 1)[1]) < 40


def test_an_agent_that_waits_for_a_person_goes_on_in_another_process_and_computes_only_what_is_new() -> None:
    done = subprocess.run(
        [sys.executable, str(FOLDER / "resume_after_restart.py")], capture_output=True, text=True, check=True
    )
    prompts = [line for line in done.stdout.splitlines() if line.startswith("prompt ")]
    computed = [int(line.split("computed ")[1].split(" |")[0]) for line in prompts]
    assert len(computed) == 2
    assert computed[0] > 400
    assert computed[1] < 60


def test_a_policy_of_ones_own_runs_the_engine_and_simulations(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(FOLDER / "own_policy.py"), run_name="__main__")
    *answers, host = capsys.readouterr().out.splitlines()
    assert answers
    assert "<Kernel mine | 0 waiting | 0 running" in host
    command = ["simulate", "--trace", "generated:coding", "--sessions", "2", "--users", "2", "--json"]
    assert main([*command, "--policy", f"{FOLDER / 'own_policy.py'}:MINE,forgetful"]) == 0
    assert [row["policy"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["mine", "forgetful"]


@pytest.mark.parametrize("example", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_fits_on_two_pages(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) <= 140
