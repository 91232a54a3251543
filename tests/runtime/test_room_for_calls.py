"""A call that cannot fit is refused before anything is computed, and one that did not fit is never called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.errors import Refused
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.runtime.session import Session
from sostenuto.scheduler import Start
from sostenuto.tools import Choice, read_tool

from ..babbler import build
from ..doors.conftest import Watched

NEWS = read_tool(
    {
        "name": "get_news",
        "description": "News of a place",
        "parameters": {"properties": {"place": {"type": "string"}}, "required": ["place"]},
    }
)
EOS = (0, 2)
ASK = Ask((Message("user", "News?"),), (NEWS,), choice=Choice("any"), parallel=False)


def limited(tokens: int, ask: Ask = ASK) -> Ask:
    return replace(ask, sampling=Sampling(temperature=0, max_tokens=tokens))


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = build(tmp_path_factory.mktemp("model") / "terse", terse=True)
    with Host.open(str(folder), pool_tokens=4096, dtype="float32") as opened:
        yield opened


@pytest.fixture
def whole(host: Host) -> int:
    """Tokens of the call that this model writes, without the end."""
    answer = host.ask(limited(256)).wait()
    assert answer.outcome.kind == "called"
    assert answer.tokens[-1] in EOS
    return len(answer.tokens) - 1


@pytest.mark.parametrize("choice", [Choice("any"), Choice("named", "get_news")])
def test_at_every_limit_a_call_is_refused_cut_or_whole(host: Host, whole: int, choice: Choice) -> None:
    found: list[str] = []
    for tokens in (1, 6, 12, *range(whole - 9, whole + 1)):
        watched = Watched(host)
        try:
            answer = host.ask(limited(tokens, replace(ASK, choice=choice))).wait()
        except Refused as refused:
            said = str(refused)
        else:
            assert bool(answer.calls) is (answer.outcome.kind == "called")
            assert answer.outcome.problems or answer.calls
            found.append(answer.outcome.kind)
            continue
        assert f"max_tokens is {tokens}, and every call that may come takes at least" in said
        assert watched.of(Start) == [], "nothing was computed"
        found.append("refused")
    assert found == sorted(found, key=["refused", "truncated", "called"].index)
    assert found.count("refused") >= 4
    assert found[-1] == "called"


def test_a_call_begun_by_itself_is_cut_off_where_the_tokens_end_and_not_called(host: Host, whole: int) -> None:
    begun = tuple(host.render._encode("Well. <tool_call>"))
    for tokens in (1, 4, whole - 8):
        auto = limited(tokens, replace(ASK, choice=Choice("auto")))
        prompt = (*host.render.tokens(ASK.messages, ASK.tools), *begun)
        answer = host.resume(auto, prompt, said=len(begun)).wait()
        assert (answer.outcome.kind, answer.calls) == ("truncated", ())
        assert "cut off inside a tool call" in answer.outcome.problems[0].message


def test_what_was_said_before_counts_towards_the_call(host: Host, whole: int) -> None:
    first = host.ask(limited(whole - 1)).wait()
    assert first.outcome.kind == "truncated"
    rest = host.resume(limited(2), (*host.render.tokens(ASK.messages, ASK.tools), *first.tokens), said=whole - 1).wait()
    assert (rest.outcome.kind, len(rest.calls)) == ("called", 1)


def test_a_session_may_be_asked_for_a_call_token_by_token(host: Host, whole: int) -> None:
    with Session(host, tools=[NEWS], choice=Choice("any"), parallel=False, sampling=Sampling(temperature=0)) as session:
        session.read([Message("user", "News?")])
        kinds = [session.generate(max_tokens=1).outcome.kind for _ in range(whole)]
    assert kinds == ["truncated"] * (whole - 1) + ["called"]


def test_a_context_without_room_for_a_call_is_refused(host: Host) -> None:
    prompt = [300] * (host.engine.longest - 9)
    with pytest.raises(Refused, match="the context has room for 9 more, and every call that may come takes at least"):
        host.resume(limited(100), prompt).wait()


async def test_in_an_event_loop_it_is_the_answer_that_says_so(host: Host) -> None:
    answering = host.ask(limited(3))
    with pytest.raises(Refused, match="max_tokens is 3"):
        await answering.arrive()


@pytest.mark.parametrize("change", [{"choice": Choice("auto")}, {"constrain": False}, {"choice": Choice("none")}])
def test_who_need_not_call_may_ask_for_a_single_token(host: Host, change: dict[str, Any]) -> None:
    answer = host.ask(limited(1, replace(ASK, **change))).wait()
    assert (answer.outcome.kind, answer.calls) == ("truncated", ())
