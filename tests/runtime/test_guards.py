"""What stands before a model and behind it: rates, bounds, rules on text and logits, and answers that are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.doors.http import app
from sostenuto.runtime.doors.langgraph import ChatSostenuto
from sostenuto.runtime.errors import BadMessage, Blocked, Limited, Unable
from sostenuto.runtime.execute.clock import Clock
from sostenuto.runtime.guards import Bounds, Guards, Rate, WordRules
from sostenuto.runtime.guards_file import read_guards
from sostenuto.runtime.host import Host
from sostenuto.runtime.said_before import WHY
from sostenuto.runtime.sampling import Sampling
from sostenuto.tools import TextDelta, read_tool

from ..babbler import build
from ..doors.conftest import script


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = build(tmp_path_factory.mktemp("model") / "babbler")
    with Host.open(str(folder), pool_tokens=4096, dtype="float32") as opened:
        yield opened


@pytest.fixture
def guarded(host: Host, monkeypatch: pytest.MonkeyPatch) -> Any:
    def put(**given: Any) -> Host:
        monkeypatch.setattr(host, "guards", Guards(**given))
        return host

    return put


def ask(text: str = "hello", **given: Any) -> Ask:
    sampling = given.pop("sampling", Sampling(max_tokens=6))
    return Ask((Message("user", text),), sampling=sampling, **given)


def idle(host: Host) -> bool:
    return "| 0 waiting | 0 running |" in host.loop.ask()


def test_without_a_word_nothing_stands_there(host: Host) -> None:
    assert repr(host.guards) == "<Guards 0 tenants, 0 classifiers, <SaidBefore 0 answers>>"
    first, second = (host.ask(ask()).wait() for _ in range(2))
    assert first.text == second.text
    assert second.facts.why != WHY


def test_a_tenant_that_asks_too_often_is_told_when_to_come_again_and_keeps_no_other_from_asking(guarded: Any) -> None:
    now = 0.0
    clock = Clock(lambda: now, lambda: now)
    host = guarded(rate=Rate(0.5, burst=2), rates={"big": Rate(100, burst=50)}, clock=clock)
    for _ in range(2):
        host.ask(ask(tenant="a")).wait()
    with pytest.raises(Limited, match=r"'a' asks too often: ask again after 2\.0 s") as limited:
        host.ask(ask(tenant="a"))
    assert limited.value.retry_after == 2.0
    for tenant in ("b", *["big"] * 5):
        host.ask(ask(tenant=tenant)).wait()
    now = 2.0
    host.ask(ask(tenant="a")).wait()
    with pytest.raises(ValueError, match="more than 0"):
        Rate(0)


@pytest.mark.parametrize(
    ("bounds", "question", "says"),
    [
        (Bounds(characters=4), ask("hello"), "messages: characters: found 5; at most 4"),
        (Bounds(messages=0), ask(), "messages: found 1"),
        (Bounds(max_tokens=5), ask(), "max_tokens: found 6"),
        (Bounds(tools=0), ask(tools=(read_tool({"name": "f"}),)), "tools: found 1"),
    ],
)
def test_a_question_that_is_too_much_is_not_asked(guarded: Any, bounds: Bounds, question: Ask, says: str) -> None:
    with pytest.raises(BadMessage, match=says):
        guarded(bounds=bounds).ask(question)
    guarded(bounds=Bounds(characters=5, messages=1, max_tokens=6)).ask(ask()).wait()


def test_rules_on_questions_stop_them_before_anything_is_computed(guarded: Any) -> None:
    host = guarded(classifiers=[WordRules(question=["[Bb]uild [Aa] [Bb]omb"])])
    with pytest.raises(Blocked, match="this question is not let through: rule 1 for questions"):
        host.ask(ask("x" * 9000 + " Build A Bomb " + "x" * 9000))
    assert idle(host)
    host.ask(ask("build a boat")).wait()


def test_rules_on_answers_end_them_before_the_words_are_told(guarded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = guarded(classifiers=[WordRules(answer=["the secret is [0-9]{4}"])])
    script(host, monkeypatch)("Well, the secret is 1234, you see.", "Well, the secret is mine.")
    told: list[str] = []
    answering = host.ask(ask(sampling=Sampling(max_tokens=60)))

    def listen() -> None:
        for chunk in answering.ticket:
            told.extend(delta.text for delta in answering.take(chunk) if isinstance(delta, TextDelta))

    with pytest.raises(Blocked, match="this answer is not let through"):
        listen()
    assert "1234" not in "".join(told)
    assert idle(host)
    assert host.ask(ask(sampling=Sampling(max_tokens=60))).wait().text == "Well, the secret is mine."


@pytest.mark.parametrize("pattern", ["^(a+)+$", "(", "x*x*x*y"])
def test_a_rule_whose_matching_may_explode_is_none(pattern: str) -> None:
    with pytest.raises(ValueError, match="found"):
        WordRules(question=[pattern])


class Never:
    """Bans one token, and stops an answer that is long enough."""

    def __init__(self, token: int, longest: int = 1_000) -> None:
        self.token, self.longest = token, longest
        self.seen: list[int] = []

    def look(self, said: Sequence[int], logits: Any) -> Any:
        self.seen.append(len(said))
        if len(said) >= self.longest:
            raise Blocked("this answer is not let through: long enough")
        changed = logits.clone()
        changed[self.token] = -torch.inf
        return changed


def test_whoever_looks_at_logits_may_change_them_and_may_end_that_turn_alone(guarded: Any) -> None:
    free = guarded().ask(ask()).wait()
    watch = Never(free.tokens[0])
    bound = guarded(watches=[watch]).ask(ask()).wait()
    assert free.tokens[0] not in bound.tokens
    assert watch.seen == list(range(len(bound.tokens)))
    host = guarded(watches=[Never(0, longest=3)])
    with pytest.raises(Blocked, match="long enough"):
        host.ask(ask()).wait()
    assert idle(host)


def test_an_engine_without_logits_to_show_is_no_place_for_who_looks_at_them(
    guarded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    host = guarded(watches=[Never(0)])
    monkeypatch.setattr(host, "can", replace(host.can, mask=False))
    with pytest.raises(Unable, match="shows its logits to nobody"):
        host.ask(ask())


def test_a_kept_answer_is_given_to_the_very_same_question_of_the_same_tenant_and_to_no_other(guarded: Any) -> None:
    host = guarded(keep=2)
    first = host.ask(ask()).wait()
    again = host.ask(ask()).wait()
    assert (again.text, again.tokens, again.reason) == (first.text, first.tokens, first.reason)
    assert (again.facts.why, again.facts.computed_tokens, again.facts.reused_tokens) == (WHY, 0, 0)
    others = [
        ask("hello!"),
        ask(tenant="b"),
        ask(sampling=Sampling(max_tokens=5)),
        ask(sampling=Sampling(max_tokens=6, temperature=1.0, seed=1)),
        ask(sampling=Sampling(max_tokens=6, temperature=1.0)),
        ask(sampling=Sampling(max_tokens=6, temperature=1.0)),
        ask(tools=(read_tool({"name": "f"}),)),
        ask(tools=(read_tool({"name": "f"}),)),
    ]
    assert WHY not in [host.ask(each).wait().facts.why for each in others]
    assert repr(host.guards).endswith("<SaidBefore 3 answers>>"), "two of the one tenant, one of the other"
    with pytest.raises(ValueError, match="keep: found -1"):
        Guards(keep=-1)


def test_other_weights_give_another_answer(guarded: Any) -> None:
    host = guarded(keep=2)
    host.ask(ask()).wait()
    host.update_weights([])
    assert host.ask(ask()).wait().facts.why != WHY


def test_what_is_blocked_and_what_is_limited_is_recorded_nowhere_as_an_answer(guarded: Any) -> None:
    host = guarded(keep=2, watches=[Never(0, longest=2)])
    for _ in range(2):
        with pytest.raises(Blocked):
            host.ask(ask()).wait()
    assert repr(host.guards).endswith("<SaidBefore 0 answers>>")


def test_a_graphs_model_and_the_server_stand_behind_the_same_guards(guarded: Any) -> None:
    host = guarded(rate=Rate(0.001, burst=2), classifiers=[WordRules(question=["bomb"])])
    model = ChatSostenuto(host=host, max_tokens=4)
    with pytest.raises(Blocked):
        model.invoke("a bomb")
    with TestClient(app(host)) as client:

        def post(text: str) -> Any:
            body = {"model": "default", "max_tokens": 4, "messages": [{"role": "user", "content": text}]}
            return client.post("/v1/chat/completions", json=body)

        blocked, limited = post("a bomb"), post("a boat")
    assert (blocked.status_code, blocked.json()["error"]["code"]) == (400, "blocked")
    assert (limited.status_code, limited.json()["error"]["code"]) == (429, "limited")
    assert int(limited.headers["retry-after"]) > 100
    with pytest.raises(Limited):
        model.invoke("a boat")


def test_a_file_says_them_for_a_server(tmp_path: Path) -> None:
    path = tmp_path / "guards.json"
    whole = {
        "rate": {"a_second": 2, "burst": 1},
        "rates": {"big": {"a_second": 100}},
        "bounds": {"characters": 20},
        "block": {"question": ["bomb"], "answer": ["sk-[a-z0-9]{20}"]},
        "keep": 3,
    }
    path.write_text(json.dumps(whole))
    guards = read_guards(path)
    for question, fault in ((ask("a bomb"), Blocked), (ask("x"), Limited)):
        with pytest.raises(fault):
            guards.admit(question, (), str, fresh=True)
    with pytest.raises(BadMessage):
        guards.admit(ask("x" * 21, tenant="big"), (), str, fresh=True)
    for wrong in ("[]", "{", '{"rat": {}}', '{"rate": 3}', '{"bounds": {"tools": "3"}}', '{"block": {"answers": []}}'):
        path.write_text(wrong)
        with pytest.raises(ValueError, match="--guards"):
            read_guards(path)
