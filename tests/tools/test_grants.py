"""A grant allows what it says and nothing more, whoever holds it and whatever is done to it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from sostenuto.tools import BadTool, read_tool
from sostenuto.tools.contracts import misfits
from sostenuto.tools.grants import Asked, Ceiling, Grant, Holder, Refusal, genuine, holder_of, narrowed, refusal
from sostenuto.tools.grants_book import Book, Terms
from sostenuto.tools.grants_names import canonical, digest, tool_digest

KEY = b"0123456789abcdef0123456789abcdef"
TOOL = read_tool({"name": "read", "parameters": {"type": "object", "properties": {"path": {"type": "string"}}}})
REPO: Any = {"properties": {"path": {"pattern": "^/repo/"}}, "required": ["path"]}
NOW = 1000.0


def ceiling(**given: Any) -> Ceiling:
    return Ceiling(**{"constraint": REPO, "effects": "read", **given})


def root(book: Book, **given: Any) -> Grant:
    return book.mint(holder_of(TOOL, "a"), ceiling(**given), NOW, issuer="node")


def wish(path: str = "/repo/x", *, effects: Any = "read", **held: Any) -> Asked:
    holder = holder_of(TOOL, held.pop("tenant", "a"), session="s", task="t", server=held.pop("server", ""))
    return Asked(replace(holder, **held), {"path": path}, effects)


def code(found: Refusal | None) -> str:
    return found.code if found else "allowed"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (wish(), "allowed"),
        (wish("/etc/passwd"), "constraint"),
        (wish("/repo"), "constraint"),
        (wish(tenant="b"), "foreign"),
        (wish(tool="write"), "foreign"),
        (wish(digest=digest("another")), "changed"),
        (wish(effects="write"), "effects"),
        (wish(effects="pure"), "allowed"),
    ],
)
def test_a_grant_allows_a_call_only_if_all_of_it_fits(asked: Asked, says: str) -> None:
    book = Book(KEY)
    assert code(book.check(root(book), asked, NOW)) == says


def test_a_grant_holds_from_then_until_then() -> None:
    book = Book(KEY)
    grant = root(book, seconds=10)
    assert [code(book.check(grant, wish(), NOW + after)) for after in (-1, 0, 9.9, 10)] == [
        "early",
        "allowed",
        "allowed",
        "expired",
    ]


@pytest.mark.parametrize("name", [field.name for field in fields(Grant)])
def test_a_grant_that_was_changed_anywhere_is_forged(name: str) -> None:
    book = Book(KEY)
    grant = book.attenuate(root(book, calls=3, seconds=10), Terms("s", "t"))
    other: dict[str, Any] = {
        "id": root(book).id,
        "serial": 99,
        "parent": root(book).id,
        "holder": replace(grant.holder, tenant="b"),
        "constraint": {"type": "object"},
        "effects": "external",
        "calls": None,
        "since": 0.0,
        "until": None,
        "issuer": "root",
        "reason": "please",
        "mac": "00" * 32,
    }
    assert code(book.check(grant, wish(), NOW)) == "allowed"
    assert code(book.check(replace(grant, **{name: other[name]}), wish(), NOW)) in ("forged", "revoked")


@pytest.mark.parametrize("name", [field.name for field in fields(Holder)])
def test_a_grant_for_somebody_else_is_forged(name: str) -> None:
    book = Book(KEY)
    grant = book.attenuate(root(book), Terms("s", "t"))
    wider = replace(grant, holder=replace(grant.holder, **{name: "x"}))
    assert code(book.check(wider, replace(wish(), holder=wider.holder), NOW)) == "forged"


def test_who_holds_a_grant_can_sign_narrower_ones_and_no_wider_ones() -> None:
    book = Book(KEY)
    above = root(book, calls=3, seconds=10)
    own = replace(above, id="mine", parent=above.id, calls=2, until=NOW + 5)
    assert genuine([above, own.signed(bytes.fromhex(above.mac))], KEY)
    for wider in (
        replace(own, calls=4),
        replace(own, calls=None),
        replace(own, until=None),
        replace(own, since=NOW - 1),
        replace(own, effects="write"),
        replace(own, holder=replace(own.holder, tenant="")),
        replace(own, parent=""),
    ):
        assert not genuine([above, wider.signed(bytes.fromhex(above.mac))], KEY)
    assert not genuine([above], b"another key of thirty-two bytes!")
    assert not genuine([own.signed(bytes.fromhex(above.mac))], KEY), "not without the one above it"
    assert not genuine([], KEY)


def test_the_narrowest_of_a_chain_binds() -> None:
    book = Book(KEY)
    above = root(book, seconds=100)
    below = book.attenuate(above, Terms("s", "t", {"properties": {"path": {"maxLength": 7}}}, until=NOW + 50))
    assert code(book.check(below, wish("/repo/x"), NOW)) == "allowed"
    assert code(book.check(below, wish("/repo/xx"), NOW)) == "constraint"
    assert code(book.check(below, wish("/abc/x"), NOW)) == "constraint"
    assert code(book.check(below, wish(), NOW + 50)) == "expired"
    assert code(book.check(below, wish(task="u"), NOW)) == "foreign"
    assert code(book.check(below, wish(session="r"), NOW)) == "foreign"
    assert refusal((), wish(), NOW) is not None


def test_what_a_child_spends_its_parent_and_its_siblings_have_spent() -> None:
    book = Book(KEY)
    above = root(book, calls=3)
    left, right = (book.attenuate(above, Terms("s", task)) for task in ("t", "u"))
    assert [code(book.spend(left, wish(), NOW)) for _ in range(2)] == ["allowed", "allowed"]
    assert (book.left(above), book.left(right)) == (1, 3)
    assert code(book.spend(right, wish(task="u"), NOW)) == "allowed"
    assert [code(book.spend(each, wish(task=task), NOW)) for each, task in ((left, "t"), (right, "u"))] == ["spent"] * 2


def test_a_refused_call_spends_nothing() -> None:
    book = Book(KEY)
    grant = root(book, calls=1)
    assert code(book.spend(grant, wish("/etc/passwd"), NOW)) == "constraint"
    assert code(book.spend(grant, wish(), NOW)) == "allowed"
    assert code(book.spend(grant, wish(), NOW)) == "spent"


def test_what_is_revoked_takes_along_what_was_made_of_it() -> None:
    book = Book(KEY)
    above = root(book)
    below = book.attenuate(book.attenuate(above, Terms("s")), Terms(task="t"))
    book.revoke(above)
    assert code(book.check(below, wish(), NOW)) == "revoked"


@pytest.mark.parametrize(
    ("meant", "says"),
    [
        ({}, "revoked"),
        ({"session": "s"}, "revoked"),
        ({"tool": "read"}, "revoked"),
        ({"session": "s", "tool": "read"}, "revoked"),
        ({"session": "r"}, "allowed"),
        ({"tool": "write"}, "allowed"),
    ],
)
def test_a_session_a_tool_or_a_tenant_is_revoked_at_once_and_may_be_granted_anew(meant: Any, says: str) -> None:
    book = Book(KEY)
    grant = book.attenuate(root(book), Terms("s", "t"))
    book.revoke_all("b", **meant)
    assert code(book.check(grant, wish(), NOW)) == "allowed"
    book.revoke_all("a", **meant)
    assert code(book.check(grant, wish(), NOW)) == says
    assert code(book.check(book.attenuate(root(book), Terms("s", "t")), wish(), NOW)) == "allowed"


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"constraint": {"type": "no such type"}}, "a constraint"),
        ({"constraint": {"properties": {"x": {"$ref": "#/$defs/x"}}, "$defs": {"x": {}}}}, "written out"),
        ({"calls": -1}, "calls"),
        ({"seconds": 0}, "seconds"),
        ({"effects": "all"}, "effects"),
    ],
)
def test_a_ceiling_that_could_not_be_kept_is_refused(wrong: Any, says: str) -> None:
    with pytest.raises(BadTool, match=says):
        Ceiling(**wrong)
    with pytest.raises(ValueError, match="at least 16"):
        Book(b"secret")


def test_a_tool_under_a_grant_takes_what_both_allow_and_keeps_its_name() -> None:
    other: Any = {"properties": {"path": {"pattern": "x$"}, "more": False}, "minProperties": 1}
    seen = narrowed(TOOL, [REPO, other])
    assert (seen.name, seen.description) == (TOOL.name, TOOL.description)
    fits = [path for path in ("/repo/x", "/repo/y", "/etc/x") if not misfits(seen.parameters, {"path": path})]
    assert fits == ["/repo/x"]
    assert misfits(seen.parameters, {})
    assert misfits(seen.parameters, {"path": "/repo/x", "more": 1})
    assert narrowed(TOOL, [{}]) is TOOL


def test_a_digest_changes_with_all_that_a_model_reads_of_a_tool() -> None:
    others = [replace(TOOL, name="x"), replace(TOOL, description="x"), replace(TOOL, parameters={"type": "object"})]
    assert len({tool_digest(each) for each in (TOOL, *others)}) == 4
    assert canonical({"b": 1, "a": ["é"]}) == '{"a":["é"],"b":1}'
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))
