"""What of a prompt is found and what is computed: where a history was written anew, and where nothing may be found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from sostenuto.runtime.answer import Answer
from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import Effect, Release

from .conftest import Pair, Stage, Told, draw, read

pytestmark = pytest.mark.every_way

Stages = Callable[..., Stage]
PAGE = 8
FIRST = Message("user", "What is the whole of it?")
AGAIN = Message("user", "And then?")
SAID = [*b"<think>seven and ", 257, *b" are odd</think>yes"]
"""An answer in tokens; the one in the middle is a control token, which no text is read as."""
TEXT = "<think>seven and <x> are odd</think>yes"


@pytest.fixture
def host(tiny: Pair) -> Iterator[Host]:
    with Host(TorchEngine(tiny.ours, pool_tokens=2048)) as opened:
        yield opened
        opened.loop.ask()


def asked(host: Host, *messages: Message, forced: tuple[int, ...] | None = None) -> tuple[tuple[int, ...], Answer]:
    """A prompt of one program and what is said to it."""
    prompt = host.render.tokens(messages)
    return prompt, host.resume(
        Ask(messages, program="p", sampling=Sampling(max_tokens=6)), prompt, forced=forced
    ).wait()


def shared(before: tuple[int, ...], now: tuple[int, ...]) -> int:
    return next((at for at, pair in enumerate(zip(before, now, strict=False)) if pair[0] != pair[1]), len(before))


@pytest.mark.parametrize(
    ("written", "behind"),
    [
        ("yes", 0),  # its reasoning was stripped
        ("\n" + TEXT, 0),  # a newline of the template's
        (TEXT, len(b"<think>seven and ")),  # the same text, read anew
    ],
    ids=["reasoning stripped", "a newline more", "tokenised anew"],
)
def test_a_history_that_was_written_anew_says_where_it_differs_and_how_much_was_computed_from_there(
    host: Host, written: str, behind: int
) -> None:
    prompt, first = asked(host, FIRST, forced=tuple(SAID))
    assert first.tokens == tuple(SAID)
    past = (*prompt, *SAID[:-1])
    now, answer = asked(host, FIRST, Message("assistant", written), AGAIN)
    place = shared(past, now)
    assert place == len(prompt) + behind
    facts = answer.facts
    assert (facts.reused_tokens, facts.computed_tokens) == (place, len(now) - place)
    assert facts.reused_tokens + facts.computed_tokens == facts.prompt_tokens
    assert facts.lost_tokens == 0, "what is written anew was never computed"


def test_a_history_of_the_tokens_that_were_said_is_reused_wholly(host: Host) -> None:
    prompt, _ = asked(host, FIRST, forced=tuple(SAID))
    now, answer = asked(host, FIRST, Message("assistant", "whatever it says", tokens=tuple(SAID)), AGAIN)
    assert now[: len(prompt) + len(SAID)] == (*prompt, *SAID)
    assert answer.facts.reused_tokens == len(prompt) + len(SAID) - 1, "all that was computed"


@pytest.mark.parametrize("place", [0, 1, PAGE - 1, PAGE, PAGE + 1, 30, 59])
def test_one_token_that_differs_is_found_at_its_place_wherever_that_is_in_a_block(
    tiny: Pair, stages: Stages, place: int
) -> None:
    stage = stages(tiny.ours)
    effects: list[Effect] = []
    stage.loop.watch(effects.append)
    tokens = draw(60)
    read(stage.submit(tokens, "a", tools_called=lambda text, reason: ("search",), max_tokens=2))
    other = [*tokens[:place], (tokens[place] + 1) % 250, *tokens[place + 1 :], 5]
    again = stage.say(other, "a")
    facts = again.end.facts
    assert (facts.reused_tokens, facts.computed_tokens, facts.lost_tokens) == (place, 61 - place, 0)
    assert again.tokens == stages(tiny.ours).say(other).tokens
    (release,) = [effect for effect in effects if isinstance(effect, Release)]
    assert (release.how, release.why) == ("superseded", "replaced by another turn of its branch")


def test_under_a_tenant_of_its_own_nothing_is_ever_reused_and_the_same_is_said(tiny: Pair, stages: Stages) -> None:
    stage = stages(tiny.ours)
    told = [stage.say(draw(60), f"p{number}", tenant=f"only {number}") for number in range(3)]
    cached = [stage.say(draw(60), f"q{number}") for number in range(3)]
    assert [one.end.facts.reused_tokens for one in told] == [0, 0, 0]
    assert [one.end.facts.reused_tokens for one in cached] == [0, 59, 59]
    assert {one.tokens for one in (*told, *cached)} == {told[0].tokens}


def test_how_likely_an_answer_was_is_the_same_over_a_found_prompt_and_what_was_computed_for_it_is_found(
    tiny: Pair, stages: Stages
) -> None:
    def chances(told: Told) -> list[float]:
        return [piece.logprob for piece in told.pieces] + [chance for piece in told.pieces for _, chance in piece.top]

    stage = stages(tiny.ours)
    first = stage.say(draw(60), "a", logprobs=3)
    again = stage.say(draw(60), "b", logprobs=3)
    assert (first.end.facts.reused_tokens, again.end.facts.reused_tokens) == (0, 59)
    assert again.tokens == first.tokens
    assert chances(again) == pytest.approx(chances(first), abs=1e-4)
    longer = stage.say([*draw(60), *first.tokens, 5], "c")
    assert longer.end.facts.reused_tokens == 60 + len(first.tokens) - 1
