"""Costs are measured on the engine and fitted; what does not fit a file of costs is refused."""

from __future__ import annotations

import json
import time
from math import isclose
from pathlib import Path

import pytest

from sostenuto.runtime.calibrate import Copied, Stepped, calibrate, fit, off, read_costs, told
from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.scheduler import Costs, Link
from sostenuto.tests.runtime.conftest import Pair

TRUE = Costs(0.05, 4e-4, 3e-7, 2e-3, 2e-6, links={"host": Link(1e-3, 8e-6, 4e-6)})


def test_a_fit_finds_the_costs_behind_what_was_measured() -> None:
    prompts = [((tokens, behind),) for tokens in (16, 64, 256, 512) for behind in (0, 512, 2048)]
    stepped = [Stepped(prompt, 0, 0, TRUE.step(prompt, 0, 0)) for prompt in prompts]
    stepped += [Stepped((), turns, turns * 900 + 7, TRUE.decode(turns, turns * 900 + 7)) for turns in (1, 2, 4, 8)]
    stepped += [Stepped((), turns, turns * 9, TRUE.decode(turns, turns * 9)) for turns in (1, 2, 4, 8)]
    copied = [Copied("host", n, TRUE.store("host", n), TRUE.fetch("host", n)) for n in (64, 512, 2048)]
    costs = fit(stepped, copied, chunk=512, source="here")
    for name in ("step_s", "token_s", "pair_s", "turn_s", "seen_s"):
        assert isclose(getattr(costs, name), getattr(TRUE, name), rel_tol=0.02), name
    assert isclose(costs.fetch("host", 1000), TRUE.fetch("host", 1000), rel_tol=0.05)
    assert off(costs, stepped) < 0.01


def test_no_cost_is_negative_whatever_was_measured() -> None:
    odd = [Stepped(((n, 0),), 0, 0, 1.0 / n) for n in (16, 64, 256)]
    costs = fit(odd, [Copied("host", n, 1.0 / n, 1.0 / n) for n in (64, 512)], chunk=512, source="")
    assert min(costs.step_s, costs.token_s, costs.pair_s, costs.turn_s, costs.links["host"].out_s) >= 0


def test_the_engine_is_measured_and_the_file_gives_its_costs_back(tiny: Pair, tmp_path: Path) -> None:
    found = calibrate(TorchEngine(tiny.ours, pool_tokens=1024), near=tmp_path, clock=time.perf_counter, runs=1)
    assert {each["tier"] for each in found["copies"]} == {"host", "disk"}
    assert any(each["turns"] for each in found["steps"])
    assert not list(tmp_path.iterdir()), "the disk was measured in a folder that is gone"
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    costs = read_costs(path)
    assert costs.data() == found["costs"]
    assert costs.prefill(1000) > 0
    assert "a token of a prompt" in told(found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is no file of costs"),
        ("[]", "is no file of costs"),
        ('{"format": 99}', "found costs of format 99"),
        ('{"format": 1}', "calibrate anew"),
        ('{"format": 1, "costs": {}}', "no costs as they are written"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_costs(path)


def test_the_command_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--out", str(tmp_path / "none" / "costs.json")]) == 1
    assert "there is no folder" in capsys.readouterr().err
