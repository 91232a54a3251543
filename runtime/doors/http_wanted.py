"""What a request asks of the host: the fields that both completion routes share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from ..ask import Ask
from ..errors import BadRequest
from ..sampling import Sampling
from .http_fields import Fields
from .http_messages import Said
from .response_format import FORM, schema_of

CHOICES = 128
"""Most answers to one prompt, and most prompts of one request."""
NAME = 256
"""Most characters of a session's name."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a tenant, by its key, and the session it names."""

    tenant: str
    session: str = ""

    def program(self) -> str:
        """The session's program; without a name, one that nobody else can mean."""
        return program_of(self.tenant, self.session or f"alone-{uuid4()}")


@dataclass(frozen=True, slots=True)
class Question:
    """One answer that is wanted. `tokens` are the prompt, where it came as text or ids and not as messages."""

    ask: Ask
    tokens: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request: its questions, one a choice, and how the answers are to be told."""

    questions: tuple[Question, ...]
    caller: Caller
    each: int = 1
    """So many questions, one after the other, share a prompt."""
    stream: bool = False
    usage: bool = False
    """A stream ends with what was used."""
    logprobs: bool = False
    ids: bool = False
    """Token ids stand beside the text."""
    close: bool = False
    """The session is over after this."""

    @property
    def sampling(self) -> Sampling:
        return self.questions[0].ask.sampling


def program_of(tenant: str, session: str) -> str:
    """The program of a tenant's session; a tenant's name holds no slash, so that no two meet."""
    return f"{tenant}/{session}"


def read_caller(fields: Fields, tenant: str, header: str | None) -> Caller:
    """The session comes in the body or in a header."""
    session = fields.text("session_id") or header or ""
    if header and session != header:
        raise fields.wrong("session_id", f"the same as the header X-Session-ID says, {header!r}, or only one of them")
    return Caller(tenant, check_session(session))


def check_session(name: str) -> str:
    """A session's name, empty for none."""
    if len(name) > NAME or not name.isprintable():
        raise BadRequest("session_id", name, f"at most {NAME} printable characters")
    return name


def read_wanted(fields: Fields, caller: Caller, **told: bool) -> Wanted:
    """Everything but the questions."""
    stream = fields.flag("stream")
    if fields.raw("stream_options") is not None and not stream:
        raise fields.wrong("stream_options", "nothing where nothing is streamed: set stream, or leave it out")
    hints = fields.inner("hints")
    hints.only("close")
    usage = fields.inner("stream_options").flag("include_usage")
    return Wanted((), caller, stream=stream, usage=usage, close=hints.flag("close"), **told)


def read_sampling(fields: Fields, *, max_tokens: int, logprobs: int | None) -> Sampling:
    """Sampling by OpenAI's names and defaults, and ours beside them. Raises BadRequest and BadSampling."""
    fields.refuse("logit_bias", "single tokens cannot be favoured or forbidden here", unless=({},))
    top_k = fields.whole("top_k", 0)
    return Sampling(
        temperature=fields.number("temperature", 1.0),
        top_p=fields.number("top_p", 1.0),
        top_k=0 if top_k == -1 else top_k,  # as others say "all"
        min_p=fields.number("min_p", 0.0),
        repetition_penalty=fields.number("repetition_penalty", 1.0),
        presence_penalty=fields.number("presence_penalty", 0.0),
        frequency_penalty=fields.number("frequency_penalty", 0.0),
        seed=fields.whole("seed", 0, least=-(2**63), most=2**63 - 1) if fields.raw("seed") is not None else None,
        logprobs=logprobs,
        stop=fields.texts("stop"),
        max_tokens=max_tokens,
    )


def read_schema(fields: Fields) -> Mapping[str, Any] | None:
    """The JSON Schema that `response_format` wants the whole answer to fit."""
    try:
        return schema_of(fields.raw("response_format"))
    except ValueError:
        raise fields.wrong("response_format", FORM) from None


def read_timeout(fields: Fields) -> float | None:
    """Seconds that the answer may take."""
    if fields.raw("timeout") is None:
        return None
    seconds = fields.number("timeout", 0.0)
    if seconds <= 0:
        raise fields.wrong("timeout", "seconds above 0")
    return seconds


def read_count(fields: Fields) -> int:
    """How many answers to a prompt are wanted."""
    return fields.whole("n", 1, least=1, most=CHOICES)


def several(question: Question, count: int) -> tuple[Question, ...]:
    """The same question so many times: siblings that share the prompt, each with a line and a seed of its own."""
    ask, seed = question.ask, question.ask.sampling.seed
    siblings = [question]
    for index in range(1, count):
        sampling = replace(ask.sampling, seed=None if seed is None else seed + index)
        siblings.append(replace(question, ask=replace(ask, sampling=sampling, branch=f"{ask.branch}~{index}")))
    return tuple(siblings)


def place(caller: Caller, last: Said | None) -> dict[str, Any]:
    """Where a question stands among the programs.

    A session is tended: its caller says when it is over. Without one, who sends our own calls back goes on where they
    were made, and whatever is held for that gives way to everybody.
    """
    if caller.session:
        return {"program": caller.program(), "branch": last.branch if last else "main", "tended": True}
    if last is not None:
        return {"program": last.program, "branch": last.branch, "tended": False}
    return {"program": caller.program(), "tended": False}
