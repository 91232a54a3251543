"""How model families write a tool call: data, not code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from .bare import bare, broken
from .errors import MalformedCall
from .places import Json
from .schema import loads
from .spec import Tool

DERIVED = 4
"""Tools for which an example is made up: each costs some fifty tokens."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A family's way of writing calls and reading tools and results."""

    name: str
    begin: str
    """Before every call; empty where only the first brace of the answer tells (`anchored`) or `opening` does."""
    end: str
    """After every call; empty where a call ends with its object."""
    name_key: str = "name"
    arguments_key: str = "arguments"
    opening: str = ""
    """Before all calls of an answer together; empty where they stand each on their own."""
    lead: str = ""
    """Between the opening and the first call."""
    closing: str = ""
    between: str = "\n"
    head: str = ""
    """What stands before bare arguments, `{name}` in it; empty where name and arguments are in one JSON object."""
    tail: str = ""
    """What stands after them."""
    quote: str = ""
    """Where arguments are no JSON: what stands around every string, which is as it is. Keys stand bare there."""
    anchored: bool = False
    """A call is what begins the answer with a brace, and nothing that comes later."""
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

LLAMA = Dialect(
    name="llama", begin="", end="", arguments_key="parameters", between="; ", anchored=True, result="{content}"
)
"""Llama 3.1 to 3.3: the whole answer is a call, several are parted by semicolons."""

MISTRAL = Dialect(
    name="mistral",
    begin="",
    end="",
    opening="[TOOL_CALLS]",
    lead="[",
    closing="]",
    between=", ",
    result="{content}",
)
"""Mistral up to the tenth version of its tokenizer: one array of calls."""

MISTRAL_ARGS = Dialect(
    name="mistral-args", begin="[TOOL_CALLS]", end="", head="{name}[ARGS]", between="", result="{content}"
)
"""Mistral from the eleventh version on: name and arguments, each call behind its own marker."""

_CALLS, _SEP = "<\uff5ctool\u2581calls\u2581begin\uff5c>", "<\uff5ctool\u2581sep\uff5c>"
DEEPSEEK = Dialect(
    name="deepseek",
    opening=_CALLS,
    begin="<\uff5ctool\u2581call\u2581begin\uff5c>",
    head="function" + _SEP + "{name}\n```json\n",
    tail="\n```",
    end="<\uff5ctool\u2581call\u2581end\uff5c>",
    closing="<\uff5ctool\u2581calls\u2581end\uff5c>",
    result="{content}",
)
"""DeepSeek V3 and R1."""

DEEPSEEK_V31 = replace(DEEPSEEK, name="deepseek-v3.1", head="{name}" + _SEP, tail="", between="")

FUNCTIONGEMMA = Dialect(
    name="functiongemma",
    begin="<start_function_call>",
    end="<end_function_call>",
    head="call:{name}",
    quote="<escape>",
    between="",
    result="{content}",
)
"""FunctionGemma: arguments in a form of their own, which its guide on formatting tells."""

GEMMA = replace(FUNCTIONGEMMA, name="gemma", begin="<|tool_call>", end="<tool_call|>", quote='<|"|>')
"""Gemma from the fourth generation on: the same under other marks."""

DIALECTS = {
    each.name: each
    for each in (HERMES, SMOLLM, LLAMA, MISTRAL, MISTRAL_ARGS, DEEPSEEK, DEEPSEEK_V31, FUNCTIONGEMMA, GEMMA)
}

MARKS = frozenset(
    ["<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", _SEP]
    + [mark for each in (DEEPSEEK, DEEPSEEK_V31) for mark in (each.opening, each.begin, each.end, each.closing)]
    + [mark for each in (FUNCTIONGEMMA, GEMMA) for mark in (each.begin, each.end, each.quote)]
)
"""What some tokenizers have control tokens for, and who reads calls must nevertheless see."""

_NATIVE: tuple[tuple[tuple[str, ...], Dialect], ...] = (
    ((FUNCTIONGEMMA.begin,), FUNCTIONGEMMA),
    ((GEMMA.begin,), GEMMA),
    (("tool_call>", "tools"), HERMES),
    (("[TOOL_CALLS]", "[ARGS]"), MISTRAL_ARGS),
    (("[TOOL_CALLS]",), MISTRAL),
    ((_CALLS, "```json"), DEEPSEEK),
    ((_CALLS,), DEEPSEEK_V31),
    (('"parameters": ', "tools", "<|start_header_id|>"), LLAMA),
)
"""Words of a chat template that lists tools itself, and the dialect it teaches; the first that fits counts."""
_NAMED = (
    (("qwen", "hermes", "smollm3"), HERMES),
    (("llama-3", "llama3"), LLAMA),
    (("mistral", "mixtral", "ministral"), MISTRAL),
    (("deepseek-v3.1", "deepseek-v3.2"), DEEPSEEK_V31),
    (("deepseek",), DEEPSEEK),
    (("functiongemma",), FUNCTIONGEMMA),
    (("gemma-4", "gemma4"), GEMMA),
)


def dialect_for(model_name: str, template: str | None) -> Dialect:
    """The dialect that the model's chat template teaches, else SMOLLM, which needs no template's help.

    The name decides only where the template is unknown (None).
    """
    if template is not None:
        return next((one for words, one in _NATIVE if all(word in template for word in words)), SMOLLM)
    lower = model_name.lower()
    return next((one for words, one in _NAMED if any(word in lower for word in words)), SMOLLM)


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
    """A call as the model writes it, arguments byte for byte where they are JSON."""
    return render_calls(dialect, [(name, arguments_text)])


def render_calls(dialect: Dialect, calls: Sequence[tuple[str, str]]) -> str:
    """All calls of an answer, as (name, text of the arguments), as the model writes them."""
    if not calls:
        return ""
    written = [dialect.begin + _written(dialect, name, text) + dialect.end for name, text in calls]
    return dialect.opening + dialect.lead + dialect.between.join(written) + dialect.closing


def render_result(dialect: Dialect, name: str, content: str) -> str:
    """A tool's result as the model reads it, to be sent in the role `dialect.result_role`.

    A marker inside the content is broken up, so that a tool cannot end its own result or write a call.
    """
    markers = (dialect.opening, dialect.begin, dialect.end, dialect.quote, "<tool_response>", "</tool_response>")
    for marker in (each for each in markers if len(each) > 1):
        content = broken(content, marker)
    before, _, after = dialect.result.partition("{content}")
    return before.replace("{name}", name) + content + after.replace("{name}", name)


def _written(dialect: Dialect, name: str, arguments_text: str) -> str:
    if dialect.quote:
        arguments_text = _marked(arguments_text, dialect.quote)
    if dialect.head:
        return dialect.head.replace("{name}", name) + arguments_text + dialect.tail
    keys = f'"{dialect.name_key}": {json.dumps(name, ensure_ascii=False)}, "{dialect.arguments_key}": '
    return f"{{{keys}{arguments_text}}}"


def _marked(text: str, quote: str) -> str:
    """Arguments in the form without JSON; what is no JSON stays what it is, and is none in that form either."""
    try:
        return bare(loads(text), quote)
    except MalformedCall:
        return text


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
