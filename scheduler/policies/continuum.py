"""Continuum (arXiv 2511.02230, v6): a time to live for every tool pause, programs first come first served.

    tau* = argmax over tau in {0} and the durations seen of  P(tau, f) * (T * eta + PrefillReload(r)) - tau

`P` is the share of the tool's calls that were back within tau, `T` the mean wait of requests that had lost their
context, `eta` minus the correlation of turns done and turns left over programs that are done. With at most `K`
observations in all, the prior is exponential with a mean of a second and eta is 1, hence tau = mu * ln(B / mu), or 0
where B <= mu; with at most `K` of the tool, all tools' durations count. In the queue: preempted turns, then those whose
context is pinned, then programs by their first arrival. A pin that has expired stays while its program waits. Under
pressure the pin of the program that came last goes first, and so does the turn that runs for it.

Not public: the formula's code (what is published holds two seconds: `fixed-ttl`), the window of T, and the profile
behind PrefillReload. Here T is a mean over about 64 waits, and the reload is that of measured costs.
"""

from __future__ import annotations

from math import log

from ..forecast import Curve
from ..world import Pause, Program, World
from .bundle import Policy
from .fixed import while_it_waits
from .order import pinned_first
from .preempt import always_yields, latest
from .retain import Retention
from .worth import LONGEST_S, reload_s

K = 100
PRIOR_S = 1.0


def time_to_live(world: World, program: Program, pause: Pause) -> Retention:
    """The tau of the formula."""
    if not pause.tools:
        return Retention(0.0, "waits for a person")
    seen = world.forecasts.any.count
    cold = seen <= K
    gain = world.meters.queued.value * (1.0 if cold else world.meters.eta) + reload_s(world, pause.tokens)
    if cold:
        tau = PRIOR_S * log(gain / PRIOR_S) if gain > PRIOR_S else 0.0
    else:
        own = world.forecasts.of(pause.tools)
        tau = most(own.curve if own.count > K else world.forecasts.any.curve, gain)
    return Retention(min(tau, LONGEST_S), f"a gain of {gain:.3g} s is worth {tau:.3g} s")


def most(curve: Curve, gain: float) -> float:
    """The tau with the greatest P(tau) * gain - tau; 0 where none is worth anything."""
    best, value, within = 0.0, 0.0, 0.0
    for tau, share in zip(curve.times, curve.shares, strict=True):
        within += share
        if tau > gain:
            break
        if within * gain - tau > value:
            best, value = tau, within * gain - tau
    return best


CONTINUUM = Policy(
    name="continuum",
    order=pinned_first,
    retain=time_to_live,
    renew=while_it_waits,
    gives=latest,
    yields=always_yields,
    preempt=latest,
)
