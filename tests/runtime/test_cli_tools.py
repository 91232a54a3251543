"""`sostenuto tools check` on schemas and calls good and bad."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.cli_tools import tools_options, tools_shown

PLAIN = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
SCHEMAS: list[dict[str, Any]] = [
    {"id": "plain", "name": "any name: will do", "input_schema": PLAIN},
    {"name": "twins", "inputSchema": {"properties": {"l": {"type": "array", "uniqueItems": True}}}},
    {"type": "function", "function": {"name": "openai", "parameters": PLAIN}},
    {"id": "remote", "input_schema": {"properties": {"a": {"$ref": "https://example.com/a.json"}}}},
    {
        "id": "none",
        "input_schema": {"properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}}, "required": ["a"]},
    },
    {"id": "endless", "input_schema": {"properties": {"c": {"$ref": "#"}}, "required": ["c"], "type": "object"}},
    {"id": "empty"},
    {"id": "text", "input_schema": "object"},
]


def lines(path: Path, rows: list[Any]) -> Path:
    path.write_text(
        "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows) + "\n", encoding="utf-8"
    )
    return path


def check(*arguments: object) -> Any:
    parser = argparse.ArgumentParser()
    tools_options(parser)
    return json.loads(tools_shown(parser.parse_args(["check", "--json", *map(str, arguments)])))


def test_every_schema_is_told_in_order_as_full_partial_or_refused_and_why(tmp_path: Path) -> None:
    found = check("--schemas", lines(tmp_path / "s", SCHEMAS))
    assert found["calls"] == []
    assert [set(each) for each in found["schemas"]] == [{"id", "enforced", "residual", "why"}] * len(SCHEMAS)
    assert [(each["id"], each["enforced"], each["residual"]) for each in found["schemas"]] == [
        ("plain", "full", []),
        ("twins", "partial", ["uniqueItems"]),
        ("openai", "full", []),
        ("remote", "refused", []),
        ("none", "refused", []),
        ("endless", "refused", []),
        ("empty", "refused", []),
        ("text", "refused", []),
    ]
    why = {each["id"]: each["why"] for each in found["schemas"]}
    assert why["plain"] is None
    for name, says in {
        "twins": "uniqueItems",
        "remote": "none is fetched",
        "none": "Unsatisfiable",
        "endless": "comes to an end",
        "empty": "no schema in it",
        "text": "type str",
    }.items():
        assert says in why[name], why[name]


def test_every_call_is_judged_in_order(tmp_path: Path) -> None:
    calls: list[Any] = [
        {"schema_id": "plain", "args": {"n": 1}},
        {"schema_id": "plain", "args": {"n": "1"}},
        {"schema_id": "plain", "args": {"n": 1, "more": 1}},
        {"schema_id": "twins", "args": {"l": [1, 1]}},
        {"schema_id": "remote", "args": {}},
        {"schema_id": "unknown", "args": {}},
        {"schema_id": "plain"},
        {"schema_id": "plain", "args": [1]},
        '{"schema_id": "plain", "args": {"n": 1, "n": 2}}',
        '{"schema_id": "plain", "args": {"n": NaN}}',
    ]
    files = ("--schemas", lines(tmp_path / "s", SCHEMAS), "--calls", lines(tmp_path / "c", calls))
    found = check(*files)["calls"]
    assert [set(each) for each in found] == [{"schema_id", "valid", "errors"}] * len(calls)
    assert [each["valid"] for each in found] == [True, False, True, False, False, False, False, False, False, False]
    assert [bool(each["errors"]) for each in found] == [not each["valid"] for each in found]
    says = [
        "/n: '1' is not of type",
        "the same",
        "refused",
        "no schema of this id",
        'no "args"',
        "type list",
        "twice",
        "NaN",
    ]
    for told, word in zip([found[1], *found[3:]], says, strict=True):
        assert word in told["errors"][0]
    assert not check(*files, "--closed")["calls"][2]["valid"]


def test_for_people_there_is_a_line_each_and_the_sums(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    schemas, calls = lines(tmp_path / "s", SCHEMAS[:2]), lines(tmp_path / "c", [{"schema_id": "plain", "args": {}}])
    assert main(["tools", "check", "--schemas", str(schemas), "--calls", str(calls)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "plain: fully",
        "twins: partly but for uniqueItems",
        "2 schemas: 1 fully, 1 partly, 0 refused",
        "call 1 of plain: 'n' is a required property",
        "1 calls: 0 valid, 1 not",
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "line 2: not JSON"), ("[]", "line 2: found no JSON object"), ('{"id": "a", "id": "b"}', "line 2: not JSON")],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, says: str
) -> None:
    file = lines(tmp_path / "s", [SCHEMAS[0], content])
    assert main(["tools", "check", "--schemas", str(file)]) == 1
    assert says in capsys.readouterr().err
    assert main(["tools", "check", "--schemas", str(tmp_path / "nowhere")]) == 1
    assert "there is no file" in capsys.readouterr().err


@pytest.mark.shared_data
def test_published_schemas_are_enforced_and_published_calls_are_judged_as_labelled() -> None:
    beside = Path(__file__).parents[3] / "shared" / "data"
    folder = Path(os.environ.get("SOSTENUTO_SHARED_DATA", beside)) / "tools"
    if not folder.is_dir():
        pytest.skip("the published schemas are in neither $SOSTENUTO_SHARED_DATA/tools nor ../shared/data/tools")
    found = check("--schemas", folder / "tool_schemas.jsonl", "--calls", folder / "tool_calls.jsonl")
    labels = [json.loads(line)["valid"] for line in (folder / "tool_calls.jsonl").read_text().splitlines()]
    assert [each["valid"] for each in found["calls"]] == labels
    assert [each["id"] for each in found["schemas"] if each["enforced"] == "refused"] == []
    assert sum(each["enforced"] == "full" for each in found["schemas"]) >= 0.95 * len(found["schemas"])
