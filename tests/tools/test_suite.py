"""The official JSON Schema tests, draft 2020-12: what the check of values and the grammars make of them."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sostenuto.tools import BadSchema, GrammarRefused, Validator
from sostenuto.tools.grammars.compiling import Compiling

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def groups() -> list[tuple[str, dict[str, Any]]]:
    """From the folder json/tests/draft2020-12 of jsonschema's source distribution."""
    folder = os.environ.get("SOSTENUTO_JSON_SCHEMA_SUITE")
    if not folder:
        pytest.skip("$SOSTENUTO_JSON_SCHEMA_SUITE names no folder with the official tests")
    files = sorted(Path(folder).glob("*.json"))
    return [(file.stem, group) for file in files for group in json.loads(file.read_text(encoding="utf-8"))]


def usable(groups: list[tuple[str, dict[str, Any]]], *, fast: bool) -> Iterator[tuple[str, dict[str, Any], Validator]]:
    for name, group in groups:
        if isinstance(group["schema"], bool):
            continue  # true and false: no tool has such parameters
        try:
            check = Validator(group["schema"], fast=fast)
        except BadSchema as refused:
            if "none is fetched" in str(refused) or "$schema" in str(refused):
                continue  # what lies outside of the schema is not looked at
            raise
        yield name, group, check


@pytest.mark.parametrize("fast", [True, False])
def test_the_check_of_values_is_right_about_every_one(groups: list[tuple[str, dict[str, Any]]], fast: bool) -> None:
    judged, wrong = 0, []
    for name, group, check in usable(groups, fast=fast):
        for test in group["tests"]:
            judged += 1
            if (check.problems(test["data"]) == ()) is not test["valid"]:
                wrong.append((name, group["description"], test["description"]))
    assert wrong == []
    assert judged > 1000


def test_a_grammar_that_is_said_to_be_full_lets_nothing_through(
    groups: list[tuple[str, dict[str, Any]]], alone: Compiling
) -> None:
    counts: Counter[str] = Counter()
    through = []
    for name, group, _ in usable(groups, fast=True):
        try:
            fresh = alone.schema(group["schema"])
        except GrammarRefused:
            counts["refused"] += len(group["tests"])
            continue
        for test in group["tests"]:
            grammar = fresh.fork()
            text = json.dumps(test["data"], ensure_ascii=False).encode()
            accepted = all(grammar.accept(byte) for byte in text) and grammar.accepting
            verdict = ("takes" if accepted else "leaves") + (" valid" if test["valid"] else " invalid")
            counts[f"{fresh.enforced.kind} {verdict}"] += 1
            if verdict == "takes invalid" and fresh.enforced.kind == "full":
                through.append((name, group["description"], test["description"]))
    assert through == []
    assert counts["full takes valid"] > 200
    assert counts["refused"] <= 5, "schemas that nothing fits"
