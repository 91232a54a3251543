"""Growing, forking and going back: what is shared, what is copied, what is given up."""

from __future__ import annotations

import pytest

from sostenuto.kvstore import Branch, Copy, Growth, Ledger, NotAnAncestor, OutOfPages, holdings, root

ROOT = root(model="m")
PAGE = 4


def grown(ledger: Ledger, count: int) -> Branch:
    branch = Branch(ledger, ROOT)
    branch.reserve(count)
    branch.append(list(range(count)))
    return branch


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 7, 8])
def test_a_fork_shares_every_page_and_the_second_writer_copies_at_most_one(length: int) -> None:
    ledger = Ledger(16, PAGE)
    parent = grown(ledger, length)
    child = parent.fork()
    assert child.pages == parent.pages
    first = parent.reserve(1)
    second = child.reserve(1)
    assert first.copy is None
    if length % PAGE:
        assert second.copy == Copy(parent.pages[length // PAGE], child.pages[length // PAGE], length % PAGE)
        assert len(second.pages) == 0
    else:
        assert second.copy is None
    parent.append([100])
    child.append([200])
    assert parent.tokens[:-1] == child.tokens[:-1]
    assert parent.pages[length // PAGE] != child.pages[length // PAGE]
    ledger.check(holdings([parent, child]))


def test_a_parent_may_go_before_its_64_children() -> None:
    ledger = Ledger(200, PAGE)
    parent = grown(ledger, 10)
    children = [parent.fork() for _ in range(64)]
    grandchild = children[0].fork()
    parent.close()
    copies = 0
    for number, child in enumerate([*children, grandchild]):
        copies += child.reserve(1).copy is not None
        child.append([1000 + number])
    assert copies == 64  # the first one stood at the end of the page and could go on
    assert [child.tokens[-1] for child in children] == list(range(1000, 1064))
    ledger.check(holdings([*children, grandchild]))
    for child in [*children, grandchild]:
        child.close()
    ledger.check()
    assert ledger.available == 200


def test_a_rollback_gives_pages_up_and_the_branch_goes_on_from_there() -> None:
    ledger = Ledger(8, PAGE)
    branch = grown(ledger, 14)
    assert branch.rollback(6) == 8
    assert (len(branch), len(branch.pages)) == (6, 2)
    branch.reserve(2)
    branch.append([77, 78])
    assert branch.tokens == [0, 1, 2, 3, 4, 5, 77, 78]
    assert ledger.match(ROOT, branch.tokens).tokens(PAGE) == 8
    branch.close()
    ledger.check()


def test_going_back_to_a_snapshot_computes_nothing() -> None:
    ledger = Ledger(8, PAGE)
    branch = grown(ledger, 6)
    mark = branch.freeze()
    assert len(mark) == 6
    branch.reserve(6)
    branch.append([9] * 6)
    branch.close()
    ledger.alloc(ledger.available)  # everything that may be evicted is
    back = Branch.resume(ledger, ROOT, list(mark.tokens))
    assert len(back) == 6
    back.close()
    mark.close()


@pytest.mark.parametrize("length", [-1, 7])
def test_a_rollback_to_where_the_branch_never_was_is_refused(length: int) -> None:
    branch = grown(Ledger(4, PAGE), 6)
    with pytest.raises(NotAnAncestor, match="6 tokens"):
        branch.rollback(length)
    assert len(branch) == 6


def test_a_fork_that_cannot_copy_is_refused_and_loses_nothing() -> None:
    ledger = Ledger(2, PAGE)
    parent = grown(ledger, 6)
    child = parent.fork()
    parent.reserve(1)
    with pytest.raises(OutOfPages):
        child.reserve(1)
    parent.append([6])
    assert child.tokens == list(range(6))
    ledger.check(holdings([parent, child]))


def test_the_last_holder_writes_over_what_it_gave_up_when_no_page_is_left() -> None:
    ledger = Ledger(2, PAGE)
    branch = grown(ledger, 8)
    branch.rollback(6)
    assert branch.reserve(2) == Growth()
    branch.append([50, 51])
    assert ledger.match(ROOT, list(range(8))).tokens(PAGE) == 6
    assert ledger.match(ROOT, branch.tokens).tokens(PAGE) == 8


def test_tokens_that_were_not_reserved_are_refused() -> None:
    branch = Branch(Ledger(2, PAGE), ROOT)
    with pytest.raises(ValueError, match="reserve"):
        branch.append([1])


def test_uncomputed_tokens_are_never_found() -> None:
    ledger = Ledger(4, PAGE)
    branch = grown(ledger, 5)
    branch.reserve(3)
    branch.close()
    assert ledger.match(ROOT, list(range(8))).tokens(PAGE) == 5
    ledger.check()
