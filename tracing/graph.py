"""LangGraph runs, supersteps, nodes, tools and models as spans: hooks put in once and taken out exactly."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langgraph.pregel import Pregel, _runner
from opentelemetry.trace import TracerProvider

from . import graph_calls as calls
from . import graph_hooks as hooks
from . import graph_tasks as tasks
from .errors import OtherProvider
from .graph_signals import Switch
from .spans import use_provider

_log = logging.getLogger(__name__)


def instrument(tracer_provider: TracerProvider | None = None, *, supersteps: bool = True) -> Callable[[], None]:
    """Traces every LangGraph run of this process; returns what undoes it.

    Spans go to the given provider, else to the global one. `supersteps=False` leaves out the span per
    superstep. Called again for the same provider it changes nothing and returns the same undo. Callers of a
    graph never find one of its spans current, neither between the items of a stream nor afterwards. Raises
    `OtherProvider` if it is already on for another provider.
    """
    global _on
    if _on is not None:
        if _on.provider is not tracer_provider:
            raise OtherProvider
        return _on.undo
    switch = Switch(supersteps=supersteps)
    patches = [
        _patched(owner, name, wrap(getattr(owner, name), switch)) for owner, name, wrap in _HOOKS if _there(owner, name)
    ]
    use_provider(tracer_provider)
    _on = _On(tracer_provider, switch, patches)
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
    provider: TracerProvider | None
    switch: Switch
    patches: list[_Patch]

    def undo(self) -> None:
        global _on
        if _on is not self:
            return
        self.switch.on = False
        for patch in self.patches:
            patch.restore()
        use_provider(None)
        _on = None


def _patched(owner: Any, name: str, ours: Any) -> _Patch:
    before = vars(owner)[name]
    setattr(owner, name, ours)
    return _Patch(owner, name, before, ours)


def _there(owner: Any, name: str) -> bool:
    if name in vars(owner):
        return True
    # The runner's functions are private: a LangGraph without them still gives runs, tools and models.
    _log.warning("%s has no %s: its spans are left out; use a LangGraph of the 1.x series, or report this", owner, name)
    return False


_Hook = tuple[Any, str, Callable[[Any, Switch], Any]]
_HOOKS: tuple[_Hook, ...] = (
    (Pregel, "stream", hooks.traced_stream),
    (Pregel, "astream", hooks.traced_astream),
    (_runner, "run_with_retry", tasks.traced_task),
    (_runner, "arun_with_retry", tasks.traced_atask),
    (BaseTool, "run", calls.traced_run),
    (BaseTool, "arun", calls.traced_arun),
    (BaseChatModel, "_generate_with_cache", calls.traced_generate),
    (BaseChatModel, "_agenerate_with_cache", calls.traced_agenerate),
    (BaseChatModel, "stream", calls.traced_stream),
    (BaseChatModel, "astream", calls.traced_astream),
)
_on: _On | None = None
