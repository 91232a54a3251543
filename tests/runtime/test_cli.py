"""The command line: a server in front of a server, vLLM's own command, and wrong words."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from sostenuto.runtime.cli import main

from .openai_server import OpenAIServer, answer


@contextmanager
def serving(*given: str) -> Iterator[str]:
    """`sostenuto serve` as a process of its own; its base URL. It ends at SIGTERM, with 0."""
    command = [sys.executable, "-m", "sostenuto.runtime.cli", "serve", "--port", "0", *given]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert "http://" in line, process.stderr and process.stderr.read()
            yield "http://" + line.split("http://")[1].strip()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0


def test_a_server_in_front_of_another_serves_its_keys_and_names(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"secret": "team-a"}), encoding="utf-8")
    with OpenAIServer(answer("Hello.", usage=(9, 4, 2))) as behind:
        given = ["--engine", "openai", "--url", behind.url, "--keys", str(keys), "--name", "ours"]
        with serving(*given) as url, httpx.Client(base_url=url, trust_env=False) as client:
            body = {"model": "ours", "messages": [{"role": "user", "content": "hi"}]}
            assert client.post("/chat/completions", json=body).status_code == 401
            told = client.post("/chat/completions", json=body, headers={"authorization": "Bearer secret"}).json()
    assert told["choices"][0]["message"]["content"] == "Hello."
    assert told["usage"]["prompt_tokens_details"]["cached_tokens"] == 4


def test_a_server_writes_its_side_of_a_trace_and_the_command_line_shows_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, above = tmp_path / "trace.jsonl", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with OpenAIServer(answer("Hello.", usage=(9, 4, 2))) as behind:
        given = ["--engine", "openai", "--url", behind.url, "--name", "ours", "--trace", str(file)]
        with serving(*given) as url, httpx.Client(base_url=url, trust_env=False) as client:
            body = {"model": "ours", "messages": [{"role": "user", "content": "hi"}]}
            assert client.post("/chat/completions", json=body, headers={"traceparent": above}).status_code == 200
    assert main(["trace", "show", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "trace 0af7651916cd43dd8448eb211c80319c" in shown
    assert "(parent elsewhere)" in shown
    assert "decode" in shown
    assert main(["trace", "show", str(tmp_path / "none")]) == 1
    assert "there is no trace file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"), [("no json", "it is no JSON"), ('["secret"]', "expected a JSON object"), ('{"a": 1}', "expected")]
)
def test_keys_that_cannot_be_read_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, why: str
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(text, encoding="utf-8")
    assert main(["serve", "--keys", str(keys)]) == 1
    assert why in capsys.readouterr().err


def test_nobody_is_let_in_from_elsewhere_without_keys(capsys: pytest.CaptureFixture[str]) -> None:
    with OpenAIServer() as behind:
        assert main(["serve", "--engine", "openai", "--url", behind.url, "--bind", "0.0.0.0"]) == 1
    assert "no keys" in capsys.readouterr().err


def test_vllms_command_is_printed_whole_and_run_only_where_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["vllm", "some/model", "--port", "9", "--cpus", "2", "--", "--max-model-len", "512"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("VLLM_PLUGINS=sostenuto ")
    assert "vllm serve some/model --host 127.0.0.1 --port 9 " in line
    assert "sostenuto.runtime.engines.vllm.connector" in line
    assert line.endswith("--max-model-len 512")
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["vllm", "some/model", "--run"]) == 1
    assert "there is no program `vllm` here" in capsys.readouterr().err
