"""Sessions that were cut to a budget: what they say, where they stand, and what they share with whom."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import DynamicCache

from sostenuto.kvstore import BlockHash, PageId
from sostenuto.kvstore.sparse import POLICIES, Thinned, thin
from sostenuto.kvstore.tiers import DiskTier
from sostenuto.runtime.answer import Answer
from sostenuto.runtime.ask import Message
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.model import Piece
from sostenuto.runtime.errors import Lossy, Unable
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session
from sostenuto.scheduler import Drop, Effect, Move

from .conftest import Pair, Runner, draw
from .thinned import COLD, rows, session

pytestmark = pytest.mark.every_way

every_policy = pytest.mark.parametrize("policy", POLICIES)


@pytest.fixture
def host(tiny: Pair) -> Iterator[Host]:
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as opened:
        yield opened
        assert "0 waiting | 0 running" in opened.loop.ask()


# -- what transformers says over the same kept keys and values


@torch.inference_mode()
def read(pair: Pair, tokens: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values [layers, 2, kv_heads, tokens, dim] and the attention drawn [layers, kv_heads, tokens]."""
    cache: Any = DynamicCache()
    pair.theirs.set_attn_implementation("eager")
    told = pair.theirs(torch.tensor([list(tokens)]), past_key_values=cache, output_attentions=True)
    pair.theirs.set_attn_implementation("sdpa")
    block = torch.stack([torch.stack((layer.keys[0], layer.values[0])) for layer in cache.layers])
    heads = block.shape[2]
    drawn = [weights[0].sum(1) for weights in told.attentions]  # [heads, tokens]
    return block, torch.stack([one.reshape(heads, -1, len(tokens)).sum(1) for one in drawn])


@torch.inference_mode()
def over(pair: Pair, kept: torch.Tensor, at: int, rest: Sequence[int]) -> torch.Tensor:
    """Logits after each of `rest`, the first of which stands at position `at` behind these keys and values."""
    cache: Any = DynamicCache()
    for layer, (keys, values) in enumerate(kept):
        cache.update(keys[None], values[None], layer)
    places = torch.arange(at, at + len(rest))[None]
    logits: torch.Tensor = pair.theirs(torch.tensor([list(rest)]), position_ids=places, past_key_values=cache).logits
    return logits[0].float()


def chosen(pair: Pair, past: Sequence[int], policy: str, budget: int) -> tuple[torch.Tensor, Thinned]:
    block, mass = read(pair, past)
    found = thin(policy, block[:, 0], budget, mass=mass)
    return found.take(block), found


def agrees(answer: Answer, logits: torch.Tensor, tolerance: float) -> None:
    """Each token of an answer was as likely as these logits say, one row a token, and so were the next best."""
    told = logits.log_softmax(-1)
    for piece, row in zip(answer.pieces, told, strict=True):
        assert piece.token is not None
        assert abs(piece.logprob - float(row[piece.token])) < tolerance
        for token, logprob in piece.top:
            assert abs(logprob - float(row[token])) < tolerance


@every_policy
@pytest.mark.parametrize("family", ["llama", "qwen3", "llama3 rope", "llama with one kv head, tied"])
def test_what_follows_is_said_over_the_kept_keys_and_values_at_the_right_positions(
    make_either: Callable[..., Pair], family: str, policy: str
) -> None:
    pair = make_either(family)
    with Host(TorchEngine(pair.ours, pool_tokens=2048, chunk=32)) as host, session(host) as talk:
        talk.generate()
        past, last = talk.tokens[:-1], talk.tokens[-1]
        assert talk.thin(policy, budget=27) == len(past) - 27
        block, found = chosen(pair, past, policy, 27)
        assert not found.exact
        talk.feed(draw(40, seed=3))
        said = talk.generate()
        rest = [last, *draw(40, seed=3), *said.tokens[:-1]]
        agrees(said, over(pair, block, len(past), rest)[40:], pair.tolerance)
        talk.feed(draw(5, seed=4))  # and what was said over it is what the next answer stands on
        more = talk.generate()
        rest += [said.tokens[-1], *draw(5, seed=4), *more.tokens[:-1]]
        agrees(more, over(pair, block, len(past), rest)[53:], pair.tolerance)


