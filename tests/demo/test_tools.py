"""The workshop's tools do real work, stay inside their folder, and answer faults as tool errors."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from sostenuto.runtime.demo import library
from sostenuto.runtime.demo.arithmetic import evaluate
from sostenuto.runtime.demo.tools import workshop

Tools = dict[str, BaseTool]


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return {tool.name: tool for tool in workshop(tmp_path)}


def call(tools: Tools, tool: str, /, **arguments: object) -> ToolMessage:
    answer = tools[tool].invoke({"type": "tool_call", "name": tool, "args": arguments, "id": "1"})
    assert isinstance(answer, ToolMessage)
    return answer


def schema(tool: BaseTool) -> dict[str, Any]:
    """What the model is shown: the same conversion that every chat model of LangChain uses."""
    return dict(convert_to_openai_tool(tool)["function"]["parameters"])


def test_there_are_five_tools_in_a_fixed_order(tmp_path: Path) -> None:
    names = ["search_files", "read_file", "query_database", "calculate", "final_answer"]
    assert [tool.name for tool in workshop(tmp_path)] == names


def test_every_argument_is_bounded_for_the_grammar(tools: Tools) -> None:
    for tool in tools.values():
        for name, field in schema(tool)["properties"].items():
            bounded = "enum" in field or "maxLength" in field or {"minimum", "maximum"} <= field.keys()
            assert bounded, f"{tool.name}.{name}: {field}"
            assert field["description"]


def test_only_the_final_answer_ends_the_task(tools: Tools) -> None:
    assert [name for name, tool in tools.items() if tool.return_direct] == ["final_answer"]
    assert call(tools, "final_answer", answer="175 crowns").content == "175 crowns"


def test_the_workshop_is_made_once_and_what_is_there_is_left_alone(tmp_path: Path) -> None:
    workshop(tmp_path)
    (tmp_path / "library" / "pedals.md").write_text("all new")
    with closing(sqlite3.connect(tmp_path / "workshop.db")) as books:
        books.execute("DELETE FROM repairs")
        books.commit()
    again = {tool.name: tool for tool in workshop(tmp_path)}
    assert call(again, "read_file", name="pedals.md").content == "all new"
    assert call(again, "query_database", sql="SELECT count(*) FROM repairs").content == "count(*)\n0"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "workshop.db"]


def test_a_search_gives_real_lines_with_those_that_fit_best_first(tools: Tools, tmp_path: Path) -> None:
    lines = str(call(tools, "search_files", query="SOSTENUTO mechanism", limit=3).content).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("price-list.md:")
    for line in lines:
        name, number, text = line.split(":", 2)
        assert (tmp_path / "library" / name).read_text().splitlines()[int(number) - 1].strip() == text.strip()


def test_a_search_finds_beginnings_of_words_and_sees_changes(tools: Tools, tmp_path: Path) -> None:
    assert "No line" in call(tools, "search_files", query="clavichord").content
    (tmp_path / "library" / "new.txt").write_text("Two clavichords came in.")
    assert call(tools, "search_files", query="Clavichord").content == "new.txt:1: Two clavichords came in."


def test_every_file_of_the_library_has_the_size_of_a_real_tool_result(tools: Tools, tmp_path: Path) -> None:
    names = schema(tools["read_file"])["properties"]["name"]["enum"]
    assert names == sorted(path.name for path in (tmp_path / "library").iterdir())
    assert len(names) == 12
    for name in names:
        assert 700 <= len(str(call(tools, "read_file", name=name).content)) <= 760


def test_a_long_file_is_cut_and_says_so(tools: Tools) -> None:
    content = str(call(tools, "read_file", name="pedals.md", limit=200).content)
    assert content.endswith("\n[cut: 200 of 1187 characters]")
    assert len(content.rsplit("\n", 1)[0]) == 200


@pytest.mark.parametrize(
    "name", ["../workshop.db", "../library/pedals.md", "/etc/hostname", "", ".", "link.md", "missing.md"]
)
def test_no_name_leads_out_of_the_folder(tools: Tools, tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.md").write_text("secret")
    (tmp_path / "library" / "link.md").symlink_to(tmp_path / "secret.md")
    assert call(tools, "read_file", name=name).status == "error"
    with pytest.raises(ValueError, match=r"no file .*; there are action-regulation\.md"):
        library.read(tmp_path / "library", name, limit=100)


def test_a_link_out_of_the_folder_is_not_searched(tools: Tools, tmp_path: Path) -> None:
    (tmp_path / "secret.md").write_text("zanzibar")
    (tmp_path / "library" / "link.md").symlink_to(tmp_path / "secret.md")
    assert "No line" in call(tools, "search_files", query="zanzibar").content


def test_a_query_answers_from_a_real_database(tools: Tools) -> None:
    sql = "SELECT worker, sum(hours) AS hours FROM repairs GROUP BY worker ORDER BY hours DESC"
    answer = call(tools, "query_database", sql=sql)
    assert answer.content == "worker | hours\nIda | 31\nNuria | 14.5\nTomas | 12.5"
    assert answer.status == "success"


def test_a_query_gives_at_most_twelve_rows_and_says_when_there_are_more(tools: Tools) -> None:
    lines = str(call(tools, "query_database", sql="SELECT * FROM repairs").content).splitlines()
    assert len(lines) == 1 + 12 + 1
    assert lines[-1].startswith("(more than 12 rows")
    assert call(tools, "query_database", sql="SELECT id FROM repairs WHERE 0").content == "id\n(no rows)"


def test_the_tables_are_named_in_the_description(tools: Tools) -> None:
    assert "customers (id, name, town, kind, since)" in tools["query_database"].description


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("DELETE FROM repairs", "not authorized"),
        ("CREATE TABLE spare (a)", "not authorized"),
        ("ATTACH DATABASE 'other.db' AS other", "not authorized"),
        ("PRAGMA journal_mode = WAL", "not authorized"),
        ("SELECT 1; SELECT 2", "one statement"),
        ("SELECT colour FROM repairs", "no such column"),
        ("SELECT length(zeroblob(1000000000))", "too big"),
        ("-- only a remark", "no query"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
            "too many steps",
        ),
    ],
)
def test_a_query_that_writes_or_runs_away_is_a_tool_error(tools: Tools, tmp_path: Path, sql: str, reason: str) -> None:
    before = (tmp_path / "workshop.db").read_bytes()
    answer = call(tools, "query_database", sql=sql)
    assert answer.status == "error"
    assert reason in answer.content
    assert (tmp_path / "workshop.db").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["library", "workshop.db"]


def test_a_query_leaves_nothing_open(tools: Tools, tmp_path: Path) -> None:
    call(tools, "query_database", sql="SELECT * FROM repairs")
    with closing(sqlite3.connect(tmp_path / "workshop.db", timeout=0)) as books:
        books.execute("BEGIN EXCLUSIVE")
        books.rollback()


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 * 95 * (1 - 0.15)", 161.5),
        ("-2 ** 2 + 7 // 2 - 7 % 4", -4),
        ("round(68 / 3, 2) + max(1, 2, 3) - min(4, 5) + abs(-1)", 22.67),
        ("sqrt(2.25) * +2", 3.0),
        ("(35 - 21) * 4", 56),
    ],
)
def test_arithmetic_is_worked_out(expression: str, value: float) -> None:
    assert evaluate(expression) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("__import__('os')", "not plain arithmetic"),
        ("().__class__", "not plain arithmetic"),
        ("[0] * 9", "not plain arithmetic"),
        ("round.real", "not plain arithmetic"),
        ("1or 2", "not plain arithmetic"),
        ("25,000 * 2", "write 25000"),
        ("max((1, 2), 3)", "write 25000"),
        ("max(*(1, 2))", "not plain arithmetic"),
        ("9 ** 9 ** 9", "exponent"),
        ("10 ** 16", "beyond"),
        ("-(10 ** 15) * 2", "beyond"),
        ("(-8) ** 0.5", "no real value"),
        ("sqrt(-1)", "no real value"),
        ("1 / (2 - 2)", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("round(1, 2, 3)", "wrong arguments"),
        ("(((1)", "cannot be read"),
        ("", "not plain arithmetic"),
        ("+".join("1" * 80), "at most 120"),
    ],
)
def test_arithmetic_does_nothing_else(tools: Tools, expression: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        evaluate(expression)
    assert call(tools, "calculate", expression=expression).status == "error"


def test_a_number_is_written_without_noise(tools: Tools) -> None:
    assert call(tools, "calculate", expression="0.1 + 0.2").content == "0.3"
    assert call(tools, "calculate", expression="7 * 6").content == "42"


def test_arguments_that_do_not_fit_are_explained_to_the_model(tools: Tools) -> None:
    answer = call(tools, "search_files", query="", limit=99)
    assert answer.status == "error"
    assert "query: " in answer.content
    assert "limit: " in answer.content


async def test_the_tools_work_from_async_code_as_well(tools: Tools) -> None:
    assert await tools["calculate"].ainvoke({"expression": "2 + 2"}) == "4"
    assert "Nuria" in await tools["query_database"].ainvoke({"sql": "SELECT DISTINCT worker FROM repairs"})


def test_the_schemas_are_plain_json(tools: Tools) -> None:
    for tool in tools.values():
        text = json.dumps(schema(tool))
        assert "$ref" not in text
        assert "anyOf" not in text
