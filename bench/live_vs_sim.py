"""A trace on the embedded engine with real sleeps for its tools, and in the simulator: do both tell the same story?

python -P -m sostenuto.bench.live_vs_sim [--trace F --scale 16 --policies forgetful sostenuto continuum --users 8]

The engine is calibrated first, for policies to read. Each policy then runs the same sessions on an engine of its own,
with as many users, `--laps` times in different orders; answers are forced to be those of the trace, and every step is
timed. The simulator runs the same laps on the calibrated device, as much slower as the steps of those runs were, and
with as much more for each step: whatever else the machine did meanwhile is in both. Who evicts whom hangs on
milliseconds, so one run says little: what is simulated is a mean over draws in which pauses differ by a hundredth,
told with its spread. Tokens are one for `--scale` of the trace, pauses are divided by `--scale-pauses`; no figure
depends on what is said. With the packaged model it takes about seven minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from statistics import fmean, pstdev
from time import perf_counter, sleep

import torch

from sostenuto.bench.policies import trace_file
from sostenuto.bench.report import machine
from sostenuto.runtime.calibrate import POOL_TOKENS, Effort, Stepped, calibrate, off
from sostenuto.runtime.engines import Said
from sostenuto.runtime.engines.torch.engine import Step, TorchEngine
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.weights import locate
from sostenuto.runtime.errors import Refused
from sostenuto.runtime.learnt import load_policy
from sostenuto.runtime.loop import Loop
from sostenuto.runtime.request import Request
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.simulating import Pool, kernel_for
from sostenuto.runtime.ticket import Ended
from sostenuto.runtime.traces import Arrangement, arranged, open_trace
from sostenuto.scheduler import Closed, Costs, ProgramId, Setting, ToolEnded, ToolStarted
from sostenuto.scheduler.simulator import Call, Conditions, Session, Workload, load_of, simulate

OUT = Path(__file__).parent / "results" / "live_vs_sim.json"
CALIBRATE_S = 40.0
RECOMPUTED, RATIO = 0.15, 0.25
"""How far simulated and live may lie apart: recomputed tokens, and mean JCT relative to the first policy's."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One policy's run, live or simulated."""

    jct_mean_s: float
    ttft_resume_p50_s: float
    reused_share: float
    recomputed_tokens: int
    preemptions: int
    refused: int
    """Jobs of which a call cannot fit the pool."""
    spread_tokens: int = 0
    """By how much recomputed tokens differ between draws: their standard deviation."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", help="(default: mini-swe's recordings, or generated:shell:24 where they are not)")
    parser.add_argument("--policies", nargs="+", default=["forgetful", "sostenuto", "continuum"])
    parser.add_argument("--scale", type=int, default=16, help="tokens of the trace for one (default: %(default)s)")
    parser.add_argument("--scale-pauses", type=float, default=1.0)
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--sessions", type=int, default=24)
    parser.add_argument("--pressure", type=float, default=2.5, help="working set over pool (default: %(default)s)")
    parser.add_argument("--laps", type=int, default=3, help="runs of all sessions, each in another order")
    parser.add_argument("--draws", type=int, default=8, help="simulations of each lap")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model")
    parser.add_argument("--out", type=Path, default=OUT)
    asked = parser.parse_args(arguments)
    model = Model.load(locate(asked.model))
    with tempfile.TemporaryDirectory() as folder:
        engine = TorchEngine(model, pool_tokens=POOL_TOKENS)
        measured = calibrate(engine, near=Path(folder), clock=perf_counter, effort=Effort(seconds=CALIBRATE_S))
    costs = Costs.read(measured["costs"])
    laps = [_workload(asked, asked.seed + lap) for lap in range(asked.laps)]
    load = load_of(laps[0].sessions, 1, costs)
    pool = Pool(round(load.wanted(asked.users) / asked.pressure), page=model.shape.page)
    at = {
        "machine": machine(asked.seed, torch.get_num_threads()),
        "trace": laps[0].name,
        "laps": asked.laps,
        "draws": asked.draws,
        "sessions": load.sessions,
        "calls": load.calls,
        "users": asked.users,
        "seed": asked.seed,
        "pool_tokens": pool.tokens,
        "scale_tokens": asked.scale,
        "scale_pauses": asked.scale_pauses,
        "d": load.d,
        "R": load.r(pool.tokens),
        "costs": costs.data(),
        "costs_off": measured["off"],
    }
    print(json.dumps(at), flush=True)
    rows = {}
    for name in asked.policies:
        real, steps = live(name, laps, pool, Conditions(costs, asked.users), model)
        took = fitted(steps, costs)
        known = (Conditions(costs), Conditions(took, asked.users))
        rows[name] = (simulated(name, drawn(laps, asked.draws), pool, known), real)
        apart = off(took, steps)
        print(f"{name}: {len(steps)} steps, half of them less than {apart:.0%} off; {took.data()}", flush=True)
        print("\n".join(table(name, *rows[name], first=len(rows) == 1)), flush=True)
    print("\n".join(["", *agreed(rows)]))
    told = {name: {"simulated": asdict(sim), "live": asdict(real)} for name, (sim, real) in rows.items()}
    asked.out.write_text(json.dumps(at | {"rows": told}, indent=1) + "\n", encoding="utf-8")


