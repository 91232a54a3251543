"""The lease table of the vLLM connector: answers, budget, ends, the order of giving way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from sostenuto.runtime.engines.vllm.leases import REMEMBERED, Answer, Leases, Offer, Terms
from sostenuto.runtime.engines.vllm.wishes import Nonsense, Wish, perform, read_wish


def offered(
    leases: Leases, key: str, blocks: Iterable[int], seconds: float = 10.0, now: float = 0.0, **more: Any
) -> Answer:
    """A request of the session comes and ends at once."""
    turn = leases.arrive()
    answer, _ = leases.lease(Offer(key, turn, tuple(blocks), seconds, **more), now)
    return answer


def held(leases: Leases) -> dict[str, list[int]]:
    return {lease.key: lease.blocks for lease in leases}


def always(block: int) -> bool:
    return True


def test_a_lease_that_fits_is_accepted_and_names_the_blocks_nobody_held_before() -> None:
    leases = Leases(10)
    offered(leases, "a", [1, 2, 3])
    answer, fresh = leases.lease(Offer("b", leases.arrive(), (1, 2, 7), 10), 0.0)
    assert (answer.answer, answer.blocks, answer.of, answer.seconds) == ("accepted", 3, 3, 10)
    assert fresh == [7]
    assert leases.held == 4


def test_what_does_not_fit_the_budget_is_clipped_to_its_head() -> None:
    leases = Leases(5)
    offered(leases, "a", [1, 2, 3])
    answer = offered(leases, "b", [4, 5, 6])
    assert (answer.answer, answer.blocks, answer.of) == ("clipped", 2, 3)
    assert answer.why == "2 of 3 blocks fit the budget of 5, 3 held"
    assert held(leases)["b"] == [4, 5]


def test_where_nothing_fits_the_lease_is_refused_with_the_reason_which_a_later_hold_hears_too() -> None:
    leases = Leases(3)
    offered(leases, "a", [1, 2, 3])
    answer = offered(leases, "b", [4])
    assert (answer.answer, answer.why) == ("refused", "0 of 1 blocks fit the budget of 3, 3 held")
    assert leases.hold("b", 60, 0.0).why == f"its last lease has ended: refused: {answer.why}"


def test_a_request_that_fills_no_block_is_refused() -> None:
    assert offered(Leases(3), "a", []).answer == "refused"


def test_blocks_that_another_lease_holds_cost_nothing() -> None:
    leases = Leases(3)
    offered(leases, "a", [1, 2, 3])
    assert offered(leases, "b", [1, 2, 3]).answer == "accepted"


def test_a_session_may_set_itself_a_limit() -> None:
    answer = offered(Leases(9), "a", [1, 2, 3], most=2)
    assert (answer.answer, answer.blocks, answer.why) == (
        "clipped",
        2,
        "2 of 3 blocks fit its session's limit of 2",
    )


def test_a_lease_that_is_worth_nothing_in_part_is_refused_instead_of_clipped() -> None:
    leases = Leases(2)
    assert offered(leases, "a", [1, 2, 3], whole=True).answer == "refused"
    assert leases.held == 0


@pytest.mark.parametrize("verb", ["hold", "demote", "release", "close"])
def test_a_session_that_holds_nothing_is_missing(verb: str) -> None:
    answer = perform(Leases(5), {"session": "a", "verb": verb, "seconds": 1}, 0.0)
    assert (answer.answer, answer.why) == ("missing", "no finished request of this session left one")


def test_a_hold_lengthens_and_shortens() -> None:
    leases = Leases(5)
    offered(leases, "a", [1], seconds=2)
    assert leases.hold("a", 60, 1.0).answer == "accepted"
    leases.expire(60.9)
    assert held(leases) == {"a": [1]}
    leases.hold("a", 1, 60.9)
    leases.expire(61.9)
    assert held(leases) == {}


def test_more_seconds_than_a_lease_may_last_are_clipped() -> None:
    leases = Leases(5, longest=100)
    offered(leases, "a", [1])
    answer = leases.hold("a", 500, 0.0)
    assert (answer.answer, answer.seconds) == ("clipped", 100)
    assert "500 s are more than the 100 s" in answer.why


def test_everything_that_was_answered_is_counted() -> None:
    leases = Leases(2)
    offered(leases, "a", [1, 2, 3])
    offered(leases, "b", [4])
    leases.release("a", 0.0)
    leases.release("a", 0.0)
    assert leases.results == {
        ("lease", "clipped"): 1,
        ("lease", "refused"): 1,
        ("release", "accepted"): 1,
        ("release", "missing"): 1,
    }
    assert leases.ends == {"released": 1}


def test_a_newer_turn_supersedes_what_its_session_held() -> None:
    leases = Leases(3)
    offered(leases, "a", [1, 2, 3])
    assert offered(leases, "a", [1, 5, 6]).answer == "accepted"
    assert held(leases) == {"a": [1, 5, 6]}
    assert leases.ends == {"superseded": 1}


def test_of_two_turns_the_one_that_came_later_wins_though_the_other_ends_last() -> None:
    leases = Leases(5)
    first, second = leases.arrive(), leases.arrive()
    leases.lease(Offer("a", second, (1, 2), 10), 0.0)
    answer, fresh = leases.lease(Offer("a", first, (3, 4), 10), 0.0)
    assert (answer.answer, answer.why, fresh) == ("refused", "a later request of the session has left its own", [])
    assert held(leases) == {"a": [1, 2]}


def test_a_turn_that_runs_while_its_session_is_closed_leaves_nothing_and_the_next_one_does() -> None:
    leases = Leases(5)
    turn = leases.arrive()
    leases.close("a", 0.0)
    answer, _ = leases.lease(Offer("a", turn, (1,), 10), 0.0)
    assert (answer.answer, answer.why) == ("refused", "the session was closed while this request ran")
    assert offered(leases, "a", [1]).answer == "accepted"


def test_a_turn_that_was_broken_off_does_not_shorten_its_sessions_hold() -> None:
    leases = Leases(5)
    offered(leases, "a", [1, 2], seconds=60)
    assert offered(leases, "a", [1, 2, 3], seconds=2, broken=True).seconds == 60
    assert held(leases) == {"a": [1, 2, 3]}


def test_a_turn_that_was_broken_off_early_leaves_its_sessions_hold_alone() -> None:
    leases = Leases(5)
    offered(leases, "a", [1, 2], seconds=60)
    assert offered(leases, "a", [], seconds=2, broken=True).answer == "refused"
    assert held(leases) == {"a": [1, 2]}


def test_expiry_gives_blocks_back_once_tails_first() -> None:
    leases = Leases(9)
    offered(leases, "a", [1, 2, 3], seconds=5)
    offered(leases, "b", [1, 7], seconds=9)
    leases.expire(5.0)
    assert leases.take() == [3, 2]
    leases.expire(9.0)
    assert (leases.take(), leases.take()) == ([7, 1], [])
    assert leases.ends == {"expired": 2}


def test_under_pressure_the_demoted_go_first_then_those_that_end_soonest_and_tails_before_heads() -> None:
    leases = Leases(99)
    offered(leases, "late", [1, 2, 3], seconds=90)
    offered(leases, "soon", [4, 5, 6], seconds=10)
    offered(leases, "demoted", [7, 8], seconds=99)
    leases.demote("demoted", 0.0)
    assert leases.relieve(4, always) == 4
    assert leases.take() == [8, 7, 6, 5]
    assert held(leases) == {"late": [1, 2, 3], "soon": [4]}
    assert (leases.yielded, leases.ends) == (4, {"gave way": 1})


def test_pressure_takes_no_more_than_makes_room() -> None:
    leases = Leases(99)
    offered(leases, "a", [1, 2, 3, 4])
    assert leases.relieve(2, lambda block: block != 4) == 2
    assert held(leases) == {"a": [1]}


def test_a_demoted_lease_gives_way_to_a_new_one_that_does_not_fit() -> None:
    leases = Leases(4)
    offered(leases, "a", [1, 2, 3, 4])
    leases.demote("a", 0.0)
    assert offered(leases, "b", [5, 6]).answer == "accepted"
    assert held(leases) == {"a": [1, 2], "b": [5, 6]}


def test_a_hold_takes_a_demotion_back_and_tells_what_pressure_has_left() -> None:
    leases = Leases(9)
    offered(leases, "a", [1, 2])
    leases.demote("a", 0.0)
    leases.relieve(1, always)
    answer = leases.hold("a", 60, 0.0)
    assert (answer.answer, answer.blocks, answer.why) == ("clipped", 1, "1 of 2 blocks are left of it")
    offered(leases, "b", [5], seconds=5)
    leases.relieve(1, always)
    assert held(leases) == {"a": [1]}


def test_what_is_remembered_of_the_past_is_bounded() -> None:
    leases = Leases(2)
    for number in range(REMEMBERED + 10):
        offered(leases, f"s{number}", [1])
        leases.close(f"s{number}", 0.0)
    assert leases.hold("s0", 1, 0.0).why == "no finished request of this session left one"
    assert leases.hold(f"s{REMEMBERED}", 1, 0.0).why == "its last lease has ended: closed"


@pytest.mark.parametrize("params", [None, {}, {"do_remote_decode": True}, 5])
def test_a_request_that_asks_nothing_of_us_is_left_alone(params: object) -> None:
    assert read_wish(params) is None


def test_a_wish_is_read() -> None:
    params = {"sostenuto": {"session": "a", "lease_s": 3, "tokens": 64}, "other": 1}
    assert read_wish(params) == Wish("a", 3.0, 64)


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        (7, "sostenuto: found 7; expected an object of lease_s, session, tokens"),
        ({"session": "a", "ttl": 3}, "expected an object of lease_s, session, tokens"),
        ({}, "session: found None; expected a text of 1 to 512 characters"),
        ({"session": ""}, "session: found ''"),
        ({"session": "x" * 513}, "session: found 'xxx"),
        ({"session": ["a"]}, r"session: found \['a'\]"),
        ({"session": "a", "lease_s": "soon"}, "lease_s: found 'soon'; expected seconds, 0 to 1e"),
        ({"session": "a", "lease_s": -1}, "lease_s: found -1"),
        ({"session": "a", "lease_s": float("nan")}, "lease_s: found nan"),
        ({"session": "a", "lease_s": 10**400}, "lease_s: found 1000"),
        ({"session": "a", "lease_s": True}, "lease_s: found True"),
        ({"session": "a", "tokens": 1.5}, "tokens: found 1.5; expected how many at most"),
    ],
)
def test_a_wish_that_makes_no_sense_says_why(wish: object, message: str) -> None:
    with pytest.raises(Nonsense, match=message):
        read_wish({"sostenuto": wish})


@pytest.mark.parametrize(
    "action",
    [
        None,
        5,
        "hold",
        [],
        {},
        {"session": "a"},
        {"session": "a", "verb": ["hold"]},
        {"session": "a", "verb": "hold"},
    ],
)
def test_an_action_that_makes_no_sense_is_refused_and_harms_nobody(action: object) -> None:
    leases = Leases(5)
    offered(leases, "a", [1])
    answer = perform(leases, action, 0.0)
    assert answer.answer == "refused"
    assert "expected" in answer.why
    assert held(leases) == {"a": [1]}


@pytest.mark.parametrize("terms", [{"share": 0}, {"share": 2}, {"lease_s": -1}, {"longest_s": True}, {"share": "x"}])
def test_terms_under_which_nothing_would_work_are_refused_at_the_start(terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        Terms(**terms)
