"""Layers with windows beside layers that see all: right to the last logit, and most of their pages are for others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from sostenuto.kvstore import NOWHERE, RAW, BlockHash, Mismatch
from sostenuto.kvstore.tiers import DiskTier, HostTier
from sostenuto.runtime.below import Below
from sostenuto.runtime.cli import main
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.model import Piece
from sostenuto.runtime.engines.torch.survey import divide
from sostenuto.runtime.host import Host
from sostenuto.runtime.journal import replay
from sostenuto.runtime.loop import Loop
from sostenuto.runtime.session import Session
from sostenuto.scheduler import DEVICE, Effect, Interrupted, Move, Preempt, ProgramId, Start, named

from .conftest import Pair, Runner, Stage, Told, draw, read, still

Stages = Callable[..., Stage]
FIVE_TO_ONE = {"num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
GEMMA = ("gemma3, windows in some layers", FIVE_TO_ONE)
MISTRAL = ("mistral, window of 24", {"num_hidden_layers": 2})
STYLES = pytest.mark.parametrize("style", [GEMMA, MISTRAL], ids=["gemma", "mistral"])
CHUNK = 32


@pytest.fixture
def windowed(make_either: Callable[..., Pair]) -> Callable[[tuple[str, dict[str, object]]], Pair]:
    return lambda style: make_either(style[0], **style[1])


Windowed = Callable[[tuple[str, dict[str, object]]], Pair]


def engine(pair: Pair, pool: int) -> TorchEngine:
    return TorchEngine(pair.ours, pool_tokens=pool, chunk=CHUNK)


def check(pair: Pair, prompt: Sequence[int], told: Told) -> None:
    """What was said is what transformers would say, and as likely."""
    pair.agrees(prompt, told.tokens, len(prompt))
    logits = pair.reference([*prompt, *told.tokens])
    for at, piece in enumerate(told.pieces, len(prompt) - 1):
        if piece.token is not None:
            assert abs(float(logits[at].log_softmax(0)[piece.token]) - piece.logprob) < pair.tolerance


def test_layers_are_divided_into_groups_of_one_size_those_that_see_all_first() -> None:
    gemma = divide([24, 24, 24, 24, 24, None, 24, 24, 24, 24, 24, None, 24, 24])
    assert [group.layers for group in gemma.each] == [(5, 11), (0, 1), (2, 3), (4, 6), (7, 8), (9, 10), (12, 13)]
    assert [group.window for group in gemma.each] == [None, *[24] * 6]
    two = divide([8, 24, 24, 8, 24])
    assert [(group.layers, group.window) for group in two.each] == [((1, 2), 24), ((4,), 24), ((0, 3), 8)]
    assert divide([None] * 3).plain
    assert len(divide([24] * 3)) == 1


def test_a_window_that_no_context_is_longer_than_is_none(make_either: Callable[..., Pair]) -> None:
    assert make_either(MISTRAL[0], sliding_window=512).ours.groups.plain
    assert not make_either(MISTRAL[0], sliding_window=511).ours.groups.plain


@STYLES
def test_pages_left_of_every_window_may_be_gone_without_a_trace_in_the_logits(
    windowed: Windowed, style: tuple[str, dict[str, object]]
) -> None:
    pair, prompt = windowed(style), draw(230)
    runner, groups, size = Runner(pair.ours, room=60), pair.ours.groups, pair.ours.shape.page
    table = list(runner.table(230))
    expected = pair.reference(prompt)
    for at in range(0, 230, 13):
        stop = min(at + 13, 230)
        for number, span in enumerate(groups.spans(at, size)):
            for block in range(span.start):
                table[block * len(groups) + number] = NOWHERE
        logits = runner.step(Piece(tuple(table), at, tuple(prompt[at:stop]), wants=True))[0]
        assert (logits - expected[stop - 1]).abs().max() < pair.tolerance
    assert table.count(NOWHERE) > 20


@STYLES
def test_a_context_several_windows_long_takes_few_pages_and_says_what_transformers_says(
    windowed: Windowed, stages: Stages, style: tuple[str, dict[str, object]]
) -> None:
    pair, prompt = windowed(style), draw(300)
    stage = stages(engine(pair, 400))
    ledger = stage.loop.kernel.ledger
    taken: list[int] = []
    stage.loop.watch(lambda effect: taken.append(ledger.room - ledger.available))
    check(pair, prompt, stage.say(prompt, max_tokens=40))
    groups, size = len(pair.ours.groups), pair.ours.shape.page
    blocks = -(-340 // size)
    full = sum(group.window is None for group in pair.ours.groups.each)
    assert max(taken) <= full * blocks + (groups - full) * (1 + -(-(24 + CHUNK) // size))
    assert max(taken) < groups * blocks / 2


@STYLES
def test_what_is_held_through_a_tool_call_is_gone_on_with_and_computes_only_what_is_new(
    windowed: Windowed, stages: Stages, style: tuple[str, dict[str, object]]
) -> None:
    pair, prompt = windowed(style), draw(150)
    stage = stages(engine(pair, 400))
    first = read(stage.submit(prompt, "a", tools_called=lambda text, reason: ("search",)))
    for number in range(6):
        stage.say(draw(200, seed=number), f"rival {number}", max_tokens=4)
    tokens = [*prompt, *first.tokens, *draw(9, seed=7)]
    again = stage.say(tokens, "a")
    assert (again.end.facts.reused_tokens, again.end.facts.why) == (157, "held")
    check(pair, tokens, again)


@STYLES
def test_forks_and_earlier_places_say_what_the_same_tokens_say_alone(
    windowed: Windowed, stages: Stages, style: tuple[str, dict[str, object]]
) -> None:
    pair, prompt = windowed(style), draw(150)
    stage = stages(engine(pair, 800))
    stage.say(prompt, "a", max_tokens=4)
    forks = [[*prompt, *draw(20, seed=seed)] for seed in range(3)]
    told = [stage.submit(tokens, f"fork {number}") for number, tokens in enumerate(forks)]
    for tokens, ticket in zip(forks, told, strict=True):
        answer = read(ticket)
        assert answer.end.facts.reused_tokens == 150
        check(pair, tokens, answer)
    for place in (40, 77, 149):  # some of that is still there, left of the window though it is
        tokens = [*prompt[:place], *draw(5, seed=place)]
        check(pair, tokens, stage.say(tokens, f"back {place}"))


@STYLES
def test_under_pressure_turns_are_preempted_and_evicted_and_all_say_the_right_thing(
    windowed: Windowed, stages: Stages, style: tuple[str, dict[str, object]], tmp_path: Path
) -> None:
    pair = windowed(style)
    journal = tmp_path / "journal"
    with Loop(engine(pair, 150), named("forgetful"), journal=journal) as loop:
        stage, effects = Stage(loop), list[Effect]()
        loop.watch(effects.append)
        common = draw(40)
        prompts = [[*common, *draw(5 * number + 3, seed=number)] for number in range(5)]
        for turn in range(2):
            tickets = [stage.submit(tokens, f"p{number}", max_tokens=50) for number, tokens in enumerate(prompts)]
            for number, ticket in enumerate(tickets):
                told = read(ticket)
                check(pair, prompts[number], told)
                prompts[number] += [*told.tokens, *draw(6, seed=100 * turn + number)]
        loop.ask()
        assert any(isinstance(effect, Start) and effect.reuse for effect in effects)
        if style is GEMMA:
            assert any(isinstance(effect, Preempt) for effect in effects)
        kernel, count = replay(journal)
        assert repr(kernel) == repr(loop.kernel)
        assert count


@STYLES
def test_what_gave_way_comes_back_from_host_memory_only_as_far_as_windows_look(
    windowed: Windowed, stages: Stages, style: tuple[str, dict[str, object]], tmp_path: Path
) -> None:
    pair, prompt, journal = windowed(style), draw(200), tmp_path / "journal"
    with Loop(engine(pair, 240), named("sostenuto"), journal=journal, below=[Below(HostTier())]) as loop:
        stage, moves = Stage(loop), list[Effect]()
        loop.watch(lambda effect: moves.append(effect) if isinstance(effect, Move) else None)
        first = read(stage.submit(prompt, "a", tools_called=lambda text, reason: ("ask",)))
        loop.tell(Interrupted(ProgramId("a")))
        still(loop)
        size, groups = pair.ours.shape.page, pair.ours.groups
        spans = groups.spans(207, size)
        assert loop.kernel.moves.elsewhere.count("host") == sum(map(len, spans))
        for number in range(8):
            stage.say(draw(220, seed=50 + number), f"rival {number}", max_tokens=4)
        tokens = [*prompt, *first.tokens, *draw(6, seed=7)]
        again = stage.say(tokens, "a")
        assert (again.end.facts.reused_tokens, again.end.facts.computed_tokens) == (207, 7)
        assert (again.end.facts.tier, again.end.facts.why) == ("host", "fetched from host")
        check(pair, tokens, again)
        fetched = [move for move in moves if isinstance(move, Move) and move.target == DEVICE]
        assert len(fetched) == len({move.root for move in fetched})  # one a group, and of none more than it keeps
        assert 0 < sum(len(move.blocks) for move in fetched) <= sum(map(len, spans))
        loop.ask()
        kernel, _ = replay(journal)
        assert repr(kernel.moves) == repr(loop.kernel.moves)


class Leaky(HostTier):
    """Has lost the last block of whatever it is asked for."""

    async def get(self, names: Iterable[BlockHash]) -> Mapping[BlockHash, memoryview]:
        return await super().get(list(names)[:-1])


@STYLES
def test_what_one_group_has_lost_in_a_tier_is_computed_for_all(
    windowed: Windowed, stages: Stages, style: tuple[str, dict[str, object]]
) -> None:
    pair, prompt = windowed(style), draw(200)
    stage = stages(engine(pair, 240), below=[Below(Leaky())])
    first = read(stage.submit(prompt, "a", tools_called=lambda text, reason: ("ask",)))
    stage.loop.tell(Interrupted(ProgramId("a")))
    still(stage.loop)
    for number in range(8):
        stage.say(draw(220, seed=50 + number), f"rival {number}", max_tokens=4)
    tokens = [*prompt, *first.tokens, *draw(6, seed=7)]
    again = stage.say(tokens, "a")
    assert again.end.facts.reused_tokens < 200
    check(pair, tokens, again)


@STYLES
def test_each_group_is_sealed_with_its_layers_and_served_to_no_other(
    windowed: Windowed, stages: Stages, style: tuple[str, dict[str, object]], tmp_path: Path
) -> None:
    pair = windowed(style)
    ours = engine(pair, 240)
    seals = [ours.seal("default", "", RAW, number) for number in range(len(ours.groups))]
    assert len({seal.digest for seal in seals}) == len(seals)
    assert [seal.layers for seal in seals] == [len(group.layers) for group in ours.groups.each]
    whole = ours.seal("default", "", RAW)
    assert whole.layers == sum(seal.layers for seal in seals)
    assert (whole in seals) == (len(seals) == 1)
    prompt = draw(200)
    for reused in (0, 207):  # two processes, of which the second goes on with what the first has left on the disk
        with Loop(engine(pair, 240), named("sostenuto"), below=[Below(DiskTier.open(tmp_path))]) as loop:
            told = read(Stage(loop).submit(prompt, "a", tools_called=lambda text, reason: ("ask",)))
            loop.tell(Interrupted(ProgramId("a")))
            still(loop)
        assert told.end.facts.reused_tokens == reused
        check(pair, prompt, told)
        prompt = [*prompt, *told.tokens, *draw(6, seed=7)]
    with Loop(engine(pair, 240), named("sostenuto"), below=[Below(DiskTier.open(tmp_path))]) as loop:
        other = Stage(loop).say(prompt, "b", tenant="another")
        assert other.end.facts.reused_tokens == 0


@STYLES
def test_another_process_goes_on_with_a_durable_mark_and_computes_one_row(
    windowed: Windowed, style: tuple[str, dict[str, object]], tmp_path: Path
) -> None:
    with Host(engine(windowed(style), 240), below=[Below(DiskTier.open(tmp_path))]) as host, Session(host) as session:
        session.feed(draw(150))
        session.generate(max_tokens=9)
        session.mark("noon", durable=True)
        expected = session.generate(max_tokens=9)
    with Host(engine(windowed(style), 240), below=[Below(DiskTier.open(tmp_path))]) as host:
        with Session.restore(host, "noon") as session:
            answer = session.generate(max_tokens=9)
    assert answer.tokens == expected.tokens
    assert (answer.facts.reused_tokens, answer.facts.computed_tokens, answer.facts.tier) == (158, 1, "disk")
    assert main(["kv", "verify", str(tmp_path)]) == 0


@STYLES
def test_a_parcel_holds_what_each_group_keeps_and_is_gone_on_with_elsewhere(
    windowed: Windowed, make_either: Callable[..., Pair], style: tuple[str, dict[str, object]]
) -> None:
    def host() -> Host:
        return Host(engine(windowed(style), 240), below=[Below(HostTier())])

    with host() as here, Session(here) as session:
        session.feed(draw(150))
        session.generate(max_tokens=9)
        parcel = session.pack()
        expected = session.generate(max_tokens=9)
    with host() as there, Session.unpack(there, parcel) as session:
        spans = windowed(style).ours.groups.spans(158, 8)
        assert there.loop.kernel.moves.elsewhere.count("host") == sum(map(len, spans))
        answer = session.generate(max_tokens=9)
    assert answer.tokens == expected.tokens
    assert (answer.facts.reused_tokens, answer.facts.computed_tokens, answer.facts.tier) == (158, 1, "host")
    with Host(TorchEngine(make_either().ours, pool_tokens=240), below=[Below(HostTier())]) as other:
        with pytest.raises(Mismatch, match="model is"):
            Session.unpack(other, parcel)


def test_a_parcel_of_which_one_group_has_lost_a_block_holds_the_conversation_alone(windowed: Windowed) -> None:
    with Host(engine(windowed(GEMMA), 240), below=[Below(Leaky())]) as here, Session(here) as session:
        session.feed(draw(150))
        session.generate(max_tokens=9)
        parcel = session.pack()
        expected = session.generate(max_tokens=9)
    with Host(engine(windowed(GEMMA), 240), below=[Below(HostTier())]) as there:
        with Session.unpack(there, parcel) as session:
            answer = session.generate(max_tokens=9)
    assert (answer.tokens, answer.facts.reused_tokens) == (expected.tokens, 0)


@STYLES
def test_a_session_goes_back_and_forks_over_windows_and_says_what_it_said(
    windowed: Windowed, style: tuple[str, dict[str, object]]
) -> None:
    with Host(engine(windowed(style), 400)) as host, Session(host) as session:
        session.feed(draw(120))
        session.mark("start")
        said = session.generate(max_tokens=30)
        session.feed(draw(40, seed=1))
        session.generate(max_tokens=10)
        (fork,) = session.fork(at="start")
        with fork:
            assert fork.generate(max_tokens=30).tokens == said.tokens
        session.rollback("start")
        again = session.generate(max_tokens=30)
        assert again.tokens == said.tokens
        assert again.facts.reused_tokens == 119


def test_a_hint_for_a_context_with_windows_is_rejected_with_the_reason(windowed: Windowed) -> None:
    with Host(engine(windowed(GEMMA), 240)) as host:
        read(Stage(host.loop).submit(draw(60), "default/s", tools_called=lambda text, reason: ("search",)))
        payload = {"target": {"session": "s"}, "seconds": 60}
        action = {"action_id": "a", "action_type": "Pin", "action_version": "1", "payload": payload}
        (reply,) = host.hint({"protocol_version": "0.1", "message_id": "m", "actions": [action]}, tenant="default")
        assert (reply.outcome, reply.why) == ("rejected", "contexts of layers with windows take no hints yet")