def drawn(laps: Sequence[Workload], draws: int) -> list[list[Workload]]:
    """The laps, so many times, each time with pauses that are longer or shorter by a hundredth at most."""

    def other(lap: Workload, chance: Random) -> Workload:
        sessions = [
            replace(one, calls=tuple(replace(c, pause=c.pause * chance.uniform(0.99, 1.01)) for c in one.calls))
            for one in lap.sessions
        ]
        return replace(lap, sessions=sessions)

    return [[other(lap, Random(f"{draw} {number}")) for number, lap in enumerate(laps)] for draw in range(draws)]


def simulated(
    policy: str, draws: Sequence[Sequence[Workload]], pool: Pool, known: tuple[Conditions, Conditions]
) -> Seen:
    """The same kernel, which reads the first costs, on a device that has the second ones: the mean over the draws."""
    read, real = known
    every = [[simulate(kernel_for(load_policy(policy), pool, 1, read), lap, real) for lap in laps] for laps in draws]
    tallies = [tally for each in every for tally in each]
    counts = (sum(one.prompt for one in tallies), sum(one.reused for one in tallies))
    recomputed = [sum(tally.recomputed for tally in each) for each in every]
    seen = _seen(
        [jct for one in tallies for jct in one.jcts],
        [wait for one in tallies for wait in one.resumed],
        (*counts, round(fmean(recomputed))),
        (round(sum(one.preemptions for one in tallies) / len(every)), sum(one.refusals for one in every[0])),
    )
    return replace(seen, spread_tokens=round(pstdev(recomputed)))


