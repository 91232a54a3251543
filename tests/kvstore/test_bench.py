"""The benchmark of contexts runs, and says what it promises to say."""

from __future__ import annotations

import json

import pytest

from sostenuto.bench.kvstore import main, table


@pytest.mark.timeout(120)
def test_asked_for_json_it_prints_one_object_of_which_a_table_can_be_made(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--tokens", "64", "256", "--restored", "40", "--runs", "1", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert {"fork", "rollback", "restore_host", "restore_disk", "limits"} <= found.keys()
    for name in ("fork", "rollback"):
        few, many = found[name]
        assert (few["tokens"], many["tokens"]) == (64, 256)
        assert {"us_p50", "bytes"} <= few.keys()
        assert (
            abs(many["bytes"] - few["bytes"]) < 192 * found["limits"]["bytes_per_token"]
        )  # a copy of all would be more
    for name in ("restore_host", "restore_disk"):
        (row,) = found[name]
        assert (row["tokens"], row["bytes"]) == (40, 40 * found["limits"]["bytes_per_token"])
        assert row["of_limit"] == pytest.approx(row["bytes_per_s"] / row["limit_bytes_per_s"])
        assert row["of_limit"] > 0
    titles = [line.split()[0].strip(",") for line in table(found)[1:] if line and not line.startswith(" ")]
    assert titles == ["fork", "rollback", "restore_host", "restore_host_verified", "restore_disk"]