@every_policy
def test_the_next_token_stands_behind_all_tokens_and_not_behind_those_that_were_kept(
    tiny: Pair, host: Host, policy: str
) -> None:
    with session(host) as talk:
        talk.thin(policy, budget=27)
        said = talk.generate()
        block, _ = chosen(tiny, draw(90)[:-1], policy, 27)
        rest = [draw(90)[-1], *said.tokens[:-1]]
        agrees(said, over(tiny, block, 89, rest), tiny.tolerance)
        wrong = over(tiny, block, 27, rest).log_softmax(-1)
        off = max(abs(piece.logprob - float(row[piece.token])) for piece, row in zip(said.pieces, wrong, strict=True))
        assert off > 100 * tiny.tolerance, "else this would not tell right positions from wrong ones"


@every_policy
def test_a_budget_that_holds_all_changes_nothing_to_the_bit(host: Host, policy: str) -> None:
    with session(host) as plain, session(host, tenant="other") as thinned:
        expected, before = plain.generate(), thinned.generate()
        assert thinned.thin(policy, budget=97) == 0
        assert thinned.exact
        for each in (plain, thinned):
            each.feed(draw(7, seed=1))
        said, wanted = thinned.generate(), plain.generate()
        assert (before.tokens, said.tokens) == (expected.tokens, wanted.tokens)
        assert (said.logprobs, said.top) == (wanted.logprobs, wanted.top)
        assert said.facts.exact


def test_an_answer_that_was_begun_before_goes_on_over_what_is_left(tiny: Pair, host: Host) -> None:
    with session(host, sampling=Sampling(max_tokens=30, logprobs=5, repetition_penalty=1.3)) as talk:
        talk.generate(10)
        talk.thin("streaming", budget=27)
        assert talk.said == 10
        rest = talk.generate(8)
        past, last = talk.tokens[:99], talk.tokens[99]
        block, _ = chosen(tiny, past, "streaming", 27)
        agrees(rest, over(tiny, block, 99, [last, *rest.tokens[:-1]]), tiny.tolerance)
        assert not set(rest.tokens) & set(past[-1:]), "and no token counts as new that was said before"


# -- the attention that tokens draw


@pytest.mark.parametrize("chunk", [7, 512])
def test_attention_is_weighed_in_any_chunks_as_it_was_given_and_nothing_is_written(tiny: Pair, chunk: int) -> None:
    runner, tokens = Runner(tiny.ours), draw(50)
    table = runner.table(50)
    runner.feed(tokens, 50, table)
    before = runner.pages._all.clone()
    mass = torch.zeros(2, 2, 50)
    for at in range(0, 50, chunk):
        tiny.ours.weigh(Piece(table, at, tokens[at : at + chunk], wants=False), runner.pages, mass)
    assert (mass - read(tiny, tokens)[1]).abs().max() < 1e-3
    assert mass.sum(-1) == pytest.approx(torch.full((2, 2), 100.0), abs=1e-3), "50 queries of two heads give one each"
    assert torch.equal(runner.pages._all, before)


@every_policy
def test_thinning_leaves_the_context_as_it_was_for_everybody_else(host: Host, policy: str) -> None:
    with session(host) as talk, session(host) as other:
        talk.generate()
        talk.rollback(90)
        expected = talk.generate()
        (twin,) = talk.fork()
        talk.thin(policy, budget=20)
        talk.generate()
        before = rows(host)
        assert other.generate().logprobs == expected.logprobs
        assert rows(host) - before == 8
        assert twin.exact
        assert twin.generate(1).facts.reused_tokens == 97


# -- who may


def test_a_session_is_exact_unless_it_was_said_to_be_otherwise(host: Host) -> None:
    with Session(host) as strict:
        strict.feed(draw(90))
        with pytest.raises(Lossy, match="exact=False"):
            strict.thin("streaming", budget=20)
        assert strict.exact
        with pytest.raises(Lossy):
            strict.fork()[0].thin("streaming", budget=20)


