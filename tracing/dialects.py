"""Other people's names for what our spans say: OpenInference's for Phoenix, Langfuse's for Langfuse.

Nothing is known here that is not said already by the conventions' names or ours: facts go in, more facts come out.
Names and their meaning are those of `openinference-semantic-conventions` 0.1.42 and of Langfuse's own client 5.0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from opentelemetry.trace import Link

from . import names
from .names import Facts, Value
from .options import Options


def at_start(facts: Facts, options: Options, *, links: Sequence[Link] = (), outermost: bool = False) -> Facts:
    """What a span says at its start, in all the words that are asked for.

    `outermost`: no other graph runs around it, so that a graph's span names the whole trace.
    """
    more: dict[str, Value] = {}
    operation = facts.get(names.OPERATION)
    if options.openinference:
        more[_KIND] = _KINDS.get(str(operation), "CHAIN")
        more |= _renamed(facts, _OPENINFERENCE)
        if names.STEP_NAME in facts:
            more |= {_NODE: facts[names.STEP_NAME], _NODE_NAME: facts[names.STEP_NAME]}
            more |= _parent_node(links)
        if operation == names.CHAT and (asked := _asked(facts)):
            more[_PARAMETERS] = asked
    if options.langfuse:
        more[_TYPE] = _TYPES.get(str(operation), "span")
        more |= _renamed(facts, _LANGFUSE)
        if operation == names.CHAT and (asked := _asked(facts)):
            more[_MODEL_PARAMETERS] = asked
        name = facts.get(names.AGENT, facts.get(names.WORKFLOW))
        if outermost and name is not None and operation in _GRAPHS:
            more[_TRACE_NAME] = name
    return {**facts, **more} if more else facts


def later(facts: Facts, options: Options) -> Facts:
    """What a span says when it is known, in all the words that are asked for."""
    more: dict[str, Value] = {}
    if options.openinference:
        more |= _renamed(facts, _OPENINFERENCE)
        more |= _total(facts)
        more |= {mime: "application/json" for value, mime in _MIMES if value in facts or value in more}
    if options.langfuse:
        more |= _renamed(facts, _LANGFUSE)
        if used := _usage(facts):
            more[_USAGE] = json.dumps(used)
        if names.ERROR_TYPE in facts:
            more |= {_LEVEL: "ERROR", _STATUS: facts[names.ERROR_TYPE]}
    return {**facts, **more} if more else facts


def _renamed(facts: Facts, table: Sequence[tuple[str, str]]) -> dict[str, Value]:
    return {theirs: facts[ours] for ours, theirs in table if ours in facts}


def _asked(facts: Facts) -> str:
    """The parameters of a model call as JSON; nothing if none was given."""
    found = {short: facts[name] for name, short in _ASKED if name in facts}
    return json.dumps(found) if found else ""


def _parent_node(links: Sequence[Link]) -> dict[str, Value]:
    """The node that started this one; of several the first."""
    told = (each.attributes or {} for each in links)
    found = next((each[names.GRAPH_NODE] for each in told if names.GRAPH_NODE in each), None)
    return {} if found is None else {_NODE_PARENT: str(found)}


def _total(facts: Facts) -> dict[str, Value]:
    asked, said = facts.get(names.INPUT_TOKENS), facts.get(names.OUTPUT_TOKENS)
    return {_TOTAL: asked + said} if isinstance(asked, int) and isinstance(said, int) else {}


def _usage(facts: Facts) -> dict[str, int]:
    """Langfuse adds the parts up, so that each token stands in one of them."""
    used = {short: value for name, short in _USED if isinstance(value := facts.get(name), int)}
    if "input" in used:
        used["input"] = max(0, used["input"] - used.get("input_cache_read", 0) - used.get("input_cache_creation", 0))
    if "output" in used:
        used["output"] = max(0, used["output"] - used.get("output_reasoning", 0))
    return used


_GRAPHS = (names.INVOKE_AGENT, names.INVOKE_WORKFLOW)

_KIND = "openinference.span.kind"
_KINDS = {names.CHAT: "LLM", names.EXECUTE_TOOL: "TOOL", names.INVOKE_AGENT: "AGENT"}
_PARAMETERS = "llm.invocation_parameters"
_TOTAL = "llm.token_count.total"
_NODE = "graph.node.id"
_NODE_NAME = "graph.node.name"
_NODE_PARENT = "graph.node.parent_id"
_MIMES = ((names.INPUT_VALUE, "input.mime_type"), (names.OUTPUT_VALUE, "output.mime_type"))
_OPENINFERENCE = (
    (names.REQUEST_MODEL, "llm.model_name"),
    (names.RESPONSE_MODEL, "llm.model_name"),
    (names.PROVIDER, "llm.provider"),
    (names.INPUT_TOKENS, "llm.token_count.prompt"),
    (names.OUTPUT_TOKENS, "llm.token_count.completion"),
    (names.CACHE_READ, "llm.token_count.prompt_details.cache_read"),
    (names.CACHE_WRITE, "llm.token_count.prompt_details.cache_write"),
    (names.REASONING_TOKENS, "llm.token_count.completion_details.reasoning"),
    (names.TOOL, "tool.name"),
    (names.TOOL_DESCRIPTION, "tool.description"),
    (names.TOOL_CALL_ID, "tool.id"),
    (names.AGENT, "agent.name"),
    (names.INPUT_MESSAGES, names.INPUT_VALUE),
    (names.OUTPUT_MESSAGES, names.OUTPUT_VALUE),
    (names.TOOL_ARGUMENTS, names.INPUT_VALUE),
    (names.TOOL_RESULT, names.OUTPUT_VALUE),
)

_TYPE = "langfuse.observation.type"
_TYPES = {
    names.CHAT: "generation",
    names.EXECUTE_TOOL: "tool",
    names.INVOKE_AGENT: "agent",
    names.INVOKE_WORKFLOW: "chain",
    names.RUN_STEP: "chain",
}
_MODEL_PARAMETERS = "langfuse.observation.model.parameters"
_USAGE = "langfuse.observation.usage_details"
_LEVEL = "langfuse.observation.level"
_STATUS = "langfuse.observation.status_message"
_TRACE_NAME = "langfuse.trace.name"
_LANGFUSE = (
    (names.REQUEST_MODEL, "langfuse.observation.model.name"),
    (names.RESPONSE_MODEL, "langfuse.observation.model.name"),
    (names.INPUT_MESSAGES, "langfuse.observation.input"),
    (names.OUTPUT_MESSAGES, "langfuse.observation.output"),
    (names.TOOL_ARGUMENTS, "langfuse.observation.input"),
    (names.TOOL_RESULT, "langfuse.observation.output"),
    (names.INPUT_VALUE, "langfuse.observation.input"),
    (names.OUTPUT_VALUE, "langfuse.observation.output"),
)
_ASKED = (
    (names.REQUEST_MAX_TOKENS, "max_tokens"),
    (names.REQUEST_TEMPERATURE, "temperature"),
    (names.REQUEST_TOP_P, "top_p"),
    (names.REQUEST_TOP_K, "top_k"),
    (names.REQUEST_SEED, "seed"),
    (names.REQUEST_STOP, "stop"),
)
_USED = (
    (names.INPUT_TOKENS, "input"),
    (names.OUTPUT_TOKENS, "output"),
    (names.CACHE_READ, "input_cache_read"),
    (names.CACHE_CREATION, "input_cache_creation"),
    (names.REASONING_TOKENS, "output_reasoning"),
)
