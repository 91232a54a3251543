"""What other engines' caches learnt the hard way, promised here: blocks, names, counts, and what goes first."""

from __future__ import annotations

import pytest

from sostenuto.kvstore import (
    DEFAULT_PRIORITY,
    BlockHash,
    Branch,
    Ledger,
    NotHeld,
    OutOfPages,
    Range,
    chain,
    name,
    root,
)

from .room import PAGE, ROOT, frozen, known, leave, victims, write


def test_only_full_blocks_have_names_and_a_shared_tail_is_copied_before_it_is_written_on() -> None:
    ledger = Ledger(8, PAGE)
    one = write(ledger, range(6))
    assert [each.tokens for each in ledger.blocks().values()] == [(0, 1, 2, 3)]
    two = Branch.resume(ledger, ROOT, [*range(6), 70])
    assert two.pages == one.pages
    one.reserve(1)
    growth = two.reserve(1)
    assert growth.copy is not None
    assert (growth.copy.source, growth.copy.tokens) == (one.pages[1], 2)
    ledger.check([one.pages, two.pages])


def test_a_prompt_that_hits_wholly_but_for_its_last_token_leaves_that_one_to_compute() -> None:
    ledger = Ledger(8, PAGE)
    leave(ledger, range(8))
    again = Branch.resume(ledger, ROOT, range(7))  # what a kernel asks for: logits come from the last token
    assert len(again) == 7
    again.reserve(1)
    again.append([7])
    assert again.tokens == list(range(8))
    again.close()
    ledger.check()


def test_equal_tokens_after_different_prefixes_never_match() -> None:
    ledger = Ledger(8, PAGE)
    leave(ledger, [1, 1, 1, 1, 9, 9, 9, 9])
    assert known(ledger, [2, 2, 2, 2, 9, 9, 9, 9]) == 0
    assert known(ledger, [9, 9, 9, 9]) == 0
    assert name(ROOT, [9] * 4) != name(name(ROOT, [1] * 4), [9] * 4)


def test_a_reused_page_loses_its_old_name_before_anybody_writes_on_it() -> None:
    ledger = Ledger(2, PAGE)
    leave(ledger, range(8))
    new = Branch(ledger, ROOT)
    new.reserve(8)  # nothing is written yet
    assert known(ledger, range(8)) == 0
    assert ledger.blocks() == {}
    new.close()
    ledger.check()


def test_twins_are_counted_twice_and_evicting_one_leaves_the_other() -> None:
    ledger = Ledger(4, PAGE)
    twins = [Branch(ledger, ROOT), Branch(ledger, ROOT)]
    for branch in twins:
        branch.reserve(4)
        branch.append([1, 2, 3, 4])
    (block,) = ledger.blocks().values()
    assert block.copies == 2
    for branch in twins:
        branch.close()
    ledger.alloc(3)
    (block,) = ledger.blocks().values()
    assert (block.copies, known(ledger, [1, 2, 3, 4])) == (1, 4)
    ledger.alloc(1)
    assert known(ledger, [1, 2, 3, 4]) == 0


def test_of_two_contents_with_one_name_the_first_stays_until_it_is_evicted_and_then_the_name_is_free() -> None:
    ledger = Ledger(2, PAGE, name=lambda parent, tokens: BlockHash(b"same"))
    first = write(ledger, [1, 2, 3, 4])
    refused = write(ledger, [5, 6, 7, 8])
    assert (known(ledger, [1, 2, 3, 4]), known(ledger, [5, 6, 7, 8])) == (4, 0)
    refused.close()
    first.close()
    ledger.alloc(2)
    assert known(ledger, [1, 2, 3, 4]) == 0
    ledger.drop([0, 1])  # type: ignore[list-item]  # a page is a number
    leave(ledger, [5, 6, 7, 8])
    assert known(ledger, [5, 6, 7, 8]) == 4


def test_clearing_frees_a_name_for_another_content() -> None:
    ledger = Ledger(2, PAGE, name=lambda parent, tokens: BlockHash(b"same"))
    leave(ledger, [1, 2, 3, 4])
    assert ledger.clear() == 1
    leave(ledger, [5, 6, 7, 8])
    assert (known(ledger, [1, 2, 3, 4]), known(ledger, [5, 6, 7, 8])) == (0, 4)


def test_tokens_that_are_said_one_by_one_fill_a_block_and_publish_it_once_it_is_full() -> None:
    ledger = Ledger(8, PAGE)
    branch = write(ledger, [1, 2])
    for token in (3, 4):
        assert ledger.blocks() == {}
        branch.reserve(1)
        branch.append([token])
    assert list(ledger.blocks()) == list(chain([1, 2, 3, 4], PAGE, ROOT))


def test_tokens_that_were_reserved_and_rejected_are_never_published() -> None:
    ledger = Ledger(8, PAGE)
    branch = write(ledger, [1, 2])
    branch.reserve(2)  # a draft of two, of which none is taken
    branch.rollback(2)
    branch.reserve(1)
    branch.append([9])
    assert known(ledger, [1, 2, 9]) == 3
    assert ledger.blocks() == {}
    branch.close()
    ledger.check()


