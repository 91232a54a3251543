"""Whatever is done to a log is found, and where."""

from __future__ import annotations

import pytest

from sostenuto.tools.audit import START, Anchor, Audited, Fault, anchored, read_anchor, sealed, verified

KEY = b"0123456789abcdef"
COUNT = 12


@pytest.fixture(scope="module")
def lines() -> list[bytes]:
    """A log of some records."""
    made, before = [], START
    for n in range(COUNT):
        body = (
            {"log": "one", "kind": "opened"}
            if not n
            else {"kind": "decided", "tool": f"tøøl {n}", "allowed": bool(n % 2)}
        )
        line, before = sealed(n, body, before, KEY)
        made.append(line)
    return made


def mac(line: bytes) -> str:
    return line[-67:-3].decode()


def head(lines: list[bytes]) -> Anchor:
    return Anchor("one", len(lines) - 1, mac(lines[-1]))


def check(changed: list[bytes], lines: list[bytes]) -> Audited:
    return verified(changed, KEY, [head(lines)])


def kinds(found: Audited) -> list[str]:
    return [fault.kind for fault in found.faults]


def test_a_log_as_it_was_written_has_no_fault(lines: list[bytes]) -> None:
    found = check(lines, lines)
    assert found == Audited("one", COUNT, (), "", head(lines), sum(map(len, lines)))


@pytest.mark.parametrize("place", range(COUNT))
def test_a_changed_record_is_found_and_named(lines: list[bytes], place: int) -> None:
    for byte in range(len(lines[place]) - 1):
        changed = bytearray(lines[place])
        changed[byte] ^= 1
        if changed[byte] == 10:
            continue  # a line end more: another case
        found = check([*lines[:place], bytes(changed), *lines[place + 1 :]], lines)
        assert found.faults[0].line == place + 1
        assert found.faults[0].kind == "changed"
        assert f"record {place} " in found.faults[0].what


@pytest.mark.parametrize("place", range(COUNT))
def test_a_dropped_record_is_found_and_named(lines: list[bytes], place: int) -> None:
    found = check([*lines[:place], *lines[place + 1 :]], lines)
    assert "missing" in kinds(found)
    missing = next(fault for fault in found.faults if fault.kind == "missing")
    assert (missing.line, f"record {place} " in missing.what) == (place + 1, True)


@pytest.mark.parametrize("place", range(COUNT - 1))
def test_records_that_changed_places_are_found(lines: list[bytes], place: int) -> None:
    swapped = [*lines[:place], lines[place + 1], lines[place], *lines[place + 2 :]]
    found = check(swapped, lines)
    assert found.faults[0].line == place + 1
    assert "moved" in kinds(found)


@pytest.mark.parametrize("place", range(COUNT))
def test_a_record_that_stands_twice_is_found(lines: list[bytes], place: int) -> None:
    found = check([*lines[: place + 1], lines[place], *lines[place + 1 :]], lines)
    assert [(fault.line, fault.kind) for fault in found.faults] == [(place + 2, "moved")]


@pytest.mark.parametrize("left", range(COUNT))
def test_a_log_that_was_cut_off_at_a_record_is_found_by_its_head(lines: list[bytes], left: int) -> None:
    found = check(lines[:left], lines)
    assert (kinds(found)[0], found.faults[0].line) == ("missing", left + 1)
    named = f"record {left} " if left == COUNT - 1 else f"records {left} to {COUNT - 1} "
    assert named in found.faults[0].what


def test_a_log_that_was_cut_off_at_any_byte_is_found_by_its_head(lines: list[bytes]) -> None:
    whole = b"".join(lines)
    for size in range(len(whole)):
        found = check(whole[:size].splitlines(keepends=True), lines)
        assert found.faults, size
        assert found.faults[0].line == whole[:size].count(b"\n") + 1


def test_a_record_that_was_never_finished_is_no_fault_where_its_head_does_not_know_it(lines: list[bytes]) -> None:
    found = verified([*lines[:-1], lines[-1][:-9]], KEY, [head(lines[:-1])])
    assert (found.faults, "never finished" in found.note, found.last.n) == ((), True, COUNT - 2)


def test_without_a_head_or_an_anchor_that_cannot_be_told_and_is_said(lines: list[bytes]) -> None:
    assert kinds(verified(lines, KEY, [])) == ["missing"]


def test_another_key_another_log_and_another_history_are_found(lines: list[bytes]) -> None:
    assert set(kinds(verified(lines, b"another key here", [head(lines)]))) == {"changed", "foreign"}
    other, before = [], START
    for n in range(COUNT):
        line, before = sealed(n, {"log": "two", "kind": "x"}, before, KEY)
        other.append(line)
    assert "foreign" in kinds(check(other, lines))
    assert "foreign" in kinds(check([*lines[:4], other[4], *lines[5:]], lines))
    assert "foreign" in kinds(check([*lines[:4], *other[4:]], lines))


def test_an_anchor_from_elsewhere_binds_what_was_written_till_then(lines: list[bytes]) -> None:
    early = Anchor("one", 4, mac(lines[4]))
    assert verified(lines, KEY, [head(lines), early]).faults == ()
    assert kinds(verified(lines[:3], KEY, [head(lines[:3]), early])) == ["missing"]
    wrong = Anchor("one", 4, "0" * 64)
    assert verified(lines, KEY, [head(lines), wrong]).faults == (
        Fault(5, "foreign", "record 4 is another one than the anchor names"),
    )


def test_an_anchor_is_sealed_and_is_no_record(lines: list[bytes]) -> None:
    anchor = head(lines)
    line = anchored(anchor, KEY)
    assert read_anchor(line, KEY) == anchor
    assert read_anchor(line, b"another key here") is None
    assert read_anchor(line.replace(b'"n":11', b'"n":10'), KEY) is None
    assert read_anchor(lines[0], KEY) is None
    assert "changed" in kinds(check([anchored(Anchor("one", 0, START), KEY), *lines[1:]], lines))
