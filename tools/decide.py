"""May this call be dispatched? The one check before anything runs; and one for what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from .errors import MalformedCall, Problem, compact
from .places import Json
from .schema import closed, loads
from .spec import Call, Tool
from .validate import Validator


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The call fits its tool."""

    call: Call
    tool: Tool


@dataclass(frozen=True, slots=True)
class Reject:
    """The call must not run; `message` goes back to the model as the call's result."""

    call: Call
    problems: tuple[Problem, ...]
    message: str


Verdict: TypeAlias = Dispatch | Reject


def validators(tools: Sequence[Tool]) -> dict[str, Validator]:
    """A validator for every tool, by name; plain objects are closed to arguments no schema states."""
    return {tool.name: Validator(closed(tool.parameters)) for tool in tools}


def decide(call: Call, tools: Sequence[Tool], validators: Mapping[str, Validator]) -> Verdict:
    """Dispatch, or reject with what to tell the model. Pure; needs about as long as validating once.

    Checked whatever the grammar promised: the tool is one of these, the text is strict JSON, the arguments
    are what the text says, and they fit the schema. Without a validator for the tool, nothing passes.
    """
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        problem = Problem("", f"there is no tool {call.name[:140]!r}")
        return Reject(call, (problem,), compact([problem], tools=[tool.name for tool in tools]))
    problems = _wrong_with(call, validators.get(tool.name))
    if problems:
        return Reject(call, problems, compact(problems, shape=shape(tool.parameters)))
    return Dispatch(call, tool)


def judge_result(result: object, validator: Validator | None) -> tuple[Problem, ...]:
    """What is wrong with a result, which comes from outside as much as a call does; empty when nothing is.

    With a validator it must be JSON of that schema; without one only JSON, neither too deep nor too large.
    """
    try:
        value = loads(json.dumps(result, allow_nan=False))
    except MalformedCall as fault:
        return (Problem("", str(fault)),)
    except (TypeError, ValueError, RecursionError) as error:
        return (Problem("", f"a result that is no JSON: {error}"[:160]),)
    return () if validator is None else validator.problems(value)


def shape(schema: Mapping[str, Any]) -> str:
    """The properties of an object schema in few tokens: {"city": string, "unit"?: "c" | "f"}."""
    required = schema.get("required", [])
    parts = [
        f'"{key}"{"" if key in required else "?"}: {_kind(inner)}'
        for key, inner in list(schema.get("properties", {}).items())[:16]
    ]
    return "{" + ", ".join(parts) + "}"


def _wrong_with(call: Call, validator: Validator | None) -> tuple[Problem, ...]:
    if validator is None:
        return (Problem("", "this tool cannot be checked, so it is not called"),)
    try:
        arguments = loads(call.text)
    except MalformedCall as fault:
        return (Problem("", str(fault)),)
    if not isinstance(arguments, dict):
        return (Problem("", "the arguments must be an object"),)
    if _canonical(arguments) != _canonical(call.arguments):
        return (Problem("", "the arguments are not those the model wrote"),)
    return validator.problems(arguments)


def _canonical(value: Json) -> str:
    """Equal for equal JSON only: 1, 1.0 and true differ, which `==` does not see."""
    return json.dumps(value, sort_keys=True)


def _kind(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "any"
    if isinstance(values := schema.get("enum"), list):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in values[:8])
    if "const" in schema:
        return json.dumps(schema["const"], ensure_ascii=False)
    if schema.get("properties"):
        return shape(schema)
    kind = schema.get("type", "any")
    if kind == "array":
        return f"[{_kind(schema.get('items'))}]"
    return " | ".join(kind) if isinstance(kind, list) else str(kind)
