"""The wrapper passes LangGraph's own suite for checkpointers, the extended capabilities included."""

from __future__ import annotations

import pytest

from sostenuto.docs import conformance


@pytest.mark.parametrize("name", sorted(conformance.SAVERS))
async def test_every_capability_passes_around(name: str) -> None:
    report = await conformance.report(name)
    assert {each: result.failures for each, result in report.results.items()} == {each: [] for each in report.results}
    assert len(report.results) == 8
    assert all(result.detected and result.tests_passed > 0 for result in report.results.values())
    assert report.conformance_level() == "FULL"


async def test_the_page_has_the_table_that_the_suite_gives_now() -> None:
    table = conformance.table(await conformance.everything())
    assert table in conformance.PAGE.read_text(encoding="utf-8"), "run: python docs/conformance.py"
