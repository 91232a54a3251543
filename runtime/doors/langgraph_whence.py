"""Where a call of the model comes from: its run, its thread, its tenant, its line of conversation.

LangChain tells a model which run it belongs to, but not when it streams; and a tenant it tells to nobody. So a call's
configuration is kept in a context variable for as long as the call needs it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

Item = TypeVar("Item")

_told: ContextVar[RunnableConfig | None] = ContextVar("sostenuto_told", default=None)


@dataclass(frozen=True, slots=True)
class Whence:
    """What is known of a call's origin."""

    metadata: dict[str, Any]
    manager: Any
    """The run manager, or the callback manager of the run above; None outside of any run."""
    departs: Mapping[str, str] = field(default_factory=dict)
    """By namespace, the checkpoint from which the present superstep departs, be it saved or not."""
    saver: Any = None
    """Where the run's checkpoints are saved."""

    @property
    def handlers(self) -> Sequence[BaseCallbackHandler]:
        return self.manager.handlers if self.manager is not None else ()

    @property
    def above(self) -> UUID | None:
        """The run in which the call stands."""
        return self.manager.parent_run_id if self.manager is not None else None

    @property
    def thread(self) -> str | None:
        return self.metadata.get("thread_id")

    @property
    def tenant(self) -> str:
        """`configurable.tenant` of the run or the call; `default` if they say nothing."""
        return str(self.metadata.get("tenant") or "default")

    @property
    def namespace(self) -> str:
        """The checkpoint namespace in which the call stands, its task's included; "" outside of any graph."""
        return str(self.metadata.get("langgraph_checkpoint_ns") or "")

    @property
    def branch(self) -> str:
        """Which line of conversation of its program the call belongs to.

        The checkpoint namespace without the last task's id, so that the same node's next step is the same branch,
        and the index of a `Send`, so that siblings are not.
        """
        told = self.metadata
        namespace = self.namespace or str(told.get("langgraph_node") or "main")
        *above, last = namespace.split("|")
        branch = "|".join([*above, last.split(":")[0]])
        path: Sequence[Any] = told.get("langgraph_path") or ()
        return f"{branch}#{path[1]}" if len(path) > 1 and path[0] == "__pregel_push" else branch


def whence(manager: Any) -> Whence:
    """The origin of the call that is being made; `manager` is its run manager, where LangChain gives one."""
    config = _told.get() or identified(None)
    above = config.get("callbacks")
    known = manager or (above if isinstance(above, BaseCallbackManager) else None)
    told = {**config.get("metadata", {}), **(manager.metadata if manager else {})}
    given = config.get("configurable", {})
    return Whence(told, known, given.get("checkpoint_map") or {}, given.get("__pregel_checkpointer"))


def identified(config: RunnableConfig | None) -> RunnableConfig:
    """The configuration of a call, with tenant and thread among its metadata.

    A graph puts the thread there, nobody the tenant: and who shares a name space may share context.
    """
    full = ensure_config(config)
    given = full.get("configurable", {})
    known = {key: given[key] for key in ("tenant", "thread_id") if given.get(key)}
    told = full.copy()
    told["metadata"] = {**known, **full.get("metadata", {})}
    return told


@contextmanager
def telling(config: RunnableConfig) -> Iterator[None]:
    """Calls of the model in here come from `config`."""
    token = _told.set(config)
    try:
        yield
    finally:
        _told.reset(token)


def begun(chunks: Iterator[Item], config: RunnableConfig) -> Iterator[Item]:
    """The same chunks, begun from `config`: a generator shares its reader's context, so it is left at once."""
    with closing(chunks):  # type: ignore[type-var]  # LangChain promises an iterator and returns a generator
        with telling(config):
            first = next(chunks, None)
        if first is not None:
            yield first
            yield from chunks


async def abegun(chunks: AsyncIterator[Item], config: RunnableConfig) -> AsyncIterator[Item]:
    """As `begun`, for coroutines."""
    async with aclosing(chunks):  # type: ignore[type-var]  # as above
        with telling(config):
            first = await anext(chunks, None)
        if first is not None:
            yield first
            async for chunk in chunks:
                yield chunk
