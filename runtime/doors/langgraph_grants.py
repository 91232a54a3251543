"""Grants in a graph: what a node may do, what the model is let to write, and a person who may allow more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from langchain.agents.middleware import ModelRequest
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.types import interrupt

from ...tools import Tool, read_tool
from ...tools.grants import Ceiling
from ..execute.authority import Authority, Place
from ..execute.providers import Given, GrantRequired
from .langgraph_messages import KEY

Ceilings: TypeAlias = Mapping[str, Ceiling] | Callable[[Any], Mapping[str, Ceiling]]
"""By tool; or what makes them of a graph's state, where a step may do less than another."""


class AskPerson:
    """Interrupts the graph and asks. The answer, `Command(resume=True)`, allows this very call and no other.

    Where several calls of one node may be asking, it names those that it allows: `{"call_1": True}`.
    """

    def ask(self, required: GrantRequired) -> Given | None:
        if required.scopes:
            return None  # a person has no token to give
        answer = interrupt(
            {
                "grant": required.tool.name,
                "call": required.call,
                "arguments": dict(required.arguments),
                "why": [str(each) for each in required.gap],
            }
        )
        said = answer.get(required.call) if isinstance(answer, Mapping) else answer if required.alone else None
        if said is not True:
            return None
        return Given(Ceiling({"const": dict(required.arguments)}, calls=1, effects=required.effects), "a person")

    async def aask(self, required: GrantRequired) -> Given | None:
        return self.ask(required)


def ceilings_of(given: Ceilings | None, state: Any) -> Mapping[str, Ceiling] | None:
    """What a node may do in this state; None where nothing was said."""
    return given(state) if callable(given) else given


def spec_of(tool: Any) -> Tool:
    """As the model reads it, or as its server listed it. Raises BadTool, ValueError."""
    listed = getattr(tool, "spec", None)
    return listed if isinstance(listed, Tool) else read_tool(convert_to_openai_tool(tool))


def server_of(tool: Any) -> str:
    """Whose tool it is; empty for one of this process."""
    return str(getattr(tool, "server", "") or "") if isinstance(getattr(tool, "spec", None), Tool) else ""


def masked(
    request: ModelRequest[Any], authority: Authority, given: Ceilings | None, known: Mapping[str, Any]
) -> ModelRequest[Any]:
    """The same request, whose answer can call only what is granted. The tools in the prompt stay as they are.

    Other models than ours are not told, and where somebody may be asked for more, it must be possible to ask.
    """
    ceilings = ceilings_of(given, request.state)
    if ceilings is None or authority.providers or getattr(request.model, "_llm_type", "") != KEY:
        return request
    tenant, session = str(known.get("tenant") or "default"), str(known.get("thread_id") or "")
    granted: Sequence[dict[str, Any]] = [
        {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
        for offered in request.tools
        for tool in authority.open_to(Place(tenant, session, "", server_of(offered)), [spec_of(offered)], ceilings)
    ]
    return request.override(model_settings={**request.model_settings, "granted": granted})
