"""What lies below the device: found by tokens, the least recently used first to leave, ends before beginnings."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

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
    books.touch(link.name for link in old)
    assert books.surplus("host") == (new[1],)
    books.age(old)
    assert books.surplus("host") == (old[1],)


def leaving(books: Elsewhere, tier: str) -> list[Link]:
    """All that lies in a tier, in the order in which it would leave."""
    books.rooms[tier] = 0
    return list(books.surplus(tier))


def test_blocks_are_put_in_the_order_of_their_use_and_beginnings_leave_last_in_whatever_order_they_come() -> None:
    books = Elsewhere(PAGE, {"disk": None})
    old, new = chain(range(8)), chain(range(100, 112))
    books.put("disk", (old[1], old[0], new[2], new[0], new[1]))
    assert leaving(books, "disk") == [old[1], old[0], new[2], new[1], new[0]]


def test_a_context_that_grew_is_used_as_a_whole_wherever_its_beginning_lies() -> None:
    books = Elsewhere(PAGE, {"host": None, "disk": None})
    grown, other = chain(range(12)), chain(range(100, 104))
    books.put("host", grown[:1])
    books.put("disk", grown[1:2])
    for tier in ("host", "disk"):
        books.put(tier, other)
    books.put("host", grown[2:])
    assert leaving(books, "host") == [*other, grown[2], grown[0]]
    assert leaving(books, "disk") == [grown[1], *other], "it was not put there"
    books.touch([grown[2].name])
    assert leaving(books, "disk") == [*other, grown[1]]


def test_of_two_that_share_a_beginning_the_one_used_last_leaves_last_and_what_they_share_after_both() -> None:
    books = Elsewhere(PAGE, {"host": None})
    one, two = chain([*range(4), 1, 1, 1, 1]), chain([*range(4), 2, 2, 2, 2])
    books.put("host", one)
    books.put("host", two)
    assert leaving(books, "host") == [one[1], two[1], one[0]]
    books.touch([one[1].name, one[0].name, BlockHash(b"unknown")])
    assert leaving(books, "host") == [two[1], one[1], one[0]]


def test_what_a_window_has_left_behind_is_not_used_with_what_goes_on_from_it() -> None:
    books = Elsewhere(PAGE, {"host": 3})
    blocks, other = chain(range(20)), chain(range(100, 104))
    books.put("host", blocks[:2])
    books.put("host", other)
    books.put("host", blocks[2:4], gaps=True)
    assert books.surplus("host") == (blocks[1], blocks[0])
    books.put("host", blocks[4:])  # what goes on is used with what it goes on from, as far as a window looks
    assert books.surplus("host") == (blocks[1], blocks[0], other[0])
    books.touch([blocks[0].name, blocks[1].name])
    books.touch([blocks[4].name], gaps=True)
    assert books.surplus("host") == (other[0], blocks[2], blocks[3])


def test_what_says_that_it_goes_on_from_itself_is_put_like_any_other() -> None:
    books = Elsewhere(PAGE, {"disk": None})
    name = BlockHash(bytes(16))
    books.put("disk", [Link(name, name, (1, 2, 3, 4))])
    assert books.count("disk") == 1


def test_only_the_names_that_are_lost_are_lost_in_that_tier_alone_and_can_come_again() -> None:
    books = Elsewhere(PAGE, {"host": None, "disk": None})
    blocks = chain(range(12))
    for tier in ("host", "disk"):
        books.put(tier, blocks)
    books.lose("host", [blocks[1].name, BlockHash(b"unknown"), blocks[1].name])
    assert [books.has("host", block.name) for block in blocks] == [True, False, True]
    assert found(books, range(12)) == [(4, "host"), (4, "disk"), (4, "host")]
    books.lose("disk", [blocks[1].name])
    assert found(books, range(12)) == [(4, "host")]
    assert (books.count("host"), books.count("disk")) == (2, 2)
    books.put("host", [blocks[1]])
    assert found(books, range(12)) == [(4, "host")] * 3


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
                books.touch(block.name for block in blocks)
        assert [books.count(each) for each in model] == [len(each) for each in model.values()]
        for each, lying in model.items():
            assert all(books.has(each, block.name) for block in lying)
        whole = 0
        for block in blocks:
            if not any(block in lying for lying in model.values()):
                break
            whole += len(block.tokens)
        assert sum(use for use, _ in found(books, tokens)) >= whole


uses = st.lists(
    st.tuples(st.sampled_from(["host", "disk", "touch", "lose"]), contexts, st.randoms(use_true_random=False)),
    max_size=30,
)


@given(uses)
@settings(deadline=None, max_examples=200)
def test_no_block_ever_leaves_before_what_goes_on_from_it(uses: list[tuple[str, list[int], Random]]) -> None:
    books = Elsewhere(PAGE, {"host": None, "disk": None})
    for what, tokens, chance in uses:
        blocks = list(chain(tokens))
        chance.shuffle(blocks)
        match what:
            case "touch":
                books.touch(block.name for block in blocks)
            case "lose":
                books.lose("host", [block.name for block in blocks[:1]])
            case tier:
                books.put(tier, blocks[: 1 + len(blocks) // 2])
        for tier in ("host", "disk"):
            order = [block.name for block in leaving(books, tier)]
            places = {name: place for place, name in enumerate(order)}
            for block in leaving(books, tier):
                assert places.get(block.parent, len(order)) > places[block.name]
