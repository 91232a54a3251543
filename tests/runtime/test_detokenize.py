"""Text comes as soon as it is final: whole characters only, and never a stop string."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from sostenuto.runtime.detokenize import Detokenizer

from .conftest import EOS, spelling

TEXTS = ["plain", "naïve café", "日本語のテキスト", "a 🙂 b 👩🏽‍🚀 c", " two  spaces ", "\n\n\tlines\r\n", "é́"]


def spell(detokenizer: Detokenizer, tokens: list[int]) -> tuple[list[str], bool]:
    """The pieces of text, up to a stop or to the end."""
    pieces = []
    for token in tokens:
        text, stopped = detokenizer.feed(token)
        pieces.append(text)
        if stopped:
            return pieces, True
    return [*pieces, detokenizer.finish()], False


@pytest.mark.parametrize("text", TEXTS)
def test_the_pieces_add_up_and_none_holds_half_a_character(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    pieces, _ = spell(Detokenizer(tokenizer), tokenizer.encode(text))
    assert "".join(pieces) == text
    assert len(pieces) == len(text.encode()) + 1, "one token is one byte here"
    assert "\ufffd" not in "".join(pieces)


def test_an_emoji_comes_with_its_last_token(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces, _ = spell(Detokenizer(tokenizer), tokenizer.encode("a🙂b"))
    assert pieces == ["a", "", "", "", "🙂", "b", ""]


def test_bytes_that_never_become_a_character_are_shown_as_such_and_lose_nothing(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    half = tokenizer.encode("🙂")[:2]
    pieces, _ = spell(Detokenizer(tokenizer), [*half, *tokenizer.encode("ok"), *half])
    assert "".join(pieces) == "\ufffdok\ufffd"


def test_special_tokens_are_silent(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces, _ = spell(Detokenizer(tokenizer), [*tokenizer.encode("a"), EOS, *tokenizer.encode("b")])
    assert "".join(pieces) == "ab"


def test_a_stop_string_that_comes_in_parts_never_appears(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces, stopped = spell(Detokenizer(tokenizer, ["END"]), tokenizer.encode("the END of it"))
    assert stopped
    assert "".join(pieces) == "the "
    assert pieces[-3:] == ["", "", ""], "E and N were held back"


def test_what_only_looked_like_a_stop_string_is_let_go(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces, stopped = spell(Detokenizer(tokenizer, ["ENDS"]), tokenizer.encode("ENENDED"))
    assert not stopped
    assert "".join(pieces) == "ENENDED"
    assert spell(Detokenizer(tokenizer, ["ENDS"]), tokenizer.encode("the EN"))[0][-1] == "EN"


def test_a_stop_string_that_begins_inside_a_false_beginning_is_found(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces, stopped = spell(Detokenizer(tokenizer, ["aab"]), tokenizer.encode("xaaaab"))
    assert (stopped, "".join(pieces)) == (True, "xaa")


def test_of_several_stop_strings_the_first_in_the_text_ends_it(tokenizer: PreTrainedTokenizerFast) -> None:
    stops = ["three", "two", "one two"]
    assert "".join(spell(Detokenizer(tokenizer, stops), tokenizer.encode("one two three"))[0]) == ""
    assert "".join(spell(Detokenizer(tokenizer, stops), tokenizer.encode("a two three"))[0]) == "a "


def test_a_stop_string_may_hold_an_emoji(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces, stopped = spell(Detokenizer(tokenizer, ["🙂!"]), tokenizer.encode("hm 🙂? no 🙂! never"))
    assert (stopped, "".join(pieces)) == (True, "hm 🙂? no ")


@settings(max_examples=60, deadline=None)
@given(st.text("ab 🙂é", max_size=20), st.lists(st.text("ab🙂", min_size=1, max_size=3), max_size=3))
def test_for_any_text_and_stop_strings_out_comes_what_stands_before_the_first_stop(text: str, stops: list[str]) -> None:
    tokenizer = spelling()
    pieces, stopped = spell(Detokenizer(tokenizer, stops), tokenizer.encode(text))
    # The stop that is complete first wins; of those that end together, the one that begins first.
    ends = [(text.index(stop) + len(stop), text.index(stop)) for stop in stops if stop in text]
    assert stopped == bool(ends)
    assert "".join(pieces) == (text[: min(ends)[1]] if ends else text)
