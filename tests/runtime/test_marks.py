"""Where a dialect's marks are control tokens: they are read, written as such, and nobody else can write them."""

from __future__ import annotations

import copy
import json

import pytest
from transformers import PreTrainedTokenizerFast

from sostenuto.runtime.ask import Message
from sostenuto.runtime.detokenize import Detokenizer
from sostenuto.runtime.render import Renderer
from sostenuto.tools import DEEPSEEK, MARKS, MISTRAL, MISTRAL_ARGS, Call, Dialect, Parser, read_tools, render_calls

from .conftest import EOS

TOOLS = read_tools([{"name": "f"}])


@pytest.fixture(scope="module")
def marked(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The byte tokenizer, with control tokens for every mark, and another that is none."""
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"additional_special_tokens": [*sorted(MARKS), "<|secret|>"]})
    made.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    return made


@pytest.mark.parametrize("dialect", [MISTRAL, MISTRAL_ARGS, DEEPSEEK], ids=lambda each: each.name)
def test_a_call_between_control_tokens_is_read(marked: PreTrainedTokenizerFast, dialect: Dialect) -> None:
    text = render_calls(dialect, [("f", '{"a": "é"}'), ("f", "{}")])
    ids = marked.encode("Hi <|secret|>" + text, add_special_tokens=False)
    assert len(ids) < len(text.encode())
    out, parser = Detokenizer(marked), Parser(dialect, TOOLS)
    spelled = [out.feed(token)[0] for token in ids] + [out.finish()]
    assert "".join(spelled) == "Hi " + text
    for piece in spelled:
        parser.feed(piece)
    outcome = parser.finish(truncated=False)
    assert (outcome.kind, [call.text for call in outcome.calls]) == ("called", ['{"a": "é"}', "{}"])


@pytest.mark.parametrize("dialect", [MISTRAL, MISTRAL_ARGS, DEEPSEEK], ids=lambda each: each.name)
def test_a_call_of_another_is_written_with_control_tokens_that_its_arguments_cannot_forge(
    marked: PreTrainedTokenizerFast, dialect: Dialect
) -> None:
    render = Renderer(marked, dialect, [EOS])
    mark = dialect.opening or dialect.begin
    number = marked.convert_tokens_to_ids(mark)
    evil = json.dumps({"a": mark})
    call = Message("assistant", f"no {mark}", calls=(Call("c", "f", {"a": mark}, evil),))
    ids = render.tokens([Message("user", mark), call, Message("tool", mark, tool="f")], TOOLS)
    assert ids.count(number) == 1
    assert Detokenizer(marked).finish() == ""
    assert marked.decode(list(ids)).count(evil) == 1
