"""Measurements that are over, a line of JSON each: whoever is interrupted goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Key = tuple[str, str, int]
"""A cell, a peer, a round."""


class State:
    """A file to which finished measurements are appended. Those of another machine or other versions are not seen."""

    def __init__(self, file: Path, machine: str) -> None:
        self._file, self._machine = file, machine
        self._found: dict[tuple[Key, str], dict[str, Any]] = {}
        for record in self._lines():
            if record["machine"] == machine:
                self._found[(record["cell"], record["peer"], record["round"]), record["version"]] = record

    def has(self, key: Key, version: str) -> bool:
        return (key, version) in self._found

    def add(self, key: Key, version: str, found: Mapping[str, Any]) -> dict[str, Any]:
        """Keep a measurement; it is in the file when this returns."""
        cell, peer, number = key
        record = {"cell": cell, "peer": peer, "round": number, "version": version, "machine": self._machine, **found}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        torn = self._file.is_file() and not self._file.read_bytes().endswith(b"\n")
        with self._file.open("a", encoding="utf-8") as out:
            out.write("\n" * torn + json.dumps(record) + "\n")
        self._found[key, version] = record
        return record

    def of(self, versions: Mapping[str, str]) -> list[dict[str, Any]]:
        """All measurements of the peers in these versions."""
        return [one for one in self._found.values() if versions.get(one["peer"]) == one["version"]]

    def _lines(self) -> Iterator[dict[str, Any]]:
        if not self._file.is_file():
            return
        for line in self._file.read_text(encoding="utf-8").splitlines():
            try:
                found = json.loads(line)
            except json.JSONDecodeError:
                continue  # the run was ended while it wrote this one
            yield found


def source(root: Path) -> str:
    """Which code of ours computes here, in one word: what is not committed counts too."""
    digest = hashlib.blake2b(digest_size=6)
    for room in ("kvstore", "runtime", "scheduler"):
        for path in sorted((root / room).rglob("*")):
            if path.suffix in (".py", ".cpp"):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def commit(root: Path) -> str:
    """The commit on which the working tree stands, if it is one."""
    asked = ["git", "-C", str(root), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "none"
