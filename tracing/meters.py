"""What is counted and timed: instruments of OpenTelemetry's metrics API, made when first used, once per provider.

Numbers go to the provider in use (`Options.meter_provider`, else the global one) and to the page of every server of
this process. Where there is none of them, counting costs a look. Attributes are few and have few values: operations,
models, names of tools and nodes, kinds of errors; never ids, threads or tenants.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Literal
from weakref import WeakKeyDictionary, ref

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, MeterProvider, NoOpMeterProvider, Observation, _internal

from . import names
from .names import Facts
from .options import Options, in_use
from .version import version

SECONDS = tuple(0.01 * 2**power for power in range(14))
"""Bounds of the conventions' histograms of durations: 0.01 doubling to 81.92 seconds."""
TOKENS = tuple(4**power for power in range(14))
"""Bounds of their histograms of tokens: 1 times four to 67,108,864."""
SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Ours for waits, and for what is told of single tokens and chunks, which take milliseconds."""


class Meters:
    """One provider's instruments."""

    def __init__(self, provider: MeterProvider) -> None:
        self._meter = provider.get_meter(names.SCOPE, version(), names.SCHEMA_URL)
        self._made: dict[str, Any] = {}
        self._meter.create_observable_up_down_counter(
            names.KV_HELD_BLOCKS, [_observe_held], "{block}", "Blocks of keys and values under holds."
        )

    def add(self, name: str, amount: int, facts: Facts) -> None:
        """Counts, with a counter or an up-down counter of `_COUNTERS`."""
        made = self._made.get(name)
        if made is None:
            kind, unit, what = _COUNTERS[name]
            make = self._meter.create_counter if kind == "counter" else self._meter.create_up_down_counter
            made = self._made[name] = make(name, unit, what)
        made.add(amount, facts)

    def record(self, name: str, value: float, facts: Facts) -> None:
        """Notes a value in a histogram of `_HISTOGRAMS`."""
        made = self._made.get(name)
        if made is None:
            bounds, unit, what = _HISTOGRAMS[name]
            made = self._made[name] = self._meter.create_histogram(
                name, unit, what, explicit_bucket_boundaries_advisory=bounds
            )
        made.record(value, facts)


def meters(options: Options | None = None, *, pages: bool = True) -> tuple[Meters, ...]:
    """Whoever counts now; nobody, as a rule. Without `pages` only the provider in use."""
    provider = (options or in_use()).meter_provider or metrics.get_meter_provider()
    pages = pages and bool(_pages)
    if isinstance(provider, _NOBODY):
        return _open_pages() if pages else ()
    found = _known.get(provider)
    if found is None:
        with _lock:
            found = _known.setdefault(provider, Meters(provider))
    return (found, *_open_pages()) if pages else (found,)


def join(page: Meters) -> None:
    """Counts there too, as long as somebody keeps it."""
    global _pages
    with _lock:
        _pages = (*(each for each in _pages if each() is not None), ref(page))


@dataclass(frozen=True, slots=True)
class Watch:
    """A stretch of work whose time is taken."""

    _to: tuple[Meters, ...]
    _name: str
    _facts: Facts
    _begun: float

    def within(self, name: str, facts: Facts) -> Watch:
        """Begins to take the time of a part of it, for this histogram of the same providers."""
        return Watch(self._to, name, facts, clock()) if self._to else self

    def end(self, error: str | None = None) -> None:
        """It is over; `error` as `error.type` wants it."""
        if self._to:
            seconds = clock() - self._begun
            facts = self._facts if error is None else {**self._facts, names.ERROR_TYPE: error}
            for each in self._to:
                each.record(self._name, seconds, facts)


def watch(name: str, facts: Facts, options: Options | None = None) -> Watch:
    """Begins to take the time of something for this histogram; if nobody counts, of nothing."""
    found = meters(options)
    return Watch(found, name, facts, clock()) if found else _UNWATCHED


def hold_blocks(blocks: int) -> None:
    """So many more blocks are held in this process, or fewer."""
    global _held
    with _lock:
        _held += blocks
    meters()  # whoever counts gets to see it, though nothing else be counted


def clock() -> float:
    """Seconds of a clock that never goes back."""
    return perf_counter()


def _open_pages() -> tuple[Meters, ...]:
    return tuple(page for each in _pages if (page := each()) is not None)


def _observe_held(_: CallbackOptions) -> Iterable[Observation]:
    return (Observation(_held),)


_Counter = tuple[Literal["counter", "up and down"], str, str]
_Histogram = tuple[tuple[float, ...], str, str]
_COUNTERS: dict[str, _Counter] = {
    names.KV_TOKENS_COUNT: ("counter", "{token}", "Tokens of prompts by what became of their keys and values."),
    names.KV_HOLDS: ("counter", "{hold}", "Holds that have ended, by how."),
    names.TURN_TOKENS: ("counter", "{token}", "Tokens of prompts and of answers that came to their end."),
    names.TURNS_IN_FLIGHT: ("up and down", "{turn}", "Turns of this server that wait or run."),
}
_HISTOGRAMS: dict[str, _Histogram] = {
    names.CLIENT_DURATION: (SECONDS, "s", "GenAI operation duration."),
    names.CLIENT_TOKENS: (TOKENS, "{token}", "Number of input and output tokens used."),
    names.CLIENT_FIRST_CHUNK: (SECONDS, "s", "Time to receive the first chunk."),
    names.CLIENT_PER_CHUNK: (SHORT, "s", "Time per output chunk, for each chunk received after the first one."),
    names.SERVER_DURATION: (SECONDS, "s", "Generative AI server request duration."),
    names.SERVER_FIRST_TOKEN: (SHORT, "s", "Time to generate the first token of a successful answer."),
    names.SERVER_PER_TOKEN: (SHORT, "s", "Time per output token after the first one of a successful answer."),
    names.WORKFLOW_DURATION: (SECONDS, "s", "Duration of a graph's run."),
    names.AGENT_DURATION: (SECONDS, "s", "Duration of an agent's run."),
    names.TOOL_DURATION: (SECONDS, "s", "Duration of a tool call."),
    names.STEP_DURATION: (SECONDS, "s", "Duration of a node's run, all its attempts included."),
    names.HTTP_DURATION: (SECONDS, "s", "Duration of HTTP server requests."),
    names.QUEUE_DURATION: (SHORT, "s", "A turn's wait for its start."),
}
# Private: stands for the global provider as long as there is none. Without the name numbers are made for nobody.
_NOBODY = (NoOpMeterProvider, getattr(_internal, "_ProxyMeterProvider", NoOpMeterProvider))
_UNWATCHED = Watch((), "", {}, 0.0)
_lock = threading.RLock()  # a provider may look at what is held while its instruments are made
_known: WeakKeyDictionary[MeterProvider, Meters] = WeakKeyDictionary()
_pages: tuple[ref[Meters], ...] = ()
_held = 0
