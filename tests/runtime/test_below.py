"""Tiers that are opened for a host: told early what is wrong with them, and closed when there comes to be no host."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from sostenuto.kvstore import BadStore, TierLocked
from sostenuto.kvstore.tiers import DiskTier, HostTier
from sostenuto.runtime.below import Below, Tiers, owned
from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.errors import ModelNotFound, Unable
from sostenuto.runtime.host import Host
from sostenuto.runtime.loop import Loop
from sostenuto.scheduler import named

from .conftest import Pair


class Apart:
    """An engine that keeps its contexts to itself."""

    name = "apart"
    can = TorchEngine.can.__class__()


def apart() -> Any:
    return Apart()


def free(folder: Path) -> bool:
    """Whether nobody has the folder open for writing."""
    DiskTier.open(folder).store.close()
    return True


def test_a_model_that_is_not_found_leaves_the_store_to_others(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        Host.open("no/such/model", store=tmp_path)
    assert free(tmp_path)


def test_what_is_wrong_with_a_store_is_told_before_a_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to mother").touch()
    writer = DiskTier.open(tmp_path / "kv")
    with pytest.raises(TierLocked, match="writes to"):
        Host.open("no/such/model", store=tmp_path / "kv")
    writer.store.close()
    with pytest.raises(BadStore, match="no disk tier lies in"):
        Host.open("no/such/model", store=tmp_path / "letters")
    with pytest.raises(ValueError, match="host_tokens: found -1; expected 0 or more"):
        Host.open("no/such/model", host_tokens=-1)
    with pytest.raises(ValueError, match="store_tokens: found 64 without a store: give a folder"):
        Host.open("no/such/model", store_tokens=64)


def test_the_command_line_tells_it_before_it_opens_an_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = DiskTier.open(tmp_path)
    assert main(["serve", "--model", "no/such/model", "--store", str(tmp_path)]) == 1
    assert "writes to" in capsys.readouterr().err
    writer.store.close()
    assert main(["serve", "--model", "no/such/model", "--store", str(tmp_path)]) == 1
    assert "no/such/model" in capsys.readouterr().err
    assert free(tmp_path)


def test_an_engine_that_cannot_use_a_store_leaves_it_to_others(tmp_path: Path) -> None:
    with pytest.raises(Unable, match="apart keeps its contexts to itself"):
        Host(apart(), below=[Below(DiskTier.open(tmp_path))])
    with pytest.raises(Unable, match="apart keeps its contexts to itself"):
        Tiers(store=tmp_path).open(apart())
    assert free(tmp_path)


async def test_so_it_is_where_an_event_loop_is_running_already(tmp_path: Path) -> None:
    with pytest.raises(Unable):
        Host(apart(), below=[Below(DiskTier.open(tmp_path))])
    assert free(tmp_path)


@pytest.mark.parametrize("make", [Loop, Host])
def test_a_journal_that_cannot_be_written_leaves_the_store_to_others(
    tiny: Pair, tmp_path: Path, make: Callable[..., object]
) -> None:
    policy = named("sostenuto") if make is Loop else "sostenuto"
    below = [Below(HostTier()), Below(DiskTier.open(tmp_path / "kv"))]
    with pytest.raises(FileNotFoundError):
        make(TorchEngine(tiny.ours, pool_tokens=64), policy=policy, journal=tmp_path / "no" / "folder", below=below)
    assert free(tmp_path / "kv")


def test_a_tier_that_cannot_even_be_closed_does_not_hide_why_it_should_be(tmp_path: Path) -> None:
    class Stuck(HostTier):
        async def aclose(self) -> None:
            raise OSError("the door is jammed")

    with pytest.raises(ValueError, match="the first fault"), owned([Below(Stuck()), Below(DiskTier.open(tmp_path))]):
        raise ValueError("the first fault")
    assert free(tmp_path)


def test_a_loop_that_dies_lets_go_of_its_store(tiny: Pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(TorchEngine):
        def plan(self) -> None:
            raise RuntimeError("a defect")

    monkeypatch.setattr(threading, "excepthook", died := Mock())
    loop = Loop(Dying(tiny.ours, pool_tokens=64), named("sostenuto"), below=[Below(DiskTier.open(tmp_path))])
    loop._thread.join()
    assert free(tmp_path)
    loop.close()
    died.assert_called_once()
