"""Costs are measured on the engine and fitted; what does not fit a file of costs is refused."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable
from math import isclose
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from sostenuto.kvstore.tiers import HostTier
from sostenuto.runtime.calibrate import (
    Copied,
    Effort,
    Stepped,
    calibrate,
    copies,
    fit,
    literal,
    off,
    rounds,
    steps,
    told,
    undisturbed,
)
from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.learnt import read_costs
from sostenuto.runtime.loop import Loop
from sostenuto.scheduler import TYPICAL, Costs, Link, Setting, named
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
    found = calibrate(
        TorchEngine(tiny.ours, pool_tokens=1024), near=tmp_path, clock=time.perf_counter, effort=Effort(runs=1)
    )
    assert {each["tier"] for each in found["copies"]} == {"host", "disk"}
    assert any(each["turns"] for each in found["steps"])
    assert not list(tmp_path.iterdir()), "the disk was measured in a folder that is gone"
    path = tmp_path / "costs.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    costs = read_costs(path)
    assert costs.data() == found["costs"]
    assert costs.prefill(1000) > 0
    assert "a token of a prompt" in told(found)


class Watch:
    """A clock that stands still but for the work that is done by it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def takes(self, *seconds: float) -> Callable[[], None]:
        """Work that takes so long each time; the last of them from then on."""
        left = list(seconds)

        def work() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


def test_the_first_run_warms_up_and_the_quickest_of_the_others_counts() -> None:
    clock = Watch()
    run = rounds([clock.takes(9.0, 2.0, 1.0, 3.0), clock.takes(0.5, 5.0)], Effort(3, 600.0), clock)
    assert run.taken == ((2.0, 1.0, 3.0), (5.0, 5.0, 5.0))
    assert (run.best, run.apart) == ((1.0, 5.0), 1.0)


def test_a_busy_moment_spoils_one_run_of_each_and_no_figure() -> None:
    clock = Watch()
    works = [clock.takes(n, n, 40 * n, n) for n in (1.0, 2.0, 4.0)]
    run = rounds(works, Effort(3, 6000.0), clock)
    assert run.best == (1.0, 2.0, 4.0)


def test_rounds_end_with_their_time_and_what_is_too_large_is_left_out() -> None:
    clock = Watch()
    run = rounds([clock.takes(1.0), clock.takes(2.0), clock.takes(8.0), clock.takes(400.0)], Effort(50, 100.0), clock)
    assert [len(runs) for runs in run.taken] == [4, 4, 4]
    assert clock.now <= 60
    alone = rounds([clock.takes(500.0)], Effort(5, 10.0), clock)
    assert alone.taken == ((500.0,),), "something is always measured, once"
    assert rounds([], Effort(), clock).apart == 0.0


def test_more_work_is_never_done_sooner() -> None:
    odd = [Stepped(((n, b),), 0, 0, s) for n, b, s in ((16, 0, 9.0), (64, 0, 2.0), (64, 512, 3.0), (16, 512, 1.0))]
    odd += [Stepped((), turns, seen, s) for turns, seen, s in ((1, 512, 5.0), (2, 1024, 4.0), (1, 2048, 6.0))]
    assert [one.seconds for one in undisturbed(odd)] == [1.0, 2.0, 3.0, 1.0, 4.0, 4.0, 6.0]


def test_the_engines_steps_and_copies_are_measured_in_order(tiny: Pair, tmp_path: Path) -> None:
    engine = TorchEngine(tiny.ours, pool_tokens=1024)
    found, apart = steps(engine, clock=time.perf_counter, effort=Effort(runs=2))
    assert apart >= 0
    assert {one.turns for one in found} == {0, 1, 2}
    assert found == undisturbed(found)

    async def both() -> list[Copied]:
        tier = HostTier(verify=False)
        return await copies(engine, [tier], clock=time.perf_counter, effort=Effort(runs=2))

    small, large = sorted(asyncio.run(both()), key=lambda one: one.tokens)
    assert (small.tokens, large.tokens) == (64, 512)
    assert small.out_s <= large.out_s
    assert small.back_s <= large.back_s


def test_the_file_is_read_by_the_engines_schedule_and_by_the_simulator(
    tiny: Pair, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, path = TorchEngine(tiny.ours, pool_tokens=1024, chunk=128), tmp_path / "costs.json"
    found = calibrate(engine, near=tmp_path, clock=time.perf_counter, effort=Effort(runs=1), machine="a desk")
    path.write_text(json.dumps(found), encoding="utf-8")
    costs = read_costs(path)
    assert costs.chunk == 128, "as the engine cuts prompts"
    with Loop(engine, named("sostenuto"), setting=Setting(costs=costs)) as loop:
        assert loop.kernel.books.costs.data() == found["costs"]
    given = ["simulate", "--trace", "generated:shell:2", "--users", "2", "--costs", str(path)]
    assert main(given) == 0
    assert f"costs: {costs.source}" in capsys.readouterr().out


def test_a_busy_machine_is_told_and_costs_are_printed_as_they_are_committed() -> None:
    data = {"costs": TYPICAL.data(), "steps": [], "off": 0.0}
    assert "something else runs here" in told({**data, "apart": 0.5})
    assert "something else runs here" not in told({**data, "apart": 0.1})
    known: dict[str, Any] = {"Costs": Costs, "Link": Link, "MappingProxyType": MappingProxyType}
    exec(literal(TYPICAL), known)
    assert known["TYPICAL"] == TYPICAL


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no json", "is no file of costs"),
        ("[]", "is no file of costs"),
        ('{"format": 99}', "found costs of format 99"),
        ('{"format": 1}', "found no 'costs'; expected costs as they are written: calibrate anew"),
        ("\xff", "found no JSON"),
        ('{"format": 1, "costs": {}}', "no costs as they are written"),
        ('{"format": true}', "found costs of format True"),
        ('{"format": ' + "9" * 5000 + "}", "is no file of costs"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "costs.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=said):
        read_costs(path)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("chunk", math.inf),
        ("chunk", 1.9),
        ("chunk", "512"),
        ("chunk", True),
        ("chunk", 0),
        ("step_s", 10**400),
        ("token_s", 1e308),
        ("token_s", math.nan),
        ("pair_s", -1.0),
    ],
)
def test_costs_that_cannot_be_are_refused_with_their_name(tmp_path: Path, name: str, wrong: object) -> None:
    path = tmp_path / "costs.json"
    path.write_text(json.dumps({"format": 1, "costs": TYPICAL.data() | {name: wrong}}), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"costs.json: {name}: found .*; expected .*: calibrate anew"):
        read_costs(path)


def test_the_command_says_where_it_cannot_write(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", "--out", str(tmp_path / "none" / "costs.json")]) == 1
    assert "there is no folder" in capsys.readouterr().err
