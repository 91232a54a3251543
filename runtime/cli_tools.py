"""`sostenuto tools check`: how far do these tool schemas hold a model, and do these calls fit them?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..tools import (
    Call,
    Dispatch,
    GrammarRefused,
    Json,
    MalformedCall,
    Tool,
    ToolError,
    Validator,
    decide,
    loads,
    read_tool,
    validators,
)
from ..tools.grammars.llguidance import LLGuidanceCompiler

_WORDS = {"full": "fully", "partial": "partly", "refused": "refused"}
_SCHEMAS = ("input_schema", "inputSchema", "parameters")


@dataclass(frozen=True, slots=True)
class Judged:
    """A schema, and what can be made of it."""

    id: str
    tool: Tool | None
    enforced: Literal["full", "partial", "refused"]
    residual: tuple[str, ...] = ()
    why: str | None = None


def tools_options(parser: argparse.ArgumentParser) -> Any:
    """What `sostenuto tools` takes; gives back where more can be added."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    check = commands.add_parser("check", help="which schemas can be enforced while a model writes, and which calls fit")
    check.add_argument(
        "--schemas",
        type=Path,
        required=True,
        metavar="FILE",
        help='tools, one {"id" or "name", "input_schema" or "inputSchema" or "parameters"} a line',
    )
    check.add_argument("--calls", type=Path, metavar="FILE", help='calls, one {"schema_id", "args"} a line')
    check.add_argument(
        "--closed",
        action="store_true",
        help="calls as they are dispatched: no arguments that their schema does not state",
    )
    check.add_argument("--json", action="store_true", help="one JSON object")
    return commands


def tools_shown(options: argparse.Namespace) -> str:
    """What was asked for. Raises ValueError for a file that cannot be read, with its line, and OSError."""
    compiler = LLGuidanceCompiler.alone()
    schemas = [_judged(row, compiler) for row in _rows(options.schemas)]
    calls = [] if options.calls is None else _verdicts(_rows(options.calls, broken=True), schemas, options.closed)
    if options.json:
        told = [
            {"id": each.id, "enforced": each.enforced, "residual": list(each.residual), "why": each.why}
            for each in schemas
        ]
        return json.dumps({"schemas": told, "calls": calls}, ensure_ascii=False)
    return "\n".join(_told(schemas, calls, asked=options.calls is not None))


def _judged(row: Mapping[str, Any], compiler: LLGuidanceCompiler) -> Judged:
    inner = row.get("function", row)
    bare = inner if isinstance(inner, dict) else row
    name = str(row.get("id", bare.get("name", "")))
    schema = next((bare[key] for key in _SCHEMAS if key in bare), None)
    if schema is None:
        return Judged(name, None, "refused", why=f"there is no schema in it: expected one of {', '.join(_SCHEMAS)}")
    if not isinstance(schema, dict):
        return Judged(name, None, "refused", why=f"its schema is of type {type(schema).__name__}: expected an object")
    try:
        # What a tool is called is no question of its schema.
        tool = read_tool({"name": "tool", "parameters": schema, "strict": False})
        enforced = compiler.check(tool)
    except GrammarRefused as refused:
        return Judged(name, None, "refused", why=refused.reason)
    except ToolError as refused:
        return Judged(name, None, "refused", why=str(refused).removeprefix("tool 'tool': "))
    if enforced.residual:
        left = ", ".join(enforced.residual)
        why = f"no grammar holds a model to {left}; what of it JSON Schema asserts is checked before a call runs"
        return Judged(name, tool, "partial", enforced.residual, why)
    return Judged(name, tool, "full")


def _verdicts(rows: Sequence[Mapping[str, Any]], schemas: Sequence[Judged], shut: bool) -> list[dict[str, Json]]:
    known = {each.id: each for each in schemas}
    checks = {
        each.id: validators([each.tool]) if shut else {each.tool.name: Validator(each.tool.parameters)}
        for each in schemas
        if each.tool is not None
    }
    found: list[dict[str, Json]] = []
    for row in rows:
        name = str(row.get("schema_id", ""))
        errors = [str(row[_FAULT])] if _FAULT in row else _wrong(row, known.get(name), checks.get(name, {}))
        found.append({"schema_id": name, "valid": not errors, "errors": [*errors]})
    return found


def _wrong(row: Mapping[str, Any], schema: Judged | None, checks: Mapping[str, Validator]) -> list[str]:
    if schema is None:
        return ["there is no schema of this id"]
    if schema.tool is None:
        return [f"its schema is refused: {schema.why}"]
    if "args" not in row:
        return ['there are no "args" in it']
    if not isinstance(row["args"], dict):
        return [f"the arguments are of type {type(row['args']).__name__}: expected an object"]
    call = Call("", schema.tool.name, row["args"], json.dumps(row["args"]))
    verdict = decide(call, [schema.tool], checks)
    if isinstance(verdict, Dispatch):
        return []
    return [str(problem) for problem in verdict.problems]


_FAULT = "\0fault"
"""Under which a line keeps what makes it a call that nobody should make."""


def _rows(path: Path, *, broken: bool = False) -> list[dict[str, Any]]:
    """The objects of a file. With `broken`, one that JSON's readers would not agree about is kept, and told of."""
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give one with a JSON object a line")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        fault = ""
        try:
            row = loads(line, limit=len(line))
        except MalformedCall as error:
            fault = str(error)
            row = _loosely(line) if broken else None
        if not isinstance(row, dict):
            raise ValueError(
                f"{path}, line {number}: {fault or 'found no JSON object'}; expected one JSON object a line"
            )
        rows.append({**row, _FAULT: fault} if fault else row)
    return rows


def _loosely(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _told(schemas: Sequence[Judged], calls: Sequence[Mapping[str, Any]], *, asked: bool) -> list[str]:
    lines = []
    for each in schemas:
        left = f" but for {', '.join(each.residual)}" if each.residual else ""
        lines.append(f"{each.id}: {_WORDS[each.enforced]}{left}" + (f": {each.why}" if each.tool is None else ""))
    counts = [f"{sum(each.enforced == kind for each in schemas)} {word}" for kind, word in _WORDS.items()]
    lines.append(f"{len(schemas)} schemas: {', '.join(counts)}")
    if asked:
        lines += [
            f"call {n} of {one['schema_id']}: {'; '.join(one['errors'])}"
            for n, one in enumerate(calls, 1)
            if not one["valid"]
        ]
        valid = sum(bool(one["valid"]) for one in calls)
        lines.append(f"{len(calls)} calls: {valid} valid, {len(calls) - valid} not")
    return lines
