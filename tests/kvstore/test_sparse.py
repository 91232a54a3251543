"""Which tokens stay when a context must fit a budget: the published choices, on examples checked by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import scaled_dot_product_attention as attention

from sostenuto.kvstore.sparse import POLICIES, Policy, Thinned, check, h2o, keydiff, streaming, thin

every_policy = pytest.mark.parametrize("policy", POLICIES)


def drawn(*sizes: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed))


# -- all policies


@every_policy
@given(
    layers=st.integers(1, 3),
    heads=st.integers(1, 3),
    length=st.integers(1, 40),
    budget=st.integers(5, 50),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_a_policy_keeps_what_the_budget_allows_in_order_and_nothing_twice(
    policy: str, layers: int, heads: int, length: int, budget: int, seed: int
) -> None:
    keys, mass = drawn(layers, heads, length, 8, seed=seed), drawn(layers, heads, length, seed=seed).exp()
    before = keys.clone(), mass.clone()
    thinned = thin(policy, keys, budget, mass=mass)
    assert thinned.kept.shape == (layers, heads, min(length, budget))
    assert (thinned.kept.diff() > 0).all()
    assert (len(thinned), thinned.length, thinned.policy) == (min(length, budget), length, policy)
    assert torch.equal(thin(policy, keys.clone(), budget, mass=mass.clone()).kept, thinned.kept)
    assert torch.equal(before[0], keys)
    assert torch.equal(before[1], mass)


@every_policy
def test_what_fits_is_kept_whole_and_is_not_lossy(policy: str) -> None:
    keys, mass = drawn(2, 3, 12, 8), torch.ones(2, 3, 12)
    for budget in (12, 13, 10**9):
        thinned = thin(policy, keys, budget, mass=mass)
        assert thinned.exact
        assert thinned.kept.tolist() == [[list(range(12))] * 3] * 2
        assert "lossy" not in repr(thinned)
    assert not thin(policy, keys, 11, mass=mass).exact
    assert repr(thin(policy, keys, 11, mass=mass)) == f"<Thinned 11/12 by {policy}, lossy>"


@pytest.mark.parametrize("budget", range(-1, 8))
@every_policy
def test_what_thinning_a_long_context_would_refuse_is_refused_beforehand(policy: str, budget: int) -> None:
    keys, mass = drawn(1, 1, 40, 4), torch.ones(1, 1, 40)
    try:
        thin(policy, keys, budget, mass=mass)
    except ValueError as error:
        with pytest.raises(ValueError, match=str(error)):
            check(policy, budget)
    else:
        check(policy, budget)
    with pytest.raises(ValueError, match="'lru' is unknown"):
        check("lru", budget)


@every_policy
def test_a_budget_of_nothing_is_refused(policy: str) -> None:
    with pytest.raises(ValueError, match="a budget of 0 tokens"):
        thin(policy, drawn(1, 1, 12, 8), 0, mass=torch.ones(1, 1, 12))


@every_policy
@pytest.mark.parametrize("budget", [6, 12])
def test_attention_to_what_was_kept_is_attention_that_does_not_see_the_rest(policy: str, budget: int) -> None:
    """With nothing dropped, that is the attention to the full cache."""
    block, query = drawn(2, 2, 3, 12, 8), drawn(2, 3, 1, 8, seed=1)
    thinned = thin(policy, block[:, 0], budget, mass=drawn(2, 3, 12, seed=2).exp())
    kept = thinned.take(block)
    assert kept.shape == (2, 2, 3, budget, 8)
    seen = torch.zeros(2, 3, 12, dtype=torch.bool).scatter(2, thinned.kept, True)
    expected = attention(query, block[:, 0], block[:, 1], attn_mask=seen[:, :, None])
    assert torch.allclose(attention(query, kept[:, 0], kept[:, 1]), expected, atol=1e-6)
    assert torch.equal(kept, block) == (budget == 12)


def test_policies_are_plain_functions_by_their_names() -> None:
    mine: Policy = POLICIES["keydiff"]
    keys = drawn(1, 2, 9, 4)
    assert torch.equal(mine(keys, None, 5), keydiff.keep(keys, 5))
    with pytest.raises(ValueError, match="'lru' is unknown: give one of streaming, h2o, keydiff"):
        thin("lru", keys, 5)


def test_h2o_without_attention_or_with_another_contexts_is_refused() -> None:
    keys = drawn(1, 2, 9, 4)
    with pytest.raises(ValueError, match=r"h2o\.mass"):
        thin("h2o", keys, 5)
    with pytest.raises(ValueError, match=r"found attention mass \[1, 2, 8\]; expected \[1, 2, 9\]"):
        thin("h2o", keys, 5, mass=torch.ones(1, 2, 8))


# -- what was kept


def test_every_head_takes_its_own_tokens() -> None:
    block = torch.arange(2 * 2 * 2 * 4.0).view(2, 2, 2, 4, 1)
    kept = torch.tensor([[[0, 1], [2, 3]], [[0, 3], [1, 2]]])
    taken = Thinned(kept, 4, "by hand").take(block)[..., 0]
    assert taken[:, 0].tolist() == [[[0, 1], [6, 7]], [[16, 19], [21, 22]]]
    assert torch.equal(taken[:, 1], taken[:, 0] + 8)


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (torch.tensor([[[0, 2, 2]]]), "ascend"),
        (torch.tensor([[[1, 0]]]), "ascend"),
        (torch.tensor([[[0, 4]]]), "0 to 4 are kept of a context of 4"),
        (torch.tensor([[[-1, 2]]]), "-1 to 2"),
        (torch.tensor([[0, 1]]), "expected int64"),
        (torch.tensor([[[0.0, 1.0]]]), "expected int64"),
        (torch.empty(1, 1, 0, dtype=torch.int64), "none empty"),
    ],
)
def test_positions_that_are_not_of_the_context_are_refused(kept: torch.Tensor, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Thinned(kept, 4, "by hand")


@pytest.mark.parametrize("sizes", [(1, 2, 1, 3, 8), (2, 2, 1, 4, 8), (1, 2, 2, 4, 8), (1, 1, 1, 4, 8), (1, 2, 1, 4)])
def test_tokens_are_not_taken_from_another_context(sizes: tuple[int, ...]) -> None:
    thinned = Thinned(torch.tensor([[[0, 3]]]), 4, "by hand")
    with pytest.raises(ValueError, match=r"expected \[1, 2, 1, 4, head_dim\]"):
        thinned.take(torch.zeros(sizes))


# -- StreamingLLM


def test_streaming_keeps_four_sinks_and_the_latest() -> None:
    assert streaming.keep(10, 6).tolist() == [0, 1, 2, 3, 8, 9]
    assert streaming.keep(10, 9).tolist() == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert streaming.keep(10, 3, sinks=1).tolist() == [0, 8, 9]
    assert streaming.keep(10, 2, sinks=0).tolist() == [8, 9]


@given(length=st.integers(1, 300), budget=st.integers(1, 300), sinks=st.integers(0, 8))
@settings(deadline=None)
def test_the_sinks_and_the_last_token_are_always_there(length: int, budget: int, sinks: int) -> None:
    if budget <= sinks and budget < length:
        with pytest.raises(ValueError, match=f"a budget of {budget} tokens was given; this policy needs {sinks + 1}"):
            streaming.keep(length, budget, sinks=sinks)
        return
    kept = streaming.keep(length, budget, sinks=sinks).tolist()
    assert set(range(min(sinks, length))) | {length - 1} <= set(kept)


FREQUENCIES = 10_000.0 ** -(torch.arange(0, 16, 2) / 16)


def placed(keys: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """Keys after a rotary embedding, written with complex numbers."""
    turn = torch.polar(torch.ones(()), positions[..., None].float() * FREQUENCIES)
    turned = torch.complex(*keys.chunk(2, dim=-1)) * turn
    return torch.cat((turned.real, turned.imag), dim=-1)


def test_a_key_that_is_moved_is_the_key_of_the_other_place() -> None:
    plain, positions, shift = drawn(2, 3, 20, 16), torch.arange(20) + 100, -torch.arange(20) * 5
    moved = streaming.rotate(placed(plain, positions), shift, FREQUENCIES)
    assert torch.allclose(moved, placed(plain, positions + shift), atol=2e-5)
    assert not torch.allclose(moved, placed(plain, positions), atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_key_that_stays_is_not_touched(dtype: torch.dtype) -> None:
    keys = drawn(2, 3, 5, 16).to(dtype)
    assert torch.equal(streaming.rotate(keys, torch.zeros(5, dtype=torch.int64), FREQUENCIES), keys)


def test_closing_the_gaps_gives_the_places_in_the_cache() -> None:
    plain, kept = drawn(1, 2, 30, 16), streaming.keep(30, 9)
    shift = streaming.shifts(kept)
    assert shift.tolist() == [0, 0, 0, 0, -21, -21, -21, -21, -21]
    stored = placed(plain, torch.arange(30))[:, :, kept]
    moved = streaming.rotate(stored, shift, FREQUENCIES)
    assert torch.allclose(moved, placed(plain[:, :, kept], torch.arange(9)), atol=2e-5)


def test_heads_that_are_rotated_in_part_are_refused() -> None:
    with pytest.raises(ValueError, match="rotated in part"):
        streaming.rotate(drawn(1, 4, 32), torch.zeros(4), FREQUENCIES)


# -- H2O


def test_h2o_keeps_the_heaviest_and_the_latest_in_equal_parts() -> None:
    mass = torch.tensor([9.0, 1.0, 7.0, 8.0, 2.0, 0.1, 0.2, 0.3])
    assert h2o.keep(mass, 4).tolist() == [0, 3, 6, 7]
    assert h2o.keep(mass, 5).tolist() == [0, 2, 3, 6, 7]
    assert h2o.keep(mass, 4, recent=1).tolist() == [0, 2, 3, 7]
    assert h2o.keep(mass, 4, recent=0).tolist() == [0, 2, 3, 4]
    assert h2o.keep(mass, 4, recent=4).tolist() == [4, 5, 6, 7]


def test_every_head_has_heavy_hitters_of_its_own() -> None:
    mass = torch.tensor([[5.0, 1.0, 1.0, 0.0], [1.0, 1.0, 5.0, 0.0]])
    assert h2o.keep(mass, 2).tolist() == [[0, 3], [2, 3]]


def test_of_equally_heavy_tokens_the_earlier_stay() -> None:
    assert h2o.keep(torch.ones(10), 6).tolist() == [0, 1, 2, 7, 8, 9]


@given(
    weights=st.lists(st.integers(0, 6), min_size=2, max_size=25),
    budget=st.integers(1, 25),
    share=st.floats(0, 1),
)
@settings(deadline=None)
def test_thinning_at_once_is_dropping_the_lightest_one_by_one(weights: list[int], budget: int, share: float) -> None:
    """The greedy rule of the paper, for which the latest are out of reach; of equals the later goes first."""
    recent = int(share * budget)
    left = list(range(len(weights)))
    while len(left) > budget:
        old = left[: len(left) - recent]
        left.remove(min(old, key=lambda token: (weights[token], -token)))
    assert h2o.keep(torch.tensor(weights).float(), budget, recent=recent).tolist() == left


def test_more_latest_tokens_than_the_budget_are_refused() -> None:
    for recent in (-1, 5):
        with pytest.raises(ValueError, match=f"{recent} latest tokens"):
            h2o.keep(torch.ones(10), 4, recent=recent)
        with pytest.raises(ValueError, match=f"{recent} latest tokens"):
            keydiff.keep(torch.ones(10, 4), 4, recent=recent)


def test_mass_is_what_attention_gives_summed_over_queries_and_the_heads_that_share_a_key() -> None:
    queries, keys = drawn(6, 300, 8), drawn(2, 300, 8, seed=1)
    logits = queries.view(2, 3, 300, 8) @ keys[:, None].transpose(2, 3) * 0.3
    seen = torch.ones(300, 300).tril().bool()
    expected = logits.masked_fill(~seen, float("-inf")).softmax(-1).sum((1, 2))
    found = h2o.mass(queries, keys, scale=0.3)
    assert torch.allclose(found, expected, rtol=1e-4)
    assert float(found.sum()) == pytest.approx(6 * 300, rel=1e-5)


@pytest.mark.parametrize("cut", [1, 7, 199])
def test_masses_of_pieces_add_up(cut: int) -> None:
    queries, keys = drawn(4, 200, 8), drawn(2, 200, 8, seed=1)
    early = h2o.mass(queries[:, :cut], keys[:, :cut], scale=0.5)
    late = h2o.mass(queries[:, cut:], keys, scale=0.5)
    late[:, :cut] += early
    assert torch.allclose(late, h2o.mass(queries, keys, scale=0.5), rtol=1e-4)


# -- KeyDiff


def test_keydiff_keeps_the_keys_that_stand_apart() -> None:
    keys = torch.tensor([[1.0, 0.0]] * 6)
    keys[2] = torch.tensor([0.0, 3.0])
    keys[4] = torch.tensor([-1.0, 0.1])
    assert keydiff.keep(keys, 1).tolist() == [4]
    assert keydiff.keep(keys, 2).tolist() == [2, 4]
    assert keydiff.keep(keys, 3).tolist() == [0, 2, 4]
    assert keydiff.keep(keys, 3, recent=1).tolist() == [2, 4, 5]


def test_likeness_is_the_cosine_with_the_mean_of_directions() -> None:
    keys = torch.tensor([[10.0, 0.0], [0.0, 0.1]])
    assert torch.allclose(keydiff.likeness(keys), torch.full((2,), 0.5**0.5))


def test_the_length_of_a_key_does_not_matter() -> None:
    keys = drawn(2, 3, 30, 8)
    longer = keys * torch.linspace(0.1, 9, 30)[:, None]
    assert torch.equal(keydiff.keep(longer, 11), keydiff.keep(keys, 11))


def test_every_head_has_an_anchor_of_its_own() -> None:
    keys = drawn(2, 3, 30, 8)
    for layer in range(2):
        for head in range(3):
            assert torch.equal(keydiff.keep(keys, 11)[layer, head], keydiff.keep(keys[layer, head], 11))


def test_of_keys_equally_unlike_the_earlier_stay_and_a_key_of_zeros_harms_nobody() -> None:
    assert keydiff.keep(torch.ones(10, 4), 3).tolist() == [0, 1, 2]
    keys = torch.ones(10, 4)
    keys[6] = 0
    assert keydiff.keep(keys, 1).tolist() == [6]
