"""The wire to a vLLM server: what is asked, what is understood, and what becomes of faults."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx
import pytest
from transformers import LlamaConfig

from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.engines import Job, Said, TurnEngine, Usage
from sostenuto.runtime.engines.vllm.command import command_line, environment, shown
from sostenuto.runtime.engines.vllm.engine import VllmEngine
from sostenuto.runtime.engines.vllm.leases import Terms
from sostenuto.runtime.errors import EngineFailed, ModelNotFound, Unable
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.scheduler import TurnId
from sostenuto.tools import Choice, Tool

from .conftest import EOS, VOCAB, spelling
from .vllm_server import COUNTED, FIELDS, Server, event

TOOL = Tool("now", "The time.", {"type": "object", "properties": {}, "additionalProperties": False})


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a vocabulary of bytes, and no weights."""
    folder = tmp_path_factory.mktemp("bytes")
    spelling().save_pretrained(folder)
    LlamaConfig(vocab_size=VOCAB, eos_token_id=EOS).save_pretrained(folder)
    return folder


@pytest.fixture
def server(model: Path) -> Server:
    return Server(str(model))


@pytest.fixture
async def engine(server: Server) -> AsyncIterator[VllmEngine]:
    opened = server.connect()
    yield opened
    await opened.aclose()


def job(text: str = "hello", **more: Any) -> Job:
    prompt = list(text.encode())
    return Job(TurnId("t1"), prompt, len(prompt), more.pop("sampling", Sampling(max_tokens=8)), **more)


async def told(engine: TurnEngine, what: Job) -> list[Said]:
    return [said async for said in engine.say(what)]


# -- the turn


async def test_an_answer_comes_token_by_token_and_ends_with_what_the_server_counted(engine: VllmEngine) -> None:
    said = await told(engine, job())
    assert [(one.token, one.text, one.end) for one in said] == [(104, "h", None), (105, "i", None), (EOS, "", "stop")]
    assert [one.usage for one in said] == [None, None, Usage(5, 4, 2)]
    assert {one.turn for one in said} == {"t1"}


async def test_a_turn_is_asked_for_by_ids_and_nothing_is_left_to_the_models_defaults(
    server: Server, engine: VllmEngine
) -> None:
    sampling = Sampling(temperature=0.5, top_k=3, seed=7, stop=("END",), logprobs=2, max_tokens=5000)
    trace = {"traceparent": "00-1-2-01", "authorization": "not yours"}
    await told(engine, job("hello", sampling=sampling, key="agent|main", salt="ab", trace=trace))
    (body,) = server.asked
    assert body["prompt"] == list(b"hello")
    assert body["max_tokens"] == 2048 - 5  # all the room that the context has
    wanted = {"temperature": 0.5, "top_k": 3, "top_p": 1.0, "min_p": 0.0, "seed": 7, "stop": ["END"], "logprobs": 2}
    assert wanted.items() <= body.items()
    assert (body["cache_salt"], body["stop_token_ids"]) == ("ab", [EOS])
    assert body["session_id"].endswith(":agent|main")
    assert body["kv_transfer_params"] == {"sostenuto": {"session": body["session_id"], "lease_s": 2.0}}
    assert server.headers[-1]["traceparent"] == "00-1-2-01"
    assert "authorization" not in server.headers[-1]


async def test_only_a_turn_that_may_pause_asks_for_a_lease(server: Server, engine: VllmEngine) -> None:
    for ask in (Ask(()), Ask((), (TOOL,)), Ask((), (TOOL,), returns=False)):
        await told(engine, job(key="k", ask=ask))
    assert ["kv_transfer_params" in body for body in server.asked] == [False, True, False]


async def test_two_engines_never_mean_the_same_session(server: Server) -> None:
    for _ in range(2):
        opened = server.connect()
        await told(opened, job(key="k"))
        await told(opened, job(key="k" * 600))
        await opened.aclose()
    names = [body["session_id"] for body in server.asked]
    assert len(set(names)) == 4
    assert max(map(len, names)) <= 512


async def test_a_stop_string_is_cut_off_even_where_it_shares_a_token_with_the_answer(
    server: Server, engine: VllmEngine
) -> None:
    server.events = [event("well E"), event("ND", end="stop"), COUNTED]
    said = await told(engine, job(sampling=Sampling(stop=("END",))))
    assert "".join(one.text for one in said) == "well "
    assert said[-1].end == "stop"


async def test_more_stop_strings_than_the_server_takes_end_the_answer_here(server: Server, engine: VllmEngine) -> None:
    server.events = [event("abc"), event("dEf"), event("g"), event("h", end="length"), COUNTED]
    said = await told(engine, job(sampling=Sampling(stop=("A", "B", "C", "D", "E"))))
    assert "stop" not in server.asked[0]
    assert "".join(one.text for one in said) == "abcd"
    assert (len(said), said[-1].end, server.open) == (5, "stop", 0)