def test_the_salt_of_a_tenant_enters_the_root_and_isolates_the_whole_chain() -> None:
    ledger = Ledger(16, PAGE)
    salted, other, plain = (root(model="m", tenant=tenant) for tenant in ("a", "b", ""))
    leave(ledger, range(10), at=salted)
    assert known(ledger, range(10), at=salted) == 10
    assert [known(ledger, range(10), at=each) for each in (other, plain, root(model="m"))] == [0, 0, 0]
    assert not set(chain(range(8), PAGE, salted)) & set(chain(range(8), PAGE, other))
    assert plain != root(model="m")  # an empty salt is a tenant of its own, not "no salt"


def test_every_part_of_a_name_counts_and_one_kind_cannot_pass_for_another() -> None:
    names = {
        root(model="m", tenant="t", adapter="x", weights="w"),
        root(model="o", tenant="t", adapter="x", weights="w"),
        root(model="m", tenant="o", adapter="x", weights="w"),
        root(model="m", tenant="t", adapter="o", weights="w"),
        root(model="m", tenant="t", adapter="x", weights="o"),
        root(model="m", tenant="t", adapter="x", weights="w", exact=False),
        root(model="m", tenant="t", adapter="w", weights="x"),
        root(model="m", tenant="tadapter:1:x", adapter="", weights="w"),
    }
    assert len(names) == 8


def test_what_was_never_computed_goes_first_then_what_was_never_used_then_ends_before_beginnings() -> None:
    ledger = Ledger(6, PAGE)
    old, new = leave(ledger, [1] * 8), leave(ledger, [2] * 8)
    unused = Branch(ledger, ROOT)
    unused.reserve(4)
    (claimed,) = unused.pages
    unused.close()
    (untouched,) = set(range(6)) - {*old, *new, claimed}
    given = [ledger.alloc(1)[0] for _ in range(6)]
    assert given == [claimed, untouched, old[1], old[0], new[1], new[0]]


def test_a_hit_page_stays_when_room_is_made_for_the_rest_of_the_same_prompt() -> None:
    ledger = Ledger(3, PAGE)
    leave(ledger, [1, 2, 3, 4])  # the oldest, and so the next to go
    leave(ledger, [9, 9, 9, 9])
    branch = write(ledger, [1, 2, 3, 4, 5, 6, 7, 8, 9])
    assert (len(branch), known(ledger, [9, 9, 9, 9])) == (9, 0)
    branch.close()
    ledger.check()


def test_an_allocation_that_fails_changes_no_count_no_order_and_no_event() -> None:
    told: list[object] = []
    ledger = Ledger(4, PAGE)
    ledger.listen(told.append)
    contexts = {"a": [1] * 4, "b": [2] * 4}
    for tokens in contexts.values():
        leave(ledger, tokens)
    taken = ledger.alloc(1)
    before, count = repr(ledger), len(told)
    with pytest.raises(OutOfPages, match="4 pages were asked for, 3 are free"):
        ledger.alloc(4)
    assert (repr(ledger), len(told)) == (before, count)
    ledger.drop(taken)
    assert victims(ledger, contexts) == ["a", "b"]


def test_two_sharers_count_two_and_one_that_leaves_leaves_one() -> None:
    ledger = Ledger(4, PAGE)
    one, two = write(ledger, range(4)), write(ledger, range(4))
    (page,) = one.pages
    counts = [ledger.refs(page)]
    two.close()
    counts.append(ledger.refs(page))
    one.close()
    counts.append(ledger.refs(page))
    assert counts == [2, 1, 0]
    before = repr(ledger)
    with pytest.raises(NotHeld, match="0 holders"):
        ledger.drop([page])
    with pytest.raises(NotHeld, match="given back 2 times"):
        ledger.drop([page, page])
    assert repr(ledger) == before


def test_clearing_spares_what_is_in_use_and_afterwards_drops_every_name_and_priority() -> None:
    ledger = Ledger(8, PAGE)
    snapshot = frozen(ledger, range(8))
    ledger.hold("a", snapshot, until=9.0, budget=8)
    snapshot.close()
    ledger.retain("b", leave(ledger, [7] * 8), [Range(0, None, 80)])
    assert ledger.clear() == 2
    ledger.check()
    assert (known(ledger, range(8)), known(ledger, [7] * 8)) == (8, 0)
    ledger.release("a")
    assert ledger.clear() == 2
    assert (ledger.free, ledger.blocks(), known(ledger, range(8))) == (8, {}, 0)
    ledger.check()


def test_hits_end_at_a_lost_middle_block_and_what_lies_behind_it_can_be_reclaimed() -> None:
    ledger = Ledger(3, PAGE, rank=lambda page: (abs(page.depth - 1),))
    leave(ledger, range(12))
    ledger.alloc(1)
    assert known(ledger, range(12)) == 4
    ledger.alloc(2)
    assert (ledger.available, ledger.blocks()) == (0, {})


