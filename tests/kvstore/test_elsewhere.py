"""What lies below the device: found by tokens, the least recently used first to leave, ends before beginnings."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import BlockHash, Elsewhere, Link, root
from sostenuto.kvstore.record import links

PAGE = 4
HERE, OTHER = root(model="m"), root(model="m", tenant="other")


def chain(tokens: Sequence[int], parent: BlockHash = HERE) -> tuple[Link, ...]:
    return links(tokens, PAGE, parent)


def found(books: Elsewhere, tokens: Sequence[int], parent: BlockHash = HERE) -> list[tuple[int, str]]:
    return [(one.use, one.tier) for one in books.match(parent, tokens)]


def test_a_context_is_found_block_by_block_and_its_unfinished_end_too() -> None:
    books = Elsewhere(PAGE, {"host": None})
    books.put("host", chain(range(10)))
    assert found(books, range(10)) == [(4, "host"), (4, "host"), (2, "host")]
    assert found(books, range(20)) == [(4, "host"), (4, "host"), (2, "host")]
    assert found(books, range(7)) == [(4, "host"), (3, "host")]
    assert found(books, [9, *range(10)]) == []


def test_the_nearest_tier_that_has_a_block_is_named() -> None:
    books = Elsewhere(PAGE, {"host": None, "disk": None})
    books.put("disk", chain(range(8)))
    books.put("host", chain(range(8))[:1])
    assert found(books, range(8)) == [(4, "host"), (4, "disk")]
    books.lose("host", [chain(range(8))[0].name])
    assert found(books, range(8)) == [(4, "disk"), (4, "disk")]


def test_equal_tokens_of_another_tenant_are_not_found() -> None:
    books = Elsewhere(PAGE, {"host": None})
    books.put("host", chain(range(8)))
    assert found(books, range(8), OTHER) == []


def test_nothing_behind_a_gap_is_found() -> None:
    books = Elsewhere(PAGE, {"host": None})
    blocks = chain(range(12))
    books.put("host", (blocks[0], blocks[2]))
    assert found(books, range(12)) == [(4, "host")]


def test_what_was_used_least_recently_is_too_much_first_and_of_a_context_its_end() -> None:
    books = Elsewhere(PAGE, {"host": 3})
    old, new = chain(range(8)), chain(range(100, 108))
    books.put("host", old)
    books.put("host", new)
    assert books.surplus("host") == (old[1],)
    books.touch(old)
    assert books.surplus("host") == (new[1],)
    books.age(old)
    assert books.surplus("host") == (old[1],)


def test_a_name_that_other_tokens_have_is_refused_and_the_first_stays() -> None:
    books = Elsewhere(PAGE, {"host": None})
    (block,) = chain(range(4))
    books.put("host", [block])
    books.put("host", [Link(block.name, block.parent, (9, 9, 9, 9))])
    assert found(books, range(4)) == [(4, "host")]
    assert found(books, [9, 9, 9, 9]) == []
    assert books.count("host") == 1


def test_a_cleared_tier_has_nothing_and_the_others_all() -> None:
    books = Elsewhere(PAGE, {"host": None, "disk": 9})
    for tier in ("host", "disk"):
        books.put(tier, chain(range(8)))
    assert books.clear("host") == 2
    assert repr(books) == "<Elsewhere host 0/- | disk 2/9>"
    assert (books.below("host"), books.below("disk")) == ("disk", None)


contexts = st.lists(st.integers(0, 2), min_size=1, max_size=14)
kinds = st.sampled_from(["put", "lose", "clear", "touch"])
operations = st.lists(st.tuples(kinds, st.booleans(), contexts), max_size=30)


@given(operations)
@settings(deadline=None, max_examples=200)
def test_against_a_model_that_looks_at_everything(operations: list[tuple[str, bool, list[int]]]) -> None:
    books = Elsewhere(PAGE, {"host": None, "disk": None})
    model: dict[str, set[Link]] = {"host": set(), "disk": set()}
    for what, first, tokens in operations:
        tier, blocks = ("host" if first else "disk"), chain(tokens)
        match what:
            case "put":
                books.put(tier, blocks)
                model[tier] |= set(blocks)
            case "lose":
                books.lose(tier, [block.name for block in blocks[-1:]])
                model[tier] -= set(blocks[-1:])
            case "clear":
                books.clear(tier)
                model[tier].clear()
            case _:
                books.touch(blocks)
        assert [books.count(each) for each in model] == [len(each) for each in model.values()]
        for each, lying in model.items():
            assert all(books.has(each, block.name) for block in lying)
        whole = 0
        for block in blocks:
            if not any(block in lying for lying in model.values()):
                break
            whole += len(block.tokens)
        assert sum(use for use, _ in found(books, tokens)) >= whole
