"""Answers as objects, by a call and by JSON."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain_core.exceptions import OutputParserException
from pydantic import BaseModel
from typing_extensions import TypedDict

from sostenuto.runtime.doors.langgraph import ChatSostenuto

from .conftest import Say


class Review(BaseModel):
    """A review of a book."""

    good: bool
    stars: Literal[1, 2, 3]


class ReviewDict(TypedDict):
    """A review of a book."""

    good: bool
    stars: int


ASK = "Review: 'A fine book, I read it twice.'"
METHODS = pytest.mark.parametrize("method", ["function_calling", "json_schema"])


@METHODS
def test_the_model_is_held_to_a_class(model: ChatSostenuto, method: Any) -> None:
    answer = model.with_structured_output(Review, method=method).invoke(ASK)
    assert isinstance(answer, Review)


@METHODS
@pytest.mark.parametrize("schema", [ReviewDict, {**Review.model_json_schema(), "title": "Review"}])
def test_other_schemas_give_dicts(real_model: ChatSostenuto, method: Any, schema: Any) -> None:
    """Numbers without an end are allowed here: the model must end them."""
    answer = real_model.with_structured_output(schema, method=method).invoke(ASK)
    assert isinstance(answer, dict)
    assert {key: type(value) for key, value in answer.items()} == {"good": bool, "stars": int}


def test_an_answer_that_is_no_json_is_told_beside_the_message(model: ChatSostenuto, say: Say) -> None:
    say('{"good": true, "stars"')
    told: Any = model.with_structured_output(Review, method="json_schema", include_raw=True).invoke(ASK)
    assert told["raw"].content == '{"good": true, "stars"'
    assert told["parsed"] is None
    assert isinstance(told["parsing_error"], OutputParserException)


def test_an_answer_that_fits_is_told_beside_the_message(model: ChatSostenuto, say: Say) -> None:
    say('{"good": true, "stars": 3}')
    told: Any = model.with_structured_output(Review, method="json_schema", include_raw=True).invoke(ASK)
    assert told["parsed"] == Review(good=True, stars=3)
    assert told["parsing_error"] is None
