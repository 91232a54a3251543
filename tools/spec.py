"""A tool: its name, what it is for, the shape of its arguments; and which tools a turn may call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .errors import BadChoice, BadSchema, BadTool
from .places import Json
from .schema import check_schema

NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
"""What a tool may be called: what every provider's interface takes."""

NO_PARAMETERS: Mapping[str, Json] = {"type": "object", "properties": {}}


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as the model sees it; how to run it is not known here."""

    name: str
    description: str
    parameters: Mapping[str, Json]
    """A JSON Schema of an object."""
    strict: bool = False
    """Refuse a grammar that cannot enforce the whole schema."""
    returns: Mapping[str, Json] | None = None
    """A JSON Schema of its structured result, where it states one."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call the model finished; `text` are its arguments as the model wrote them, byte for byte."""

    id: str
    name: str
    arguments: dict[str, Json]
    text: str


@dataclass(frozen=True, slots=True)
class Choice:
    """Which tools a turn may or must call; `name` only for mode `named`."""

    mode: Literal["auto", "any", "named", "none"]
    name: str | None = None


def read_tool(spec: Mapping[str, Any]) -> Tool:
    """A tool from OpenAI's form, the bare one or the Model Context Protocol's, checked once, here.

    Raises BadTool for a missing or odd name, a description that is no text, and a schema that is none.
    """
    if not isinstance(spec, Mapping):
        raise BadTool("?", f"{type(spec).__name__}", "a mapping with name, description and parameters")
    bare = spec.get("function", spec) if spec.get("type", "function") == "function" else spec
    if not isinstance(bare, Mapping):
        raise BadTool("?", f"'function' as {type(bare).__name__}", "a mapping with name and parameters")
    name = bare.get("name")
    if not isinstance(name, str) or not name:
        raise BadTool("?", f"name {name!r}", "a name that is not empty")
    if not NAME.fullmatch(name):
        raise BadTool(name[:140], "this name", "1 to 128 of A-Z a-z 0-9 _ . -")
    description = bare.get("description") or ""
    if not isinstance(description, str):
        raise BadTool(name, f"description as {type(description).__name__}", "text")
    parameters = bare.get("parameters") or bare.get("inputSchema") or bare.get("input_schema") or NO_PARAMETERS
    if not isinstance(parameters, Mapping):
        raise BadTool(name, f"parameters as {type(parameters).__name__}", "a JSON Schema of an object")
    if parameters.get("type", "object") != "object":
        raise BadTool(name, f"parameters of type {parameters['type']!r}", "a JSON Schema of an object")
    returns = bare.get("outputSchema", bare.get("output_schema"))
    for what, schema in (("parameters", parameters), ("result", returns)):
        try:
            if schema is not None:
                check_schema(schema)
        except BadSchema as bad:
            raise BadTool(name, f"at {bad.path or '/'} of its {what} {bad.found}", bad.expected) from bad
    return Tool(name, description, {"type": "object", **parameters}, bool(bare.get("strict", False)), returns)


def read_tools(specs: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Several tools, in the order given; raises BadTool when two share a name."""
    tools = tuple(read_tool(spec) for spec in specs)
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise BadTool(tool.name, "two tools of this name", "one tool to a name")
        seen.add(tool.name)
    return tools


def read_choice(value: object, tools: Sequence[Tool]) -> Choice:
    """A choice from what callers write: None, "auto", "any", "required", True, "none", a name, OpenAI's form.

    Words win over tools of the same name. False is "none". Raises BadChoice for an unknown name or form, and
    when a call is demanded though no tool is offered.
    """
    names = [tool.name for tool in tools]
    match value:
        case None | "auto":
            return Choice("auto" if tools else "none")
        case "none" | False:
            return Choice("none")
        case "any" | "required" | True if tools:
            return Choice("any")
        case str() if value in names:
            return Choice("named", value)
        case {"type": "function", "function": {"name": str(name)}} if name in names:
            return Choice("named", name)
        case {"type": "function", "name": str(name)} | {"type": "tool", "name": str(name)} if name in names:
            return Choice("named", name)
        case {"type": ("auto" | "any" | "none") as word}:
            return read_choice(word, tools)
    raise BadChoice(value, names)
