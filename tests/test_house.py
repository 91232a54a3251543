"""The house keeps its own rules: captions, sizes, tested names, an empty front door, a wheel with everything in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import sostenuto
from sostenuto.docs import house

FOLDERS = (*house.ROOMS, "tests", "examples", "bench", "docs")
FILES = [house.ROOT / "__init__.py", *(path for folder in FOLDERS for path in house.sources(folder))]
LONGEST_FILE = 400
LONGEST_FUNCTION = 60


def name(path: Path) -> str:
    return path.relative_to(house.ROOT).as_posix()


def python(code: str) -> str:
    """What `code` prints in a fresh interpreter, far from the repository."""
    done = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_has_a_caption_and_a_readable_size(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    caption = house.caption(path)
    assert caption, "the first line of the docstring says what the file is"
    assert caption.endswith((".", "?")), f"a caption is a sentence: {caption!r}"
    lines = len(text.splitlines())
    assert lines <= LONGEST_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@pytest.mark.parametrize("room", house.ROOMS)
def test_every_folder_of_a_room_is_a_package(room: str) -> None:
    """Otherwise the import contracts do not see what is in it."""
    folders = {path.parent for path in house.sources(room)}
    assert [name(folder) for folder in sorted(folders) if not (folder / "__init__.py").is_file()] == []


def test_only_the_front_door_imports_for_type_checkers() -> None:
    word = "TYPE_" + "CHECKING"
    assert [name(path) for path in FILES if word in path.read_text(encoding="utf-8")] == ["__init__.py"]


@pytest.mark.parametrize("room", house.ROOMS)
def test_every_public_name_of_a_room_is_in_some_test(room: str) -> None:
    tests = [path.read_text(encoding="utf-8") for path in house.sources("tests") if path != Path(__file__)]
    words = set(re.findall(r"\w+", "\n".join(tests)))
    public = {each for path in house.sources(room) if path.name == "__init__.py" for each in exported(path)}
    untested = ", ".join(sorted(public - words))
    assert untested == ""


def exported(path: Path) -> list[str]:
    """The names in a file's `__all__`."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(each) for each in ast.literal_eval(node.value)]
    return []


def test_the_map_of_the_house_is_up_to_date() -> None:
    assert house.PAGE.read_text(encoding="utf-8") == house.page(), "run: make house"


def test_importing_the_package_opens_no_room_and_loads_nothing_heavy() -> None:
    code = "import sys; before = set(sys.modules); import sostenuto; print(*sorted(set(sys.modules) - before))"
    loaded = {module for module in python(code).split() if not module.startswith("_")}
    ours = {module for module in loaded if module.split(".")[0] == "sostenuto"}
    assert ours == {"sostenuto"}
    assert not loaded & {"torch", "numpy", "langgraph", "langchain_core", "opentelemetry", "asyncio"}


@pytest.mark.parametrize("room", ["kvstore", "scheduler", "tools", "tracing"])
def test_a_room_below_the_runtime_opens_without_torch(room: str) -> None:
    assert python(f"import sys, sostenuto.{room}; print('torch' in sys.modules)") == "False"


def test_nothing_generic_becomes_importable() -> None:
    code = "import importlib.util as u; print([n for n in {names} if u.find_spec(n)])"
    assert python(code.format(names=[*house.ROOMS, "bench", "examples", "docs"])) == "[]"


def test_the_front_door_offers_what_it_says_and_explains_what_it_does_not() -> None:
    for each in sostenuto.__all__:
        assert getattr(sostenuto, each) is getattr(sostenuto, each)
        assert each in dir(sostenuto)
    with pytest.raises(AttributeError, match=r"no attribute 'Runtime'; it offers \['ChatSostenuto', "):
        sostenuto.Runtime  # type: ignore[attr-defined]  # noqa: B018


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was made from an sdist, as an index would do it."""
    folder = tmp_path_factory.mktemp("dist")
    build(house.ROOT, "sdist", folder)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # unknown to Python 3.11.2
        archive.extractall(folder)
    build(folder / sdist.name.removesuffix(".tar.gz"), "wheel", folder)
    (made,) = folder.glob("*.whl")
    return made


def build(source: Path, target: str, out: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(out)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def test_a_wheel_holds_the_rooms_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        found = {each for each in archive.namelist() if each.startswith("sostenuto/")}
        others = {each.split("/", 1)[0] for each in archive.namelist()} - {"sostenuto"}
        metadata = archive.read(f"sostenuto-{sostenuto.__version__}.dist-info/METADATA").decode()
    packaged = [path for room in house.ROOMS for path in house.sources(room)]
    packaged += [path for path in (house.ROOT / "runtime" / "demo" / "data").rglob("*") if path.is_file()]
    packaged += [house.ROOT / "__init__.py", house.ROOT / "py.typed"]
    packaged += [path for kind in ("*.cpp", "*.h") for path in (house.ROOT / "runtime").rglob(kind)]
    assert found == {f"sostenuto/{name(path)}" for path in packaged}
    assert others == {f"sostenuto-{sostenuto.__version__}.dist-info"}
    assert f"Version: {sostenuto.__version__}" in metadata


def test_the_package_works_from_the_wheel_alone(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import sostenuto, sostenuto.runtime.demo.tasks as tasks;"
        "print(sostenuto.__file__, len(tasks.load_tasks()))"
    )
    assert python(code) == f"{tmp_path / 'sostenuto' / '__init__.py'} 8"
