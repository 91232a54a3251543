"""Policies side by side on one workload: a kernel for each, the same sessions, what came of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tqdm import tqdm

from ..kvstore import Elsewhere, Ledger
from ..scheduler import Future, Kernel, Policy, Setting, checked, oracle
from ..scheduler.simulator import ALPHA, Conditions, Figures, Session, Tally, Workload, figures, simulate

PAGE = 16
"""Granules of a page."""
PAGES = 1 << 21
"""Of a pool that is simulated: the books of each take about a hundred bytes."""
ORACLE = "oracle"


@dataclass(frozen=True, slots=True)
class Pool:
    """Room for contexts, in tokens of the trace as it is run: on the device, and in host memory below it."""

    tokens: int
    host_tokens: int = 0
    page: int = PAGE
    """In granules."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What is told of runs: goodput within `alpha` times ideal, the timeline of so many sessions."""

    alpha: float = ALPHA
    lanes: int = 0
    quiet: bool = False
    """No bar on standard error that counts sessions as they begin; there is none either where nobody looks."""


_DEFAULT = Shown()


@dataclass(frozen=True, slots=True)
class Result:
    """One policy's run."""

    figures: Figures
    tally: Tally


def compared(
    workload: Workload,
    policies: Sequence[Policy],
    pool: Pool,
    *,
    conditions: Conditions,
    shown: Shown = _DEFAULT,
) -> list[Result]:
    """Each policy on the same workload, and how far each is from the oracle, which is always run for that."""
    wanted = list(policies)
    extra = [] if any(policy.name == ORACLE for policy in wanted) else [oracle(Future())]
    results = []
    for policy in [*wanted, *extra]:
        future = Future()
        knowing = oracle(future) if policy.name == ORACLE else policy
        counted = replace(workload, sessions=_Counted(workload.sessions, policy.name, shown.quiet))
        tally = Tally(workload.granule, lanes=shown.lanes)
        kernel = kernel_for(knowing, pool, workload.granule, conditions)
        simulate(kernel, counted, replace(conditions, future=future), tally=tally)
        if tally.refusals and not tally.jcts:
            raise ValueError(
                f"under {policy.name} no job came to its end, {tally.refusals} were refused: give the pool more than "
                f"{pool.tokens} tokens"
            )
        results.append(Result(figures(policy.name, tally, alpha=shown.alpha), tally))
    best = next((one.figures.jct_mean_s for one in results if one.figures.policy == ORACLE), None)
    return [_measured(one, best) for one in results[: len(wanted)]]


def kernel_for(policy: Policy, pool: Pool, granule: int, conditions: Conditions) -> Kernel:
    """A schedule over such a pool. Raises ValueError for one without a page, or with too many."""
    page = pool.page * granule
    if pool.tokens < page:
        raise ValueError(f"a pool of {pool.tokens} tokens holds not one page of {page}: give it more, or smaller pages")
    if pool.tokens // page > PAGES:
        raise ValueError(
            f"a pool of {pool.tokens} tokens has {pool.tokens // page} pages; expected {PAGES} at most: give it less, "
            "or larger pages"
        )
    rooms = {"host": pool.host_tokens // page} if pool.host_tokens >= page else {}
    policy = checked(policy, rooms)
    setting = Setting(costs=conditions.costs.scaled(granule), workers=conditions.workers)
    ledger = Ledger(pool.tokens // page, pool.page, rank=policy.evict)
    return Kernel(ledger, policy, elsewhere=Elsewhere(pool.page, rooms), setting=setting)


def _measured(one: Result, best: float | None) -> Result:
    if not best:
        return one
    return replace(one, figures=replace(one.figures, regret=one.figures.jct_mean_s / best - 1))


@dataclass(frozen=True, slots=True)
class _Counted:
    """Sessions that a bar counts as they begin."""

    sessions: Iterable[Session]
    name: str
    quiet: bool

    def __iter__(self) -> Any:
        bar = tqdm(self.sessions, desc=self.name, unit=" sessions", disable=True if self.quiet else None, leave=False)
        return iter(bar)
