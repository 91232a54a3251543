"""Layers with windows below the device: lossy conversations, new weights, listeners."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sostenuto.kvstore import DEVICE, RAW, Mirror, Mismatch
from sostenuto.kvstore.tiers import DiskTier, HostTier
from sostenuto.runtime.below import Below
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.host import Host
from sostenuto.runtime.session import Session
from sostenuto.scheduler import Interrupted, ProgramId

from .conftest import Pair, Stage, Told, draw, read, still

Stages = Callable[..., Stage]
Style = tuple[str, dict[str, object]]
KINDS = ["full_attention", "sliding_attention", "sliding_attention"]
GEMMA: Style = ("gemma3, windows in some layers", {"num_hidden_layers": 3, "layer_types": KINDS})
# The last group has two layers, and pages have room for three.
SHORT: Style = (
    "gemma3, windows in some layers",
    {"num_hidden_layers": 8, "layer_types": ["full_attention"] * 3 + ["sliding_attention"] * 5},
)
MISTRAL: Style = ("mistral, window of 24", {"num_hidden_layers": 2})
STYLES = pytest.mark.parametrize("style", [GEMMA, SHORT, MISTRAL], ids=["gemma", "short", "mistral"])


@pytest.fixture
def windowed(make_either: Callable[..., Pair]) -> Callable[[Style], Pair]:
    return lambda style: make_either(style[0], **style[1])


# And how far a logarithm of a probability may be from that of transformers.
CODECS: dict[str, float] = {RAW: 1e-4, "int8": 0.05, "rotated3": 1.0}
Windowed = Callable[[Style], Pair]


def engine(pair: Pair) -> TorchEngine:
    return TorchEngine(pair.ours, pool_tokens=240, chunk=32)


def pause(stage: Stage, tokens: list[int], codec: str = RAW) -> Told:
    """A turn that calls a tool, which asks a person; what it leaves is in the tier when this returns."""
    told = read(stage.submit(tokens, "a", tools_called=lambda text, reason: ("ask",), codec=codec))
    stage.loop.tell(Interrupted(ProgramId("a")))
    still(stage.loop)
    return told


def rivals(stage: Stage) -> None:
    """Others that need all of the pool, one after the other."""
    for number in range(8):
        stage.say(draw(220, seed=50 + number), f"rival {number}", max_tokens=4)


@STYLES
@pytest.mark.parametrize("codec", CODECS)
def test_what_a_codec_has_stored_of_each_group_comes_back_and_is_met_by_no_other_codec(
    windowed: Windowed, stages: Stages, style: Style, codec: str
) -> None:
    pair, tier = windowed(style), HostTier()
    stage = stages(engine(pair), below=[Below(tier)])
    first = pause(stage, draw(200), codec)
    spans = pair.ours.groups.spans(207, pair.ours.shape.page)
    assert stage.loop.kernel.moves.elsewhere.count("host") == sum(map(len, spans))
    rivals(stage)
    tokens = [*draw(200), *first.tokens, *draw(6, seed=7)]
    again = stage.say(tokens, "a", codec=codec)
    logits = pair.reference([*tokens, *again.tokens])
    for at, piece in enumerate(again.pieces, len(tokens) - 1):
        if piece.token is not None:
            assert abs(float(logits[at].log_softmax(0)[piece.token]) - piece.logprob) < CODECS[codec]
    facts = again.end.facts
    assert (facts.reused_tokens, facts.computed_tokens, facts.tier) == (207, 7, "host")
    assert (facts.codec, facts.exact) == (codec, codec == RAW)
    apart = stage.say(tokens, "b", codec="fp8").end.facts
    assert (apart.reused_tokens, apart.tier) == (0, DEVICE)


@STYLES
def test_a_lossy_session_goes_on_in_another_process_and_from_a_parcel(
    windowed: Windowed, style: Style, tmp_path: Path
) -> None:
    pair = windowed(style)
    with Host(engine(pair), below=[Below(DiskTier.open(tmp_path))]) as host, Session(host, codec="int8") as session:
        session.feed(draw(150))
        session.generate(max_tokens=9)
        session.mark("noon", durable=True)
        parcel = session.pack()
    with Host(engine(pair), below=[Below(DiskTier.open(tmp_path))]) as host:
        with pytest.raises(Mismatch, match="codec is 'int8', wanted 'raw'"):
            Session.restore(host, "noon")
        with Session.restore(host, "noon", codec="int8") as session:
            restored = session.generate(max_tokens=9)
    with Host(engine(pair), below=[Below(HostTier())]) as host:
        with pytest.raises(Mismatch, match="codec is 'int8', wanted 'fp8'"):
            Session.unpack(host, parcel, codec="fp8")
        with Session.unpack(host, parcel, codec="int8") as session:
            unpacked = session.generate(max_tokens=9)
    assert unpacked.tokens == restored.tokens
    for answer, tier in ((restored, "disk"), (unpacked, "host")):
        assert (answer.facts.reused_tokens, answer.facts.computed_tokens, answer.facts.tier) == (158, 1, tier)
        assert (answer.facts.codec, answer.facts.exact) == ("int8", False)


ALL_SEE_ALL: Style = ("llama", {})
EVERY = pytest.mark.parametrize("style", [ALL_SEE_ALL, GEMMA, MISTRAL], ids=["llama", "gemma", "mistral"])


@EVERY
@pytest.mark.parametrize("others", ["fork", "another", "rollback"])
def test_what_others_went_on_with_in_the_last_block_is_no_part_of_a_mark_or_a_parcel(
    windowed: Windowed, style: Style, others: str, tmp_path: Path
) -> None:
    pair = windowed(style)
    with Host(engine(pair), below=[Below(DiskTier.open(tmp_path))]) as host, Session(host) as session:
        session.feed(draw(100))
        session.generate(max_tokens=3)
        if others == "fork":
            (fork,) = session.fork()
            fork.generate(max_tokens=2)
            fork.close()
        elif others == "another":
            with Session(host) as other:
                other.feed(session.tokens)
                other.generate(max_tokens=2)
        else:
            session.mark("here")
            session.generate(max_tokens=3)
            session.rollback("here")
        session.mark("noon", durable=True)
        parcel = session.pack()
    expected = pair.reference([*session.tokens])
    with Host(engine(pair), below=[Below(DiskTier.open(tmp_path))]) as host:
        with Session.restore(host, "noon") as session:
            restored = session.generate(max_tokens=1)
    with Host(engine(pair), below=[Below(HostTier())]) as host, Session.unpack(host, parcel) as session:
        unpacked = session.generate(max_tokens=1)
    for answer in (restored, unpacked):
        assert answer.facts.computed_tokens == 1
        (piece,) = [each for each in answer.pieces if each.token is not None]
        assert abs(float(expected[-1].log_softmax(0)[piece.token]) - piece.logprob) < 1e-4


@EVERY
def test_a_mark_of_any_length_of_which_all_is_computed_is_gone_on_with_at_one_row(
    windowed: Windowed, style: Style, tmp_path: Path
) -> None:
    pair = windowed(style)
    for length in range(120, 129):  # pages of 8: at each place in one
        with Host(engine(pair), below=[Below(DiskTier.open(tmp_path))]) as host, Session(host) as session:
            session.feed(draw(length))
            session.mark("question")
            session.generate(max_tokens=5)
            session.rollback("question")
            session.mark("noon", durable=True)
            parcel = session.pack()
            rivals(Stage(host.loop))
            assert session.generate(max_tokens=1).facts.computed_tokens == 1
        with Host(engine(pair), below=[Below(DiskTier.open(tmp_path))]) as host:
            with Session.restore(host, "noon") as session:
                assert session.generate(max_tokens=1).facts.computed_tokens == 1
        with Host(engine(pair), below=[Below(HostTier())]) as host, Session.unpack(host, parcel) as session:
            assert session.generate(max_tokens=1).facts.computed_tokens == 1


@STYLES
def test_under_new_weights_nothing_of_the_old_is_met_and_what_is_new_comes_back(
    windowed: Windowed, stages: Stages, style: Style
) -> None:
    stage = stages(engine(windowed(style)), below=[Below(HostTier())])
    pause(stage, draw(200))
    stage.loop.update(lambda version: None, None, kv="salt", running="refuse").result()
    again = pause(stage, draw(200))
    assert (again.end.facts.reused_tokens, again.end.facts.tier) == (0, DEVICE)
    rivals(stage)
    facts = stage.say([*draw(200), *again.tokens, *draw(6, seed=7)], "a").end.facts
    assert (facts.reused_tokens, facts.tier) == (207, "host")


@STYLES
def test_who_listens_knows_what_can_be_found_of_every_group(windowed: Windowed, style: Style) -> None:
    mirror = Mirror()
    with Host(engine(windowed(style)), below=[Below(HostTier(), 240)]) as host:
        host.kv_events.subscribe(mirror.apply)
        stage = Stage(host.loop)
        pause(stage, draw(200))
        rivals(stage)
        kernel = host.loop.kernel
        assert mirror.blocks(DEVICE) == kernel.ledger.blocks()
        assert mirror.blocks("host") == kernel.moves.elsewhere.blocks("host") != {}
