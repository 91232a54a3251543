"""The orders of eviction, carried out by a ledger: what each of them keeps, and what it gives up first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from sostenuto.kvstore import BlockHash, Ledger, Range, Rank, name, oldest_first
from sostenuto.scheduler import Costs
from sostenuto.scheduler.policies.evict import by_cost, by_next_use, by_priority, stale_first
from sostenuto.tests.kvstore.room import PAGE, ROOT, known, leave, victims, write

COSTS = Costs(step_s=0.0, token_s=1e-3, pair_s=1e-6, turn_s=0.0, seen_s=0.0)


def test_least_recently_used_knows_nothing_but_when() -> None:
    ledger = Ledger(6, PAGE, rank=oldest_first)
    contexts = {"a": [1] * 8, "b": [2] * 8, "c": [3] * 8}
    for key, tokens in contexts.items():
        leave(ledger, tokens, stale=key == "b")
    write(ledger, contexts["a"]).close()
    assert victims(ledger, contexts) == ["b", "b", "c", "c", "a", "a"]


def test_the_given_up_go_before_a_low_priority_and_the_raised_stay_though_given_up() -> None:
    ledger = Ledger(8, PAGE, rank=stale_first)
    contexts = {"low": [1] * 8, "plain": [2] * 8, "gone": [3] * 8, "raised": [4] * 8}
    pages = {key: leave(ledger, tokens, stale=key in ("gone", "raised")) for key, tokens in contexts.items()}
    ledger.retain("low", pages["low"], [Range(0, None, 10)])
    ledger.retain("raised", pages["raised"], [Range(0, None, 80)])
    order = ["gone", "gone", "low", "low", "plain", "plain", "raised", "raised"]
    assert victims(ledger, contexts) == order


def test_by_priority_goes_by_the_claims_alone() -> None:
    ledger = Ledger(4, PAGE, rank=by_priority)
    contexts = {"low": [1] * 8, "gone": [2] * 8}
    pages = {key: leave(ledger, tokens, stale=key == "gone") for key, tokens in contexts.items()}
    ledger.retain("low", pages["low"], [Range(0, 4, 36), Range(4, None, 10)])
    assert victims(ledger, contexts) == ["low", "gone", "gone", "low"]


def names(tokens: Sequence[int]) -> list[BlockHash]:
    """Of all blocks, the unfinished one too."""
    parents, found = ROOT, []
    for start in range(0, len(tokens), PAGE):
        parents = name(parents, tokens[start : start + PAGE])
        found.append(parents)
    return found


def test_by_next_use_gives_up_what_is_never_wanted_then_what_is_wanted_last_unfinished_blocks_too() -> None:
    contexts = {"soon": [1] * 6, "never": [2] * 6, "late": [3] * 6}
    uses = {"soon": 1.0, "late": 9.0}
    table = {block: uses[key] for key in uses for block in names(contexts[key])}
    ledger = Ledger(6, PAGE, rank=by_next_use(table))
    for tokens in contexts.values():
        leave(ledger, tokens)
    assert victims(ledger, contexts) == ["never", "never", "late", "late", "soon", "soon"]


def test_by_next_use_an_unfinished_block_has_a_future_of_its_own() -> None:
    one, two = [1] * 6, [2] * 6
    table = dict(zip(names(one), (5.0, math.inf), strict=True)) | dict.fromkeys(names(two), 9.0)
    ledger = Ledger(4, PAGE, rank=by_next_use(table))
    for tokens in (one, two):
        leave(ledger, tokens)
    assert victims(ledger, {"one": one, "two": two}) == ["one", "two", "two", "one"]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(1, 5))
@settings(deadline=None)
def test_no_order_misses_less_often_than_the_one_that_knows_the_future(wanted: list[int], room: int) -> None:
    def misses(rank: Rank, table: dict[BlockHash, float]) -> int:
        ledger, count = Ledger(room, PAGE, rank=rank), 0
        for index, which in enumerate(wanted):
            tokens = [which] * PAGE
            later = [at for at in range(index + 1, len(wanted)) if wanted[at] == which]
            table[names(tokens)[0]] = later[0] if later else math.inf
            count += known(ledger, tokens) == 0
            leave(ledger, tokens)
        return count

    future: dict[BlockHash, float] = {}
    best = misses(by_next_use(future), future)
    assert best <= misses(oldest_first, {})
    assert best <= misses(stale_first, {})
    assert best >= len(set(wanted))


def test_by_cost_tells_the_end_of_a_long_context_from_a_short_one() -> None:
    ledger = Ledger(12, PAGE, rank=by_cost(COSTS))
    contexts = {"long": [1] * 32, "short": [2] * 8, "gone": [3] * 8}
    for key, tokens in contexts.items():
        leave(ledger, tokens, stale=key == "gone")
    assert victims(ledger, contexts) == ["gone"] * 2 + ["short"] * 2 + ["long"] * 8


def test_by_cost_a_page_is_worth_what_lies_in_it_not_what_once_did() -> None:
    ledger = Ledger(8, PAGE, rank=by_cost(COSTS))
    leave(ledger, [1] * 32)
    ledger.clear()
    contexts = {"longer": [2] * 16, "short": [3] * 8}
    for tokens in contexts.values():
        leave(ledger, tokens)
    assert victims(ledger, contexts) == ["short"] * 2 + ["longer"] * 4


def test_by_cost_the_dear_ages_too_once_enough_has_gone_without_it() -> None:
    ledger = Ledger(10, PAGE, rank=by_cost(COSTS))
    dear = [1] * 32
    leave(ledger, dear)
    rounds = 0
    while known(ledger, dear) == 32 and rounds < 1000:
        rounds += 1
        leave(ledger, [100 + rounds] * 8)
    assert 2 < rounds < 1000


def test_by_cost_a_shared_beginning_stays_as_long_as_the_dearest_context_on_it() -> None:
    ledger = Ledger(9, PAGE, rank=by_cost(COSTS))
    system = [7] * 4
    contexts = {"long": [*system, *[1] * 28], "short": [*system, *[2] * 4]}
    leave(ledger, contexts["long"])
    leave(ledger, contexts["short"])  # the beginning was released with this one last
    ledger.alloc(1)
    assert (known(ledger, contexts["long"]), known(ledger, contexts["short"])) == (32, 4)
    ledger.alloc(7)
    assert known(ledger, contexts["long"]) == 4


def test_the_cost_of_a_context_grows_faster_than_its_length() -> None:
    assert COSTS.prefill(2000) > 2 * COSTS.prefill(1000) > 0
    assert COSTS.per_token(2000) > COSTS.per_token(1000)
    assert COSTS.per_token(0) == 0
    assert math.isclose(COSTS.prefill(1000), 1000 * 1e-3 + 1000 * 1000 / 2 * 1e-6)
