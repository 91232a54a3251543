"""How model families write a tool call: data, not code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .places import Json
from .spec import Tool

DERIVED = 4
"""Tools for which an example is made up: each costs some fifty tokens."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A family's way of writing calls and reading tools and results."""

    name: str
    begin: str
    end: str
    name_key: str = "name"
    arguments_key: str = "arguments"
    system: str = ""
    """Text that lists the tools, `{tools}` where they go; empty when the chat template lists them itself."""
    examples: tuple[tuple[str, str], ...] = ()
    """(role, text) turns between the system text and the conversation, for models too small to be told."""
    derive_at: int | None = None
    """Where among the examples one made-up exchange per offered tool goes; None for nowhere."""
    result: str = "<tool_response>\n{content}\n</tool_response>"
    """A tool's result, with `{content}` and, if wanted, `{name}`."""
    result_role: Literal["user", "tool"] = "tool"


HERMES = Dialect(name="hermes", begin="<tool_call>", end="</tool_call>", result="{content}")
"""Qwen, Hermes, SmolLM3 and their kin: the chat template lists the tools and wraps the results."""

SMOLLM = Dialect(
    name="smollm",
    begin="<tool_call>",
    end="</tool_call>",
    system=(
        "You are a helpful assistant. You have these tools:\n{tools}\n"
        'To use a tool, answer only with <tool_call>{"name": ..., "arguments": ...}</tool_call>. '
        "Otherwise answer in words."
    ),
    examples=(
        ("user", "Hello! Who are you?"),
        ("assistant", "Hello! I am an assistant. How can I help you?"),
        ("user", "What is 6*7?"),
        ("assistant", '<tool_call>{"name": "multiply", "arguments": {"a": 6, "b": 7}}</tool_call>'),
        ("tool", "<tool_response>42</tool_response>"),
        ("assistant", "6*7 is 42."),
        ("user", "What is the double of 21?"),
        ("assistant", '<tool_call>{"name": "double", "arguments": {"number": 21}}</tool_call>'),
    ),
    derive_at=6,
    result="<tool_response>{content}</tool_response>",
)
"""SmolLM2, whose template knows no tools and whose 135M weights open a call only after seeing calls opened.

Measured on the 135M weights: a result after every example keeps the model from opening calls, none makes it
call again after a real result; so one example has its result and the last has not.
"""

_NATIVE = ("tool_call>", "tools")


def dialect_for(model_name: str, template: str | None) -> Dialect:
    """HERMES when the model's chat template lists tools itself, else SMOLLM, which needs no template's help.

    The name decides only where the template is unknown (None).
    """
    if template is not None:
        return HERMES if all(word in template for word in _NATIVE) else SMOLLM
    lower = model_name.lower()
    return HERMES if any(word in lower for word in ("qwen", "hermes", "smollm3")) else SMOLLM


def render_tools(dialect: Dialect, tools: Sequence[Tool]) -> str:
    """The system text that lists the tools, the same bytes for the same tools; empty where none is needed."""
    if not tools or not dialect.system:
        return ""
    return dialect.system.replace("{tools}", "\n".join(_listed(tool) for tool in tools))


def render_examples(dialect: Dialect, tools: Sequence[Tool]) -> tuple[tuple[str, str], ...]:
    """The example turns as (role, text), the same bytes for the same tools; none without tools."""
    if not tools or not dialect.examples:
        return ()
    turns = list(dialect.examples)
    if (at := dialect.derive_at) is not None:
        turns[at:at] = [turn for tool in tools[:DERIVED] for turn in _derived(dialect, tool)]
    return tuple(turns)


def render_call(dialect: Dialect, name: str, arguments_text: str) -> str:
    """A call as the model writes it, arguments byte for byte."""
    keys = f'"{dialect.name_key}": {json.dumps(name, ensure_ascii=False)}, "{dialect.arguments_key}": '
    return f"{dialect.begin}{{{keys}{arguments_text}}}{dialect.end}"


def render_result(dialect: Dialect, name: str, content: str) -> str:
    """A tool's result as the model reads it, to be sent in the role `dialect.result_role`.

    A marker inside the content is broken up, so that a tool cannot end its own result or write a call.
    """
    for marker in (dialect.begin, dialect.end, "<tool_response>", "</tool_response>"):
        content = content.replace(marker, marker[:1] + " " + marker[1:])
    before, _, after = dialect.result.partition("{content}")
    return before.replace("{name}", name) + content + after.replace("{name}", name)


def _listed(tool: Tool) -> str:
    spec = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return json.dumps(spec, sort_keys=True, ensure_ascii=False)


def _derived(dialect: Dialect, tool: Tool) -> list[tuple[str, str]]:
    """A made-up request and its call. The values say what they are, so that a copied one is easily seen."""
    properties = tool.parameters.get("properties")
    required = tool.parameters.get("required")
    named: Mapping[str, Any] = properties if isinstance(properties, dict) else {}
    wanted = [key for key in named if not isinstance(required, list) or key in required or len(named) <= 2]
    arguments = {key: _made_up(key, named[key]) for key in wanted}
    said = ", ".join(f"{key} {_said(value)}" for key, value in arguments.items())
    asked = tool.description.split("\n")[0][:120].rstrip(". ") or tool.name
    text = json.dumps(arguments, ensure_ascii=False)
    call = render_call(dialect, tool.name, text)
    return [("user", f"{asked}: {said}" if said else asked), ("assistant", call)]


def _made_up(key: str, schema: Any) -> Json:
    if not isinstance(schema, dict):
        return f"some {key}"
    if isinstance(values := schema.get("enum"), list) and values:
        first: Json = values[0]
        return first
    simple: dict[str, Json] = {"integer": 5, "number": 2.5, "boolean": True, "array": [], "object": {}}
    kind = schema.get("type")
    made_up = f"some {key.replace('_', ' ')}"
    return simple.get(kind, made_up) if isinstance(kind, str) else made_up


def _said(value: Json) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