async def test_a_character_that_spans_events_comes_whole(server: Server, engine: VllmEngine) -> None:
    server.events = [event("", ids=(0xC3,)), event("", ids=(0xA9,), end="length"), COUNTED]
    said = await told(engine, job())
    assert [one.text for one in said] == ["", "é"]
    assert said[-1].end == "length"


async def test_log_probabilities_are_told_as_far_as_they_are_known(server: Server, engine: VllmEngine) -> None:
    (first, *_) = await told(engine, job(sampling=Sampling(logprobs=2)))
    assert (first.logprob, first.drawn, first.tempered) == (-0.5, -0.5, -0.5)
    assert first.top == ((65, -0.1), (104, -0.5))
    (first, *_) = await told(engine, job(sampling=Sampling(temperature=0.7)))
    assert first.logprob == -0.5
    assert math.isnan(first.drawn)
    assert math.isnan(first.tempered)
    assert first.top == ()


async def test_closing_an_answer_closes_its_request(server: Server, engine: VllmEngine) -> None:
    server.events = [event("a"), event("b"), event("c", end="length"), COUNTED]
    async with aclosing(engine.say(job())) as answer:  # type: ignore[type-var]
        async for said in answer:
            assert said.text == "a"
            break
    assert server.open == 0


# -- faults


@pytest.mark.parametrize("status", [400, 404, 503])
async def test_a_refusal_is_told_with_what_the_server_said(server: Server, engine: VllmEngine, status: int) -> None:
    server.status = status
    with pytest.raises(EngineFailed, match=f"refused the turn: {status}: too long for me"):
        await told(engine, job())


@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([event("a"), {"error": {"message": "the engine died"}}], "broke the answer off: the engine died"),
        ([event("a")], "ended the stream after 1 tokens without an end"),
        ([event("a", end="abort")], "ended the answer with 'abort'"),
        ([event("a"), {"choices": [{"token_ids": "x"}]}], "sent an event that is no completion"),
        ([event("a"), ["nonsense"]], "sent an event that is no completion"),
        ([event("more than eight")], "says more than the 8 tokens it was asked for"),
    ],
)
async def test_an_answer_that_breaks_off_fails_with_the_reason(
    server: Server, engine: VllmEngine, events: list[Any], message: str
) -> None:
    server.events = events
    with pytest.raises(EngineFailed, match=message):
        await told(engine, job())


async def test_a_connection_that_breaks_mid_turn_fails_and_leaves_nothing_open(
    server: Server, engine: VllmEngine
) -> None:
    server.events, server.cut = [event("ab")], True
    with pytest.raises(EngineFailed, match="broke off after 2 tokens: connection reset"):
        await told(engine, job())
    assert server.open == 0


async def test_a_recorded_answer_cannot_be_replayed(engine: VllmEngine) -> None:
    with pytest.raises(Unable, match="cannot be replayed"):
        await told(engine, job(forced=(1, 2)))


# -- leases


async def test_holds_and_releases_go_to_the_control_endpoint(server: Server, engine: VllmEngine) -> None:
    await engine.hold("k", 60.0)
    await engine.release("k")
    assert [(action["verb"], action.get("seconds")) for action in server.actions] == [("hold", 60.0), ("release", None)]
    assert len({action["session"] for action in server.actions}) == 1
    assert engine.answers == {("hold", "accepted"): 1, ("release", "accepted"): 1}


async def test_a_hold_that_comes_before_the_turn_is_over_at_the_server_is_asked_for_again(
    server: Server, engine: VllmEngine
) -> None:
    server.answers["hold"] = ["missing", "missing", "accepted"]
    await engine.hold("k", 60.0)
    assert engine.answers == {("hold", "accepted"): 1}


@pytest.mark.parametrize("answer", ["missing", "refused"])
async def test_a_hold_that_is_not_to_be_had_says_why(server: Server, engine: VllmEngine, answer: str) -> None:
    server.answers["hold"] = [answer]
    with pytest.raises(EngineFailed, match="does not hold k"):
        await engine.hold("k", 60.0)
    await engine.aclose()
    assert "close" not in {action["verb"] for action in server.actions}


async def test_closing_the_engine_lets_go_what_it_holds(server: Server) -> None:
    engine = server.connect()
    await engine.hold("a", 60.0)
    await engine.hold("b", 60.0)
    await engine.release("a")
    await engine.aclose()
    assert [(action["verb"], action["session"][-2:]) for action in server.actions[-1:]] == [("close", ":b")]


# -- what a server can


def test_a_server_with_everything_can_everything_that_vllm_can(server: Server) -> None:
    engine = server.connect()
    can = engine.can
    assert (can.tokens, can.cached, can.hold, can.fork, can.mask, can.logprobs) == (True,) * 6
    assert (can.resume, can.preempt, can.weights) == (False,) * 3
    assert (engine.page, engine.room, engine.longest, engine.vocab, engine.eos) == (32, 99, 2048, VOCAB, (EOS,))
    assert engine.server.lacks == ()
    assert repr(engine) == "<VllmEngine m at http://vllm:8000: tokens, cached, hold, fork, mask, logprobs>"