def test_policies_and_budgets_that_make_no_sense_are_refused_before_anything_is_computed(host: Host) -> None:
    before = rows(host)
    with session(host) as talk:
        with pytest.raises(ValueError, match="'lru' is unknown"):
            talk.thin("lru", budget=20)
        for budget in (1, 4):
            with pytest.raises(ValueError, match="needs 5"):
                talk.thin("streaming", budget=budget)
        with pytest.raises(ValueError, match="a budget of -1 tokens"):
            talk.thin("keydiff", budget=-1)
    assert rows(host) == before


def test_models_with_windows_are_not_thinned(make_either: Callable[..., Pair]) -> None:
    engine = TorchEngine(make_either("gemma3, windows in some layers").ours, pool_tokens=512)
    assert (engine.can.thin, TorchEngine.can.thin) == (False, True)
    with Host(engine) as host, session(host) as talk, pytest.raises(Unable, match="without a window"):
        talk.thin("streaming", budget=20)


def test_a_thinned_conversation_is_neither_kept_on_a_disk_nor_packed(tiny: Pair, tmp_path: Path) -> None:
    engine = TorchEngine(tiny.ours, pool_tokens=512)
    with Host(engine, below=[Below(DiskTier.open(tmp_path))]) as host, session(host) as talk:
        talk.mark("before", durable=True)
        talk.thin("streaming", budget=20)
        with pytest.raises(Lossy, match=r"20/89 by streaming.*cannot be packed"):
            talk.pack()
        with pytest.raises(Lossy, match="kept on a disk"):
            talk.mark("after", durable=True)
        talk.mark("after")
        assert host.saved.keys(tenant="default") == ["before"]


def test_nothing_thinned_is_copied_below_the_device(tiny: Pair, tmp_path: Path) -> None:
    engine, effects = TorchEngine(tiny.ours, pool_tokens=512), list[Effect]()
    with Host(engine, below=[Below(DiskTier.open(tmp_path))]) as host:
        host.loop.watch(effects.append)
        with session(host) as talk:
            talk.thin("streaming", budget=20)
            talk.generate()
            host.hint({"protocol_version": "0.1", "message_id": "m", "actions": []})
        assert "disk 0/-" in repr(host.loop.kernel.moves)
    assert [effect for effect in effects if isinstance(effect, Move | Drop)] == []


# -- who meets whom


def test_nobody_meets_what_is_thinned_but_who_has_thinned_the_same(host: Host) -> None:
    with session(host) as talk:
        talk.generate()
        talk.thin("streaming", budget=20)
        slots = [*draw(90)[:4], *talk.tokens[81:97], talk.tokens[97]]
        with session(host, slots) as alike:  # the very tokens that name its slots
            assert alike.generate().facts.reused_tokens == 4, "the whole context begins so too"
        with session(host) as exact:
            assert exact.generate().facts.reused_tokens == 89
        before = talk.generate()
        assert (before.facts.reused_tokens, before.facts.computed_tokens) == (20, 1)


@pytest.mark.parametrize("what", ["tenant", "middle", "budget", "policy"])
def test_thinned_contexts_of_others_are_never_shared(host: Host, what: str) -> None:
    tokens, budget, policy = draw(90), 20, "streaming"
    with session(host) as talk:
        talk.thin(policy, budget=budget)
        alone = talk.generate()
        changed = [*tokens[:40], tokens[40] ^ 1, *tokens[41:]] if what == "middle" else tokens
        rest = {"tenant": "other"} if what == "tenant" else {}
        with session(host, changed, **rest) as other:
            other.thin("keydiff" if what == "policy" else policy, budget=21 if what == "budget" else budget)
            said = other.generate()
        assert len(roots(host)) == (4 if what == "tenant" else 3), "an exact one for each tenant, and two of their own"
        assert (said.logprobs == alone.logprobs) == (what == "tenant"), "and each is what it would be alone"


def roots(host: Host) -> set[BlockHash]:
    """What the names of all that can be found on a host begin with."""
    ledger = host.loop.kernel.ledger
    contents = [ledger.content(PageId(page)) for page in range(ledger.room)]
    return {content.parent for content in contents if content is not None and content.depth == 0}


