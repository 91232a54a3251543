"""What `sostenuto doctor` says is what computes."""

from __future__ import annotations

from pathlib import Path

import pytest

from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch import doctor, ways
from sostenuto.runtime.engines.torch.lean.native import NotBuilt
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.weights import Source

from .conftest import FAMILIES, build


def told(text: str) -> dict[str, str]:
    return {line[:12].strip(): line[12:] for line in text.splitlines()}


@pytest.mark.parametrize("family", ["llama", "gemma3, windows in some layers"])
def test_the_doctor_names_the_path_that_a_model_takes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], family: str
) -> None:
    folder = build(tmp_path, **FAMILIES[family])
    capsys.readouterr()
    assert main(["doctor", "--model", str(folder)]) == 0
    found = told(capsys.readouterr().out)
    headings = ["machine", "torch", "products", "operations", "cache", "model", "path", "mode", "bits", "memory"]
    assert list(found) == headings
    assert 50 < int(found["memory"].split()[0]) < 1_000_000
    assert found["mode"] == "exact"
    chosen = Model.load(Source(str(folder), "tiny")).chosen
    expected = f"general, because {chosen.why}" if chosen.why else f"lean, operations in {chosen.kernels}"
    assert found["path"] == expected
    assert found["bits"].startswith("a row is the same" if chosen.path.even else "a row may depend")


def test_the_doctor_says_what_is_missing_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(folder: Path) -> None:
        raise NotBuilt("there is no C++ compiler")

    for module in (doctor, ways):
        monkeypatch.setattr(module, "native", fail)
    assert main(["doctor", "--model", str(tmp_path / "none")]) == 0
    found = told(capsys.readouterr().out)
    assert found["operations"] == "in torch, because there is no C++ compiler"
    assert found["model"].startswith("none: there is no ")
    assert "path" not in found
