"""Tools and calls as servers and benchmarks publish them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sostenuto.tools import (
    SMOLLM,
    BadTool,
    Call,
    Choice,
    Dispatch,
    GrammarRefused,
    Tool,
    Validator,
    decide,
    read_tool,
    render_call,
    validators,
)
from sostenuto.tools.grammars.compiling import Compiling

Encode = Callable[[str], list[int]]

pytestmark = pytest.mark.shared_data


def rows(name: str) -> list[dict[str, Any]]:
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SOSTENUTO_SHARED_DATA", beside)) / "tools"
    if not (folder / name).is_file():
        pytest.skip(f"{name} is in neither $SOSTENUTO_SHARED_DATA/tools nor ../shared/data/tools")
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def published() -> dict[str, Tool]:
    tools = {}
    for row in rows("tool_schemas.jsonl"):
        name = row["name"].replace(":", "_").replace("/", "_").replace(" ", "_")
        spec = {"name": name, "description": row["description"], "parameters": row["input_schema"]}
        try:
            tools[row["id"]] = read_tool(spec)
        except BadTool as refused:
            tools[row["id"]] = refused  # type: ignore[assignment]
    return tools


def test_every_published_tool_is_read(published: dict[str, Any]) -> None:
    refused = {key: str(tool) for key, tool in published.items() if isinstance(tool, BadTool)}
    assert refused == {}


def test_the_validator_agrees_with_every_label(published: dict[str, Tool]) -> None:
    checks = {key: Validator(tool.parameters) for key, tool in published.items()}
    wrong = [
        row
        for row in rows("tool_calls.jsonl")
        if row["schema_id"] in checks and (checks[row["schema_id"]].problems(row["args"]) == ()) != row["valid"]
    ]
    assert wrong == []


INVENTED = [("bfcl-142", "type")]
"""Calls labelled valid, and the argument of theirs that their schema does not state: closing is what forbids it."""


def test_closing_the_arguments_changes_one_label_and_for_an_argument_that_no_schema_states(
    published: dict[str, Tool],
) -> None:
    found = []
    checks = {key: validators([tool]) for key, tool in published.items()}
    for row in rows("tool_calls.jsonl"):
        tool, check = published[row["schema_id"]], checks[row["schema_id"]]
        verdict = decide(Call("c", tool.name, row["args"], json.dumps(row["args"])), [tool], check)
        if isinstance(verdict, Dispatch) is not row["valid"]:
            assert row["valid"], "what is invalid is never dispatched"
            stated = tool.parameters["properties"]
            assert isinstance(stated, dict)
            found += [(row["schema_id"], name) for name in row["args"] if name not in stated]
    assert found == INVENTED


def in_order(value: Any, schema: Any) -> Any:
    """Keys in the schema's order, as grammars want them."""
    if isinstance(value, list):
        return [in_order(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict):
        return value
    stated = schema.get("properties", {})
    place = {name: number for number, name in enumerate(stated)}
    return {
        name: in_order(value[name], stated.get(name, {})) for name in sorted(value, key=lambda n: place.get(n, 999))
    }


def test_a_grammar_passes_what_is_valid_and_nothing_that_is_invalid(
    published: dict[str, Tool], compiler: Compiling, encode: Encode
) -> None:
    calls: dict[str, list[dict[str, Any]]] = {}
    for row in rows("tool_calls.jsonl"):
        calls.setdefault(row["schema_id"], []).append(row)
    refused, passed, over, under = [], 0, [], []
    invented = dict(INVENTED)
    for key, tool in published.items():
        try:
            fresh = compiler.tools([tool], Choice("any"), SMOLLM, parallel=False)
            assert fresh is not None
        except GrammarRefused as error:
            refused.append((key, error.reason))
            continue
        for row in calls.get(key, ()):
            arguments = in_order(row["args"], tool.parameters)
            tokens = encode(render_call(SMOLLM, tool.name, json.dumps(arguments, ensure_ascii=False)))
            state = fresh.fork()
            accepted = all(state.accept(token) for token in tokens) and state.done
            valid = row["valid"] and invented.get(key) not in row["args"]
            passed += accepted and valid
            if accepted and not valid:
                over.append(row)
            if valid and not accepted:
                under.append(row)
    assert over == []
    assert under == []
    assert refused == []
    assert passed == 231
