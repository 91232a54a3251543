"""What an event costs the kernel, by how many programs are alive, and what an observation costs a forecast.

python -m sostenuto.bench.kernel [--live 1000 10000 100000 --events 20000 --policy sostenuto --day shell:100000]

Programs have contexts of three pages, the pool has half as many pages as they want: some run, some wait, most are away,
and what the pool holds of them changes with every event. Each event is one call of `Kernel.handle`, in processor time;
effects are not carried out. At the end a day of sessions, made up and spread over 24 hours, goes through the simulator
with a pool of two million tokens, and the wall time of that is told.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from time import perf_counter, thread_time

from sostenuto.kvstore import Ledger, root
from sostenuto.runtime.learnt import load_policy
from sostenuto.runtime.simulating import Pool, kernel_for
from sostenuto.runtime.traces import Arrangement, arranged, open_trace
from sostenuto.scheduler import (
    Arrived,
    Effect,
    Event,
    Forecasts,
    Kernel,
    NeedRoom,
    Paused,
    Preempt,
    ProgramId,
    Progress,
    Start,
    Stepped,
    ToolEnded,
    ToolStarted,
    TurnId,
)
from sostenuto.scheduler.simulator import STATED, Conditions, simulate

from .report import machine

PAGE = 16
TOKENS = 40
RUNNING = 32
ROOT = root(model="bench").hex()
POOL = 2_000_000


class World:
    """Programs that come, run, call tools and come back. `times` are microseconds by kind of event."""

    def __init__(self, live: int, policy: str, seed: int) -> None:
        chosen = load_policy(policy)
        self.kernel = Kernel(Ledger(max(live * 3 // 2, 200), PAGE, rank=chosen.evict), chosen)
        self.times: dict[str, list[float]] = defaultdict(list)
        self.running: dict[TurnId, int] = {}
        self.away: list[int] = list(range(live))
        self.turns: dict[TurnId, int] = {}
        self.count = 0
        self.now = 0.0
        self.chance = random.Random(seed)

    def tell(self, event: Event) -> None:
        self.now += 1e-4
        begun = thread_time()
        effects = self.kernel.handle(event, self.now)
        self.times[type(event).__name__].append((thread_time() - begun) * 1e6)
        self._note(effects)

    def once(self) -> None:
        """The next event, as it comes: who runs is kept up, and pauses in the end."""
        if len(self.running) < RUNNING and self.away:
            at = self.chance.randrange(len(self.away))
            self.away[at], self.away[-1] = self.away[-1], self.away[at]
            program = self.away.pop()
            name = ProgramId(f"default/p{program}")
            if self.count > len(self.away):
                self.tell(ToolEnded(name, "search", "call"))
            self.count += 1
            turn = TurnId(f"t{self.count}")
            self.turns[turn] = program
            tokens = tuple(range(program * 7, program * 7 + TOKENS))
            self.tell(Arrived(turn, name, "main", ROOT, tokens, 16))
            return
        if not self.running:
            raise RuntimeError(f"nobody runs and nobody is away: {self.kernel!r}")
        turn = self.chance.choice(list(self.running))
        missing = self.running[turn]
        if missing:
            self.running[turn] = 0
            self.tell(Stepped((Progress(turn, missing, (7,)),)))
            self.tell(NeedRoom((turn,)))
            return
        del self.running[turn]
        program = self.turns.pop(turn)
        self.away.append(program)
        self.tell(Paused(turn, ("search",)))
        self.tell(ToolStarted(ProgramId(f"default/p{program}"), "search", "call"))

    def _note(self, effects: list[Effect]) -> None:
        for effect in effects:
            if isinstance(effect, Start):
                self.running[effect.turn] = len(self.kernel.books.turns[effect.turn].tokens) - effect.reuse
            elif isinstance(effect, Preempt):
                self.running.pop(effect.turn, None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--events", type=int, default=20_000)
    parser.add_argument("--policy", default="sostenuto")
    parser.add_argument("--day", default="shell:100000", help="mix and sessions (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(machine(options.seed, 1, packages=("sostenuto",)))
    print(f"{options.policy}, pages of {PAGE}, contexts of {TOKENS} tokens, {RUNNING} turns run; microseconds an event")
    for live in options.live:
        world = World(live, options.policy, options.seed)
        while world.count < live:  # until everybody has been there once
            world.once()
        world.times.clear()
        for _ in range(options.events):
            world.once()
        every = sorted(time for times in world.times.values() for time in times)
        kinds = "  ".join(f"{kind} {_p(sorted(times), 0.5):.1f}" for kind, times in sorted(world.times.items()))
        print(
            f"{live:>8} live: p50 {_p(every, 0.5):6.1f}  p99 {_p(every, 0.99):7.1f}  of {len(every)} | p50 of {kinds}"
        )
        print(f"{'':>15}{world.kernel!r}")
    print(f"one observation of a forecast: {_observation():.2f} us on average", flush=True)
    print(_day(options.day, options.policy, options.seed))


def _day(mix: str, policy: str, seed: int) -> str:
    """A day in the simulator."""
    workload = arranged(open_trace(f"generated:{mix}:day", seed=seed), Arrangement(seed=seed))
    conditions = Conditions(STATED)
    kernel = kernel_for(load_policy(policy), Pool(POOL), workload.granule, conditions)
    begun = perf_counter()
    tally = simulate(kernel, workload, conditions)
    took = perf_counter() - begun
    return (
        f"a day of {tally.sessions} sessions ({mix.split(':')[0]}), {tally.calls} calls in {tally.seconds / 3600:.1f} "
        f"hours, pool of {POOL} tokens: simulated in {took / 60:.1f} minutes, {took / tally.calls * 1e6:.0f} us a call"
    )


def _observation(count: int = 100_000) -> float:
    forecasts, chance = Forecasts(), random.Random(0)
    seconds = [chance.lognormvariate(2.0, 1.6) for _ in range(count)]
    begun = thread_time()
    for each in seconds:
        forecasts.observe("bash", each, "make")
    return (thread_time() - begun) / count * 1e6


def _p(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    main()