def test_what_is_left_has_other_names_wherever_other_positions_were_kept(host: Host) -> None:
    with session(host) as talk:
        talk.thin("keydiff", budget=27)
        remnant = talk.mark("here").remnant
    assert remnant is not None
    exact = host.root()
    others = [replace(remnant, digest=b"0" * 16), replace(remnant, budget=28), replace(remnant, policy="h2o")]
    others += [replace(remnant, past=(*remnant.past[:-1], 5))]
    roots = {each.root(exact) for each in (remnant, *others)} | {remnant.root(host.root("other")), exact}
    assert len(roots) == 7
    assert (remnant.dropped, remnant.behind(talk.tokens), remnant.behind(talk.tokens[:-1])) == (62, True, False)
    assert remnant.slots(talk.tokens) == (*remnant.kept, talk.tokens[-1])


# -- forks, marks and rollbacks


def exact(talk: Session) -> bool:
    """Asked anew each time."""
    return talk.exact


def test_a_fork_shares_what_is_left_and_says_what_its_parent_says(host: Host) -> None:
    with session(host) as talk:
        talk.thin("keydiff", budget=27)
        before = rows(host)
        forks = talk.fork(3)
        answers = [each.generate() for each in (talk, *forks)]
        assert rows(host) - before == 4 * 8, "the last token and seven that were said, each"
        assert len({answer.logprobs for answer in answers}) == 1
        assert [each.exact for each in forks] == [False] * 3
        assert [answer.facts.dropped_tokens for answer in answers] == [62] * 4


def test_a_mark_is_gone_back_to_as_thinned_as_it_was(host: Host) -> None:
    with session(host) as talk:
        talk.mark("whole")
        talk.generate()
        talk.rollback("whole")
        whole = talk.generate()
        talk.rollback("whole")
        talk.thin("streaming", budget=27)
        talk.mark("less")
        less = talk.generate()
        assert less.logprobs != whole.logprobs
        (other,) = talk.fork(at="whole")
        assert exact(other)
        talk.rollback("less")
        assert not exact(talk)
        assert talk.generate().logprobs == less.logprobs
        talk.rollback("whole")
        assert exact(talk)
        again = talk.generate()
        assert again.logprobs == other.generate().logprobs
        # Thinning computed the last row anew, alone: its keys and values agree within rounding.
        assert again.logprobs == pytest.approx(whole.logprobs, abs=1e-5)


def test_set_back_to_where_it_was_thinned_or_before_a_conversation_is_whole_again(host: Host) -> None:
    with session(host, draw(120)) as talk:
        talk.thin("streaming", budget=27)
        talk.generate()
        talk.rollback(120)
        assert not exact(talk)
        talk.rollback(119)
        assert exact(talk)
        with session(host, draw(119), tenant="alone") as alone:
            assert talk.generate().tokens == alone.generate().tokens


def test_a_past_that_is_written_anew_was_never_thinned(tiny: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    forgetful = "{% for m in messages[-1:] %}{{ m['content'] }}{% endfor %}"
    monkeypatch.setattr(tiny.ours.tokenizer, "chat_template", forgetful)
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as host, Session(host, exact=False, sampling=COLD) as talk:
        talk.read([Message("user", "x" * 60)])
        talk.thin("streaming", budget=27)
        assert not exact(talk)
        talk.read([Message("user", "x" * 60 + "y")])
        assert not exact(talk), "it goes on as it began"
        talk.read([Message("user", "another" * 10)])
        assert exact(talk)
        assert talk.generate().facts.dropped_tokens == 0


def test_thinned_again_it_is_the_whole_conversation_that_is_cut(tiny: Pair, host: Host) -> None:
    with session(host) as talk:
        talk.thin("streaming", budget=10)
        talk.generate()
        talk.thin("keydiff", budget=27)
        past, last = talk.tokens[:-1], talk.tokens[-1]
        said = talk.generate()
        block, _ = chosen(tiny, past, "keydiff", 27)
        agrees(said, over(tiny, block, len(past), [last, *said.tokens[:-1]]), tiny.tolerance)
        assert talk.thin("keydiff", budget=1000) == 0
        assert exact(talk)