@pytest.mark.parametrize(
    ("change", "lost", "word"),
    [
        ({"plugin": False}, {"hold"}, "holds"),
        ({"counts": False}, {"cached"}, "cached tokens"),
        ({"grammars": False}, {"mask"}, "our grammars"),
        ({"caching": "False"}, {"hold", "fork"}, "shared prefixes"),
        ({"fields": tuple(f for f in FIELDS if f != "session_id")}, set(), "session_id"),
    ],
)
def test_what_a_server_lacks_is_off_and_named(
    server: Server, change: dict[str, Any], lost: set[str], word: str
) -> None:
    for name, value in change.items():
        setattr(server, name, value)
    engine = server.connect()
    wanted = {"tokens", "cached", "hold", "fork", "mask", "logprobs"}
    assert {name for name in wanted if not getattr(engine.can, name)} == lost
    assert [word in lack for lack in engine.server.lacks] == [True]


async def test_without_our_plug_in_turns_run_and_ask_for_nothing_that_is_not_there(server: Server) -> None:
    server.plugin, server.fields = False, ("prompt", "return_token_ids")
    engine = server.connect()
    assert (engine.page, engine.room) == (32, 100)
    await told(engine, job(key="k", salt="s"))
    assert not {"kv_transfer_params", "session_id", "cache_salt"} & server.asked[0].keys()
    await engine.aclose()


def test_a_server_that_gives_no_token_ids_is_named_and_not_used(server: Server) -> None:
    server.fields = ("prompt",)
    with pytest.raises(Unable, match="gives no token ids"):
        server.connect()


def test_a_model_that_is_not_served_is_named(server: Server) -> None:
    with pytest.raises(EngineFailed, match="serves m, not other"):
        server.connect(model="other")


def test_where_nobody_answers_the_address_is_named() -> None:
    def nobody(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused")

    with pytest.raises(EngineFailed, match=r"nobody answers at http://vllm:8000 \(connection refused\)"):
        VllmEngine.connect("http://vllm:8000", transport=httpx.MockTransport(nobody))


@pytest.mark.parametrize("body", ["<html>", "[]", '{"data": 5}', '{"data": [{"name": "x"}]}'])
def test_what_lists_no_models_is_named(body: str) -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, text=body))
    with pytest.raises(EngineFailed, match="serves nothing, not a model"):
        VllmEngine.connect("http://vllm:8000", transport=transport)


def test_a_model_whose_files_are_elsewhere_needs_a_tokenizer(server: Server, model: Path, tmp_path: Path) -> None:
    server.root = str(tmp_path / "elsewhere")
    with pytest.raises(ModelNotFound, match="give tokenizer="):
        server.connect()
    assert server.connect(tokenizer=str(model)).name == "elsewhere"


def test_a_key_goes_with_every_request(server: Server) -> None:
    server.connect(api_key="secret")
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret"}


# -- behind a host


@pytest.fixture
def host(server: Server) -> Iterator[Host]:
    with Host(server.connect()) as opened:
        yield opened


def test_a_call_is_constrained_by_our_grammar_at_the_server_and_its_context_is_held(server: Server, host: Host) -> None:
    call = '<tool_call>{"name": "now", "arguments": {}}</tool_call>'
    server.events = [event(call), event("", end="stop", ids=(EOS,)), COUNTED]
    ask = Ask((Message("user", "x"),), (TOOL,), choice=Choice("any"), program="agent", sampling=Sampling(max_tokens=90))
    answer = host.ask(ask).wait()
    assert [(each.name, each.arguments) for each in answer.calls] == [("now", {})]
    assert answer.facts.reused_tokens == 4
    grammar = server.asked[0]["structured_outputs"]["grammar"]
    assert re.match(r'start: *"<tool_call>" body', grammar)
    assert "%json {" in grammar
    assert '"name": ?"now"' in grammar
    host.close()
    assert [action["verb"] for action in server.actions] == ["hold", "close"]
    assert all(action["session"].endswith(":agent|main") for action in server.actions)


# -- the command


def test_the_command_names_connector_plug_in_and_what_the_engine_wants_to_know() -> None:
    command = command_line("some/model", port=9, terms=Terms(share=0.4), more=["--max-model-len", "99"])
    assert command[:3] == ["vllm", "serve", "some/model"]
    transfer = json.loads(command[command.index("--kv-transfer-config") + 1])
    assert transfer["kv_connector_module_path"] == "sostenuto.runtime.engines.vllm.connector"
    assert transfer["kv_connector_extra_config"] == {"share": 0.4, "lease_s": 2.0, "longest_s": 600.0}
    assert command[-2:] == ["--max-model-len", "99"]
    line = shown(command, environment(cpus=2))
    assert line.startswith("VLLM_PLUGINS=sostenuto VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=0-1 vllm serve ")
