"""The packaged model at temperature 2: whatever it babbles, every call that it ends is valid as it was drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from sostenuto.runtime.answer import Answer, Answering
from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.tools import Bounds, Choice, Dispatch, GrammarRefused, Tool, decide, read_tools, validators
from sostenuto.tools.grammars.compiling import Compiling

from ..tools.conftest import NOW, backend
from ..tools.test_real_schemas import rows
from ..tools.test_sampled import TOOLS

__all__ = ["backend"]

MOST = 160
AT_ONCE = 24
MODES = ("auto", "any", "named")


@pytest.fixture(scope="module")
def opened() -> Iterator[Host]:
    with Host.open(pool_tokens=16_384) as host:
        yield host


@pytest.fixture
def host(opened: Host, backend: Any, monkeypatch: pytest.MonkeyPatch) -> Host:
    """With the grammars of every engine that is installed; what has no bounds of its own is short."""
    speaker: Any = opened.engine
    tokenizer = speaker.tokenizer.backend_tokenizer.to_str()
    made = backend(tokenizer, eos=speaker.eos, vocab=speaker.vocab, bounds=Bounds(characters=8, items=2))
    monkeypatch.setattr(opened.voice, "compiler", made)
    return opened


def drawn(host: Host, tool: Tool, number: int) -> Answering:
    """An answer in one of the three modes. In `auto`, where chance hardly ever begins a call, it is begun."""
    mode: Any = MODES[number % 3]
    ask = Ask(
        (Message("user", "Go."),),
        (tool, NOW),
        choice=Choice(mode, tool.name if mode == "named" else None),
        parallel=False,
        sampling=Sampling(temperature=2.0, seed=number, max_tokens=MOST),
    )
    begun = host.render._encode("Well. <tool_call>") if mode == "auto" else []
    prompt = host.render._encode(f"<|im_start|>user\nCall {tool.name}.<|im_end|>\n<|im_start|>assistant\n")
    return host.resume(ask, [*prompt, *begun], said=len(begun))


def judged(answer: Answer, tool: Tool) -> str:
    """`valid` or `truncated`; anything else is a fault and says which."""
    if answer.outcome.kind != "called":
        return answer.outcome.kind if answer.outcome.kind == "truncated" else f"{answer.outcome.kind}: {answer.text}"
    checks = validators([tool, NOW])
    fine = all(isinstance(decide(call, [tool, NOW], checks), Dispatch) for call in answer.calls)
    return "valid" if fine else f"invalid: {answer.text}"


def counted(host: Host, tools: Sequence[tuple[int, Tool]]) -> Counter[str]:
    """What becomes of one answer for each of these, `AT_ONCE` of them in a batch."""
    counts: Counter[str] = Counter()
    compiler: Any = host.voice.compiler
    for start in range(0, len(tools), AT_ONCE):
        answering = [(tool, drawn(host, tool, number)) for number, tool in tools[start : start + AT_ONCE]]
        for tool, one in answering:
            found = judged(one.wait(), tool)
            partly = found.startswith("invalid") and compiler.check(tool).residual
            counts["left to the check" if partly else found] += 1
    return counts


def test_every_call_that_the_packaged_model_ends_is_valid_as_it_was_drawn(host: Host) -> None:
    counts = counted(host, [(number, TOOLS[number % len(TOOLS)]) for number in range(48)])
    assert counts.keys() <= {"valid", "truncated"}, counts
    assert counts["valid"] >= 40, counts
    assert counts.total() == 48


@pytest.mark.slow
@pytest.mark.timeout(10_800)
@pytest.mark.shared_data
def test_so_is_every_call_of_every_published_tool(host: Host) -> None:
    compiler: Compiling = host.voice.compiler
    tools = []
    for row in rows("tool_schemas.jsonl"):
        name = "".join(char if char.isalnum() else "_" for char in row["id"])
        (tool,) = read_tools([{"name": name, "parameters": row["input_schema"]}])
        try:
            compiler.check(tool)
        except GrammarRefused:
            continue
        tools.append(tool)
    counts = counted(host, [(12 * place + seed, tool) for place, tool in enumerate(tools) for seed in range(12)])
    assert counts.keys() <= {"valid", "truncated", "left to the check"}, counts
    assert counts["valid"] >= 2000, counts