def test_a_block_behind_a_gap_is_found_again_when_the_gap_is_computed_again() -> None:
    ledger = Ledger(3, PAGE, rank=lambda page: (abs(page.depth - 1),))
    leave(ledger, range(12))
    gap = ledger.alloc(1)
    ledger.drop(gap)
    write(ledger, range(8)).close()
    assert known(ledger, range(12)) == 12


def test_closing_a_session_gives_up_what_no_other_one_stands_on() -> None:
    ledger = Ledger(8, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    system = [7] * 4
    leave(ledger, [*system, 1, 1, 1, 1])  # a conversation that waits for a person, held by nothing
    write(ledger, [*system, 2, 2, 2, 2]).close(stale=True)
    ledger.alloc(6)  # all that is free, and one more
    assert known(ledger, [*system, 2, 2, 2, 2]) == 4
    assert known(ledger, [*system, 1, 1, 1, 1]) == 8
    ledger.alloc(1)
    assert known(ledger, [*system, 1, 1, 1, 1]) == 4  # the beginning was not given up with the other's end


def test_what_was_given_up_and_taken_up_again_counts_as_alive() -> None:
    ledger = Ledger(8, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    system = [7] * 4
    leave(ledger, [*system, 1, 1, 1, 1], stale=True)
    leave(ledger, [*system, 1, 1, 1, 1])  # somebody came back
    leave(ledger, [*system, 2, 2, 2, 2], stale=True)
    ledger.check()
    ledger.alloc(7)
    assert known(ledger, [*system, 1, 1, 1, 1]) == 4


def test_a_context_is_given_up_whole_in_whatever_order_its_pages_are_given_back() -> None:
    ledger = Ledger(4, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    contexts = {"live": [1] * 8, "gone": [2] * 8}
    leave(ledger, contexts["live"])
    branch = write(ledger, contexts["gone"])
    pages = branch.pages
    ledger.take(pages)
    branch.close()
    ledger.drop(pages, stale=True)  # the beginning first
    ledger.check()
    assert victims(ledger, contexts) == ["gone", "gone", "live", "live"]


def test_a_late_release_of_an_earlier_lease_does_not_end_the_next_one_of_that_key() -> None:
    ledger = Ledger(8, PAGE)
    snapshot = frozen(ledger, range(8))
    first = ledger.hold("a", snapshot, until=9.0, budget=8)
    assert ledger.release("a") == first
    second = ledger.hold("a", snapshot, until=9.0, budget=8)
    assert ledger.release("a", number=first.number, stale=True) is None
    assert ledger.leases["a"] == second
    assert ledger.release("a", number=second.number) == second
    snapshot.close()
    ledger.check()


def test_what_was_superseded_ranks_below_what_is_alive_and_is_alive_again_when_it_is_taken_up() -> None:
    ledger = Ledger(4, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    leave(ledger, [1] * 8)
    leave(ledger, [2] * 8, stale=True)
    assert victims(ledger, {"live": [1] * 8, "superseded": [2] * 8})[:2] == ["superseded", "superseded"]
    ledger = Ledger(4, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    leave(ledger, [2] * 8, stale=True)
    leave(ledger, [1] * 8)
    write(ledger, [2] * 8).close()
    assert victims(ledger, {"live": [1] * 8, "again": [2] * 8})[:2] == ["live", "live"]


def test_a_rollback_and_a_demotion_at_once_change_what_goes_first() -> None:
    ledger = Ledger(6, PAGE, rank=lambda page: (0 if page.stale else 1, page.used, -page.depth))
    contexts = {"a": [1] * 8, "b": [2] * 8, "c": [3] * 8}
    pages = {key: leave(ledger, tokens) for key, tokens in contexts.items()}
    assert ledger.demote(pages["c"]) == 2
    assert ledger.demote(pages["c"]) == 2  # once more changes nothing
    assert victims(ledger, contexts) == ["c", "c", "a", "a", "b", "b"]


def test_a_demotion_spares_what_is_held_and_what_others_stand_on() -> None:
    ledger = Ledger(8, PAGE)
    system = [7] * 4
    mine = leave(ledger, [*system, 1, 1, 1, 1])
    leave(ledger, [*system, 2, 2, 2, 2])
    held = write(ledger, [3] * 8)
    assert ledger.demote(mine) == 1
    assert ledger.demote(held.pages) == 0
    ledger.check([held.pages])
    held.close()
    ledger.check()


def test_priorities_end_with_the_content_of_their_page() -> None:
    ledger = Ledger(1, PAGE)
    (page,) = leave(ledger, [1] * 4)
    assert ledger.retain("a", [page], [Range(0, None, 80)]) == 1
    assert ledger.priority(page) == 80
    ledger.alloc(1)
    assert ledger.priority(page) == DEFAULT_PRIORITY
    assert ledger.forgo("a") == 0


def test_leases_that_were_replaced_or_released_leave_nothing_behind() -> None:
    ledger = Ledger(4, PAGE)
    snapshot = frozen(ledger, range(8))
    for until in range(1, 1000):
        ledger.hold("a", snapshot, until=float(until), budget=4)
    assert len(ledger._leases.expiry) < 200
    assert ledger.soonest == 999.0
    ledger.release("a")
    snapshot.close()
    ledger.check()
    assert ledger.soonest is None
