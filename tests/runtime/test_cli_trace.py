"""`sostenuto trace show` on files good and bad."""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.cli_trace import trace_options, trace_shown
from sostenuto.tracing import BadTraceFile, provider


def show(*arguments: object) -> str:
    parser = argparse.ArgumentParser()
    trace_options(parser)
    shown, left_out = trace_shown(parser.parse_args(["show", *map(str, arguments)]))
    assert not left_out
    return shown


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two traces; the later one has two spans."""
    made = provider(trace_file=tmp_path / "t.jsonl")
    tracer = made.get_tracer("t")
    with tracer.start_as_current_span("old"):
        pass
    with tracer.start_as_current_span("new"), tracer.start_as_current_span("chat m") as inner:
        inner.set_attributes({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 1200})
    made.shutdown()
    return tmp_path / "t.jsonl"


def ids(file: Path) -> list[str]:
    found: list[dict[str, Any]] = json.loads(show(file, "--all", "--json"))["traces"]
    return [each["trace_id"] for each in found]


def test_the_last_trace_is_shown_with_its_summary(file: Path) -> None:
    shown = show(file)
    lines = shown.splitlines()
    assert lines[0] == f"trace {ids(file)[1]}"
    assert [line.split("  ")[0] for line in lines[1:3]] == ["new", "└─ chat m"]
    assert "tokens: 1 model calls: 1,200 asked" in shown
    assert lines[-1] == "2 traces are in the file: --all shows every one, --trace ID another"


def test_another_trace_is_shown_by_the_beginning_of_its_id(file: Path) -> None:
    old = ids(file)[0]
    assert show(file, "--trace", old[:9].upper()).splitlines()[0] == f"trace {old}"


def test_all_traces_are_shown_in_their_order(file: Path) -> None:
    lines = show(file, "--all").splitlines()
    assert [line.removeprefix("trace ") for line in lines if line.startswith("trace ")] == ids(file)
    assert "--all" not in lines[-1]


def test_for_programs_there_is_json(file: Path) -> None:
    (found,) = json.loads(show(file, "--json"))["traces"]
    assert (found["name"], found["spans"], found["tokens"]["asked"]) == ("new", 2, 1200)


def test_a_trace_that_is_not_there_is_named_beside_those_that_are(file: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no trace xyz in .*; there are ") as raised:
        show(file, "--trace", "xyz")
    assert all(one in str(raised.value) for one in ids(file))


def test_an_id_that_means_several_traces_is_refused(file: Path) -> None:
    with pytest.raises(ValueError, match="begins 2 ids"):
        show(file, "--trace", "")


def test_files_that_are_missing_empty_or_broken_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"there is no trace file .*none\.jsonl"):
        show(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.jsonl has no spans"):
        show(tmp_path / "empty.jsonl")
    (tmp_path / "broken.jsonl").write_text("no\n")
    with pytest.raises(BadTraceFile, match=r"broken\.jsonl, line 1"):
        show(tmp_path / "broken.jsonl")


def run(*arguments: object, given: bytes | None = None, encoding: str = "utf-8") -> tuple[str, str]:
    """What a process of its own writes to standard output and to standard error."""
    command = [sys.executable, "-m", "sostenuto.runtime.cli", "trace", "show", *map(str, arguments)]
    told = os.environ | {"PYTHONIOENCODING": encoding}
    done = subprocess.run(command, input=given, capture_output=True, env=told, check=True)
    return done.stdout.decode(encoding), done.stderr.decode(encoding)


def test_of_a_process_that_was_killed_all_is_shown_but_its_half_line(file: Path) -> None:
    whole = show(file)
    with open(file, "ab") as lines:
        lines.write(b'{"resourceSpans": [{"scop')
    shown, said = run(file)
    assert shown == f"{whole}\n"
    assert said.startswith(f"sostenuto: {file}: left out what is no OTLP JSON")
    assert 'line 4: \'{"resourceSpans"' in said
    assert len(said.splitlines()) == 1


def test_a_trace_may_come_by_standard_input(file: Path) -> None:
    assert run("-", given=file.read_bytes()) == (f"{show(file)}\n", "")


def test_a_terminal_without_the_letters_gets_escapes(file: Path) -> None:
    shown, said = run(file, encoding="ascii")
    assert (shown, said) == (f"{show(file)}\n".encode("ascii", "backslashreplace").decode(), "")
    assert r"\u2514\u2500 chat m" in shown


def test_with_standard_output_closed_nothing_is_shown_and_nothing_breaks(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert main(["trace", "show", str(file)]) == 0


def test_with_standard_input_closed_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["trace", "show", "-"]) == 1
    assert "standard input is closed" in capsys.readouterr().err


def test_a_directory_is_no_trace_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is a directory"):
        show(tmp_path)


def test_one_trace_or_all_but_not_both(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        show(file, "--all", "--trace", "a")
    assert "not allowed with" in capsys.readouterr().err


class Terminal(io.StringIO):
    """Standard output that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_narrow_terminal_is_not_overrun(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "56")
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert max(map(len, show(file, "--all").splitlines()[1:])) <= 56


def test_showing_a_trace_loads_neither_torch_nor_a_graph(file: Path) -> None:
    heavy = "{'torch', 'langgraph', 'langchain_core', 'transformers', 'opentelemetry.sdk'}"
    code = (
        "import argparse, sys; from sostenuto.runtime.cli_trace import trace_options, trace_shown;"
        "parser = argparse.ArgumentParser(); trace_options(parser);"
        f"trace_shown(parser.parse_args(['show', {str(file)!r}])); print({heavy} & set(sys.modules) or 'light')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("light", "")