def fitted(steps: Sequence[Stepped], costs: Costs) -> Costs:
    """The calibrated device, slower by a share and by so much for each step, as the steps of a run were.

    Two numbers, by least squares of relative errors; then all of it so that the steps take as long together. Chunks
    and ways to tiers stay the engine's.
    """
    known = [costs.step(one.prompts, one.turns, one.seen) for one in steps]
    rows = [(1 / one.seconds, each / one.seconds) for one, each in zip(steps, known, strict=True)]
    aa, ab, bb = (sum(x[i] * x[j] for x in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
    a, b = sum(x for x, _ in rows), sum(y for _, y in rows)
    scale = aa * bb - ab * ab
    more, share = ((a * bb - b * ab) / scale, (b * aa - a * ab) / scale) if scale > 1e-9 * aa * bb else (0.0, b / bb)
    if min(more, share) < 0:
        more, share = (0.0, b / bb) if more < 0 else (a / aa, 0.0)
    whole = sum(one.seconds for one in steps) / sum(more + share * each for each in known)
    numbers = {
        name: getattr(costs, name) * share * whole for name in ("step_s", "token_s", "pair_s", "turn_s", "seen_s")
    }
    numbers["step_s"] += more * whole
    return replace(costs, source="the steps of the live run", **numbers)


class Timed(TorchEngine):
    """Keeps how long each step took, from its plan until it was settled."""

    def __init__(self, model: Model, *, pool_tokens: int) -> None:
        super().__init__(model, pool_tokens=pool_tokens)
        self.steps: list[Stepped] = []
        self._planned = (0.0, Step((), (), ()))

    def plan(self) -> Step | None:
        begun, step = perf_counter(), super().plan()
        if step is not None:
            self._planned = (begun, step)
        return step

    def settle(self, said: Sequence[Said]) -> None:
        super().settle(said)
        begun, step = self._planned
        prompts = tuple((len(one.tokens), one.start) for one in step.pieces if len(one.tokens) > 1)
        turns = [one for one in step.pieces if len(one.tokens) == 1]
        seen = sum(one.start + 1 for one in turns)
        self.steps.append(Stepped(prompts, len(turns), seen, perf_counter() - begun))


def live(
    policy: str, laps: Sequence[Workload], pool: Pool, conditions: Conditions, model: Model
) -> tuple[Seen, Sequence[Stepped]]:
    """The loop on a real engine, anew for each lap; tools are sleeps. With it, what its steps took."""
    steps: list[Stepped] = []
    runs = []
    for lap in laps:
        engine = Timed(model, pool_tokens=pool.tokens)
        with Loop(engine, load_policy(policy), setting=Setting(costs=conditions.costs)) as loop:
            run = _Live(loop, iter(list(lap.sessions)), model.vocab)
            users = [threading.Thread(target=run.user) for _ in range(conditions.users or 1)]
            for user in users:
                user.start()
            for user in users:
                user.join()
        runs.append(run)
        steps += engine.steps
    counts = (sum(run.prompt for run in runs), sum(run.reused for run in runs), sum(run.recomputed for run in runs))
    jcts, resumed = [each for run in runs for each in run.jcts], [each for run in runs for each in run.resumed]
    rare = (sum(run.preemptions for run in runs), sum(run.refused for run in runs))
    return _seen(jcts, resumed, counts, rare), steps


@dataclass(frozen=True, slots=True)
class _Spelled:
    """A call in tokens of the model: its prompt, and what is to be said."""

    call: Call
    prompt: tuple[int, ...]
    says: tuple[int, ...]


def _jobs(calls: Iterable[_Spelled]) -> Iterator[list[_Spelled]]:
    """A job is over with the call that calls no tools, or with the last."""
    job: list[_Spelled] = []
    for one in calls:
        job.append(one)
        if not one.call.tools:
            yield job
            job = []
    if job:
        yield job


class _Live:
    """Users who make the calls of sessions, one session after the other."""

    def __init__(self, loop: Loop, sessions: Iterator[Session], vocab: int) -> None:
        self.jcts: list[float] = []
        self.resumed: list[float] = []
        self.prompt = self.reused = self.recomputed = self.preemptions = self.refused = 0
        self._loop, self._sessions, self._vocab = loop, sessions, vocab
        self._names: dict[int, int] = {}
        self._lock = threading.Lock()
        self._begun = perf_counter()

    def user(self) -> None:
        while True:
            with self._lock:
                session = next(self._sessions, None)
            if session is None:
                return
            sleep(max(0.0, self._begun + session.at - perf_counter()))
            self._session(session)

    def _session(self, session: Session) -> None:
        program = ProgramId(f"{session.tenant}/{session.name}")
        jobs = list(_jobs(self._spelled(session.calls)))
        for number, job in enumerate(jobs):
            began = perf_counter()
            try:
                self._job(program, job, f"{session.name}.{number}")
            except Refused:  # nobody goes on with a job of which a call was refused
                self._loop.tell(Closed(program, "failed"))
                with self._lock:
                    self.refused += 1
                continue
            self._loop.tell(Closed(program))
            with self._lock:
                self.jcts.append(perf_counter() - began)
            sleep(job[-1].call.pause if job is not jobs[-1] else 0.0)

    def _job(self, program: ProgramId, job: Sequence[_Spelled], name: str) -> None:
        for number, one in enumerate(job):
            tools = () if one is job[-1] else one.call.tools
            self._ask(program, one, tools, resumes=number > 0)
            for at, tool in enumerate(tools):
                self._loop.tell(ToolStarted(program, tool, f"{name}.{number}.{at}"))
            if tools:
                sleep(one.call.pause)
            for at, tool in enumerate(tools):
                self._loop.tell(ToolEnded(program, tool, f"{name}.{number}.{at}"))

    def _ask(self, program: ProgramId, one: _Spelled, tools: tuple[str, ...], *, resumes: bool) -> None:
        sampling = Sampling(max_tokens=len(one.says))
        request = Request(
            program, "main", one.prompt, sampling, forced=one.says, tools_called=lambda text, reason: tools
        )
        came, first = perf_counter(), None
        for piece in self._loop.submit(request):
            if isinstance(piece, Ended):
                with self._lock:
                    self.prompt += piece.facts.prompt_tokens
                    self.reused += piece.facts.reused_tokens
                    self.recomputed += piece.facts.recomputed_tokens + piece.facts.lost_tokens
                    self.preemptions += piece.facts.recomputed_tokens > 0
            elif first is None:
                first = perf_counter()
                if resumes:
                    self.resumed.append(first - came)

    def _spelled(self, calls: Sequence[Call]) -> Iterator[_Spelled]:
        context: list[int] = []
        for call in calls:
            context = [*context[: call.keep], *self._known(call.add)]
            says = self._known(call.say)
            yield _Spelled(call, tuple(context), says)
            context += says

    def _known(self, names: Sequence[int]) -> tuple[int, ...]:
        """The trace's names as tokens of the model, each its own as far as there are enough."""
        with self._lock:
            return tuple(300 + self._names.setdefault(name, len(self._names)) % (self._vocab - 400) for name in names)


def table(name: str, sim: Seen, real: Seen, *, first: bool) -> list[str]:
    """Simulated and live, side by side."""
    titles = f"{'JCT mean':>10}{'TTFT p50':>10}{'reused':>9}{'recomputed':>12}{'preempted':>11}{'refused':>9}"
    head = f"{'':<14}{'':<11}{titles}"
    lines = [head] if first else []
    for what, seen in (("simulated", sim), ("live", real)):
        spread = f"   +- {seen.spread_tokens}" if seen.spread_tokens else ""
        numbers = f"{seen.jct_mean_s:>10.2f}{seen.ttft_resume_p50_s:>10.3f}{seen.reused_share:>9.3f}"
        rare = f"{seen.recomputed_tokens:>12}{seen.preemptions:>11}{seen.refused:>9}"
        lines.append(f"{name:<14}{what:<11}{numbers}{rare}{spread}")
    return lines


def agreed(rows: dict[str, tuple[Seen, Seen]]) -> Iterator[str]:
    """Where simulated and live figures are as close as they should be, and where they are not."""
    (first, (sim_first, live_first)), *_ = rows.items()
    for name, (sim, real) in rows.items():
        apart = (
            sim.recomputed_tokens / real.recomputed_tokens - 1
            if real.recomputed_tokens
            else float(sim.recomputed_tokens > 0)
        )
        yield f"{name}: recomputed {apart:+.1%} against live, {_verdict(apart, RECOMPUTED)}"
        if name != first:
            ratios = sim.jct_mean_s / sim_first.jct_mean_s, real.jct_mean_s / live_first.jct_mean_s
            off = ratios[0] / ratios[1] - 1
            told = f"JCT as a share of {first}'s {ratios[0]:.3f} simulated, {ratios[1]:.3f} live, {off:+.1%}"
            yield f"{name}: {told}, {_verdict(off, RATIO)}"


def _verdict(off: float, most: float) -> str:
    return f"within {most:.0%}" if abs(off) <= most else f"NOT within {most:.0%}"


def _workload(asked: argparse.Namespace, seed: int) -> Workload:
    name = asked.trace or trace_file("lmcache_miniswe.jsonl.gz") or f"generated:shell:{asked.sessions}"
    arrangement = Arrangement(
        seed=seed, users=asked.users, sessions=asked.sessions, tokens=asked.scale, pauses=asked.scale_pauses
    )
    workload = arranged(open_trace(name, granule=asked.scale, seed=seed), arrangement)
    # All at once within two seconds, for a real clock has to wait for them.
    begun = [replace(one, at=one.at / 15) for one in workload.sessions]
    return replace(workload, name=Path(name).name, sessions=begun)


def _seen(jcts: Sequence[float], resumed: Sequence[float], counts: tuple[int, int, int], rare: tuple[int, int]) -> Seen:
    prompt, reused, recomputed = counts
    middle = sorted(resumed)[len(resumed) // 2] if resumed else 0.0
    return Seen(sum(jcts) / len(jcts), middle, reused / prompt, recomputed, *rare)


if __name__ == "__main__":
    main()
