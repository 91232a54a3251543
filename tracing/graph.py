"""LangGraph runs, supersteps, nodes, tools and models as spans: hooks put in once and taken out exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel

from . import graph_bodies as bodies
from . import graph_calls as calls
from . import graph_hooks as hooks
from . import graph_loop as loop
from . import graph_tasks as tasks
from . import mcp
from .arrival import Arrival
from .errors import OtherOptions, OtherProvider
from .graph_signals import Switch
from .options import Options, in_use, use

_log = logging.getLogger(__name__)


def instrument(options: Options) -> Callable[[], None]:
    """Traces every LangGraph run of this process like this; returns what undoes it. See `tracing.instrument`."""
    global _on
    if _on is not None:
        differing = _on.options.differing(options)
        if not differing:
            return _on.undo
        raise OtherProvider(differing) if any("provider" in each for each in differing) else OtherOptions(differing)
    switch = Switch(supersteps=options.supersteps)
    patches = _put_in(_hooks(), switch)
    # Programs that use no MCP shall not pay the second that importing it takes.
    arrival = Arrival(mcp.PACKAGE, lambda: patches.extend(_put_in(mcp.hooks(), switch)))
    _on = _On(options, in_use(), switch, patches, arrival)
    use(options)
    return _on.undo


def instrumented() -> bool:
    """Whether the hooks are in."""
    return _on is not None


@dataclass(frozen=True, slots=True)
class _Patch:
    owner: Any
    name: str
    before: Any
    ours: Any

    def restore(self) -> None:
        # If somebody has wrapped ours since, theirs stays, and ours under it only passes through.
        if getattr(self.owner, self.name) is self.ours:
            setattr(self.owner, self.name, self.before)


@dataclass(frozen=True, slots=True)
class _On:
    options: Options
    before: Options
    switch: Switch
    patches: list[_Patch]
    arrival: Arrival

    def undo(self) -> None:
        global _on
        if _on is not self:
            return
        self.switch.on = False
        self.arrival.cancel()
        for patch in self.patches:
            patch.restore()
        use(self.before)
        _on = None


def _put_in(hooks: list[_Hook], switch: Switch) -> list[_Patch]:
    return [_patched(owner, name, wrap(getattr(owner, name), switch)) for owner, name, wrap in hooks]


def _patched(owner: Any, name: str, ours: Any) -> _Patch:
    before = vars(owner)[name]
    setattr(owner, name, ours)
    return _Patch(owner, name, before, ours)


def _hooks() -> list[_Hook]:
    """The hooks that this LangGraph has a place for. All but the runs, tools and models are private to it."""
    missing = [name for owner, name, _ in _TASKS if name not in vars(owner)]
    if missing:
        _log.warning(
            "LangGraph's runner has no %s: the spans of nodes are opened round their bodies instead, and say nothing "
            "of what started them; use a LangGraph of the 1.x series, or report this",
            " and no ".join(missing),
        )
    chosen = (*_RUNS, *(_BODIES if missing else _TASKS), *_CALLS, *_FACTS)
    return [(owner, name, wrap) for owner, name, wrap in chosen if name in vars(owner)]


def _module(*places: str) -> ModuleType:
    """The first of these modules that there is, else an empty one."""
    for place in places:
        with suppress(ImportError):
            return import_module(place)
    return ModuleType(places[0])


_Hook = tuple[Any, str, Callable[[Any, Switch], Any]]
_runner = _module("langgraph.pregel._runner")
_loop = _module("langgraph.pregel._loop")
_RUNS: tuple[_Hook, ...] = (
    (Pregel, "stream", hooks.traced_stream),
    (Pregel, "astream", hooks.traced_astream),
)
_TASKS: tuple[_Hook, ...] = (
    (_runner, "run_with_retry", tasks.traced_task),
    (_runner, "arun_with_retry", tasks.traced_atask),
)
_BODIES: tuple[_Hook, ...] = (
    (
        _module("langgraph._internal._runnable", "langgraph.utils.runnable"),
        "set_config_context",
        bodies.traced_context,
    ),
)
_CALLS: tuple[_Hook, ...] = (
    (BaseTool, "run", calls.traced_run),
    (BaseTool, "arun", calls.traced_arun),
    (BaseChatModel, "_generate_with_cache", calls.traced_generate),
    (BaseChatModel, "_agenerate_with_cache", calls.traced_agenerate),
    (BaseChatModel, "stream", calls.traced_stream),
    (BaseChatModel, "astream", calls.traced_astream),
)
_FACTS: tuple[_Hook, ...] = (
    (getattr(_loop, "PregelLoop", _loop), "_put_checkpoint", loop.traced_put),
    (getattr(_loop, "SyncPregelLoop", _loop), "match_cached_writes", loop.traced_match),
    (getattr(_loop, "AsyncPregelLoop", _loop), "amatch_cached_writes", loop.traced_amatch),
)
_on: _On | None = None
