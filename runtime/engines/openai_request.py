"""A question as the body of an OpenAI chat completion."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal

from ...tools import Call, Tool, check_schema, closed
from ...tools.places import children
from ..ask import Ask, Message
from ..errors import BadMessage
from ..sampling import Sampling
from . import Job

Field = Literal["cache_salt", "max_completion_tokens", "min_p", "repetition_penalty", "session_id", "strict", "top_k"]
"""What only some servers know.

`session_id` and `cache_salt` carry a job's key and salt. `strict` on every tool: else only where OpenAI's own rules
allow it. `max_completion_tokens` stands for `max_tokens`. The three sampling parameters are always sent to a server
that knows them, as its defaults may be others than ours; to one that is not said to, only when they matter.
"""

_STRICT = frozenset(
    "$defs $ref additionalProperties anyOf const definitions description enum exclusiveMaximum exclusiveMinimum format "
    "items maximum maxItems minimum minItems multipleOf pattern properties required title type".split()
)
"""Keywords that a strict schema may hold (OpenAI's guide to structured outputs)."""


def write_body(job: Job, ask: Ask, *, model: str, knows: Collection[Field] = ()) -> dict[str, Any]:
    """The body, streaming and with usage.

    Raises BadMessage for a tool's result that answers no call, and BadSchema for a wanted form that is no schema.
    """
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in ask.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
        **_sampling(job.sampling, knows),
    }
    if ask.tools:
        body["tools"] = [_tool(tool, ask.constrain, "strict" in knows) for tool in ask.tools]
        if (choice := _choice(ask)) is not None:
            body["tool_choice"] = choice
        if not ask.parallel:
            body["parallel_tool_calls"] = False
    if ask.schema is not None:
        check_schema(ask.schema)
        strict = "strict" in knows or _fits(ask.schema)
        held = {"name": "answer", "schema": dict(ask.schema), "strict": strict}
        body["response_format"] = {"type": "json_schema", "json_schema": held}
    if "session_id" in knows and job.key:
        body["session_id"] = job.key
    if "cache_salt" in knows and job.salt:
        body["cache_salt"] = job.salt
    return body


def _message(message: Message) -> dict[str, Any]:
    if message.role == "tool":
        if not message.call:
            found = f"a result of the tool {message.tool!r} that answers no call"
            raise BadMessage(f"found {found}; expected the call's id in Message.call, as a server wants it")
        return {"role": "tool", "tool_call_id": message.call, "content": message.text}
    if message.calls:
        calls = [_call(call) for call in message.calls]
        return {"role": message.role, "content": message.text or None, "tool_calls": calls}
    return {"role": message.role, "content": message.text}


def _call(call: Call) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.text or "{}"}}


def _tool(tool: Tool, constrain: bool, always: bool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    shut = closed(tool.parameters)  # as the arguments will be checked
    if constrain and (always or tool.strict or _fits(shut)):
        function |= {"parameters": shut, "strict": True}
    return {"type": "function", "function": function}


def _choice(ask: Ask) -> str | dict[str, Any] | None:
    match ask.choice.mode:
        case "auto":
            return None  # what every server does by itself
        case "any":
            return "required"
        case "none":
            return "none"
        case "named":
            return {"type": "function", "function": {"name": ask.choice.name}}


def _sampling(sampling: Sampling, knows: Collection[Field]) -> dict[str, Any]:
    """Temperature and top_p always, as servers take other defaults from a model's own files."""
    limit = "max_completion_tokens" if "max_completion_tokens" in knows else "max_tokens"
    body: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, limit: sampling.max_tokens}
    odd: tuple[tuple[Field, float, float], ...] = (
        ("top_k", sampling.top_k, 0),
        ("min_p", sampling.min_p, 0.0),
        ("repetition_penalty", sampling.repetition_penalty, 1.0),
    )
    body |= {name: value for name, value, usual in odd if value != usual or name in knows}
    common = {"presence_penalty": sampling.presence_penalty, "frequency_penalty": sampling.frequency_penalty}
    body |= {name: value for name, value in common.items() if value}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    return body


def _fits(schema: Mapping[str, Any]) -> bool:
    """Whether OpenAI's strict mode takes this: objects closed, nothing optional, no keyword it does not know."""
    return schema.get("type") == "object" and "anyOf" not in schema and all(map(_plain, _nodes(schema)))


def _plain(node: Any) -> bool:
    if not isinstance(node, Mapping) or not node.keys() <= _STRICT:
        return False
    if node.get("type") != "object":
        return bool({"type", "anyOf", "$ref", "enum", "const"} & node.keys())
    stated: Mapping[str, Any] = node.get("properties", {})
    return node.get("additionalProperties") is False and set(node.get("required", ())) == stated.keys()


def _nodes(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The schema and those inside of it, but for the word `additionalProperties: false`."""
    agenda: list[Any] = [schema]
    while agenda:
        node = agenda.pop()
        yield node
        if isinstance(node, Mapping):
            inside = children(node)
            agenda += [child for key, _, child in inside if (key, child) != ("additionalProperties", False)]
