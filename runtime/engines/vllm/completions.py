"""The wire of a turn: a completion request with token ids in and out, and the stream that answers it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from ...errors import EngineFailed, Unable
from ...sampling import Sampling
from .. import End, Job, Usage
from .server import Server
from .wishes import NAME

STOPS = 4
"""Stop strings that vLLM takes at most; with more, whoever reads the answer has to end it."""
_NEVER = -9999.0
"""What vLLM writes for the log of nothing."""
_ENDS: Mapping[str, End] = {"stop": "stop", "length": "length"}


@runtime_checkable
class Sourced(Protocol):
    """A grammar that another process can compile."""

    @property
    def source(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Token:
    """As the server told it."""

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Event:
    """One event of the stream."""

    tokens: tuple[Token, ...] = ()
    end: End | None = None
    usage: Usage | None = None


def body(job: Job, server: Server, eos: tuple[int, ...], lease: Mapping[str, Any] | None) -> dict[str, Any]:
    """The request of a turn; `lease` is what it asks of our connector. Raises Unable for what cannot be asked."""
    if job.forced is not None:
        raise Unable("vLLM says what its model says: a recorded answer cannot be replayed on it")
    sampling = job.sampling
    room = server.longest - len(job.tokens)
    found: dict[str, Any] = {
        "model": server.model,
        "prompt": list(job.tokens),
        "max_tokens": max(1, min(sampling.max_tokens - (len(job.tokens) - job.prompt), room)),
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "stop_token_ids": list(eos),
        **_sampled(sampling),
    }
    if job.grammar is not None:
        if not isinstance(job.grammar, Sourced):
            raise Unable(f"{type(job.grammar).__name__} has no source that vLLM could compile")
        found["structured_outputs"] = {"grammar": job.grammar.source}
    if job.salt and server.takes("cache_salt"):
        found["cache_salt"] = job.salt
    if server.priority:
        found["priority"] = job.priority
    if lease is not None:
        found["kv_transfer_params"] = {NAME: dict(lease)}
    return found


def measured(job: Job, token: Token) -> tuple[float, float, float]:
    """(logprob, drawn, tempered) of a token, as `Said` has them; NaN where vLLM does not tell.

    It tells the log probability before penalties and temperature, but after the grammar's mask.
    """
    sampling = job.sampling
    plain = sampling.repetition_penalty == 1.0 and not sampling.presence_penalty and not sampling.frequency_penalty
    even = sampling.temperature in (0, 1)
    drawn = token.logprob if plain and even else math.nan
    tempered = token.logprob if even and job.grammar is None else math.nan
    return token.logprob, drawn, tempered


def read(line: str, url: str) -> Event | None:
    """One line of the stream; None for one that tells nothing. Raises EngineFailed for an error the server tells."""
    if not line.startswith("data:"):
        return None
    data = line.removeprefix("data:").strip()
    if data in ("", "[DONE]"):
        return None
    try:
        found = json.loads(data)
        if error := found.get("error"):
            message = error.get("message", error) if isinstance(error, dict) else error
            raise EngineFailed(f"{url} broke the answer off: {message}")
        usage = _usage(found.get("usage"))
        choices = found.get("choices") or ()
        if not choices:
            return Event(usage=usage)
        choice = choices[0]
        return Event(tuple(_tokens(choice)), _end(choice.get("finish_reason"), url), usage)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise EngineFailed(f"{url} sent an event that is no completion ({error!r}): {data[:200]}") from error


def _sampled(sampling: Sampling) -> dict[str, Any]:
    """Everything is said: what is left out the server would take from the model's own defaults."""
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "logprobs": sampling.logprobs or 0,
        **({"seed": sampling.seed} if sampling.seed is not None else {}),
        **({"stop": list(sampling.stop)} if 0 < len(sampling.stop) <= STOPS else {}),
    }


def _tokens(choice: Mapping[str, Any]) -> Iterator[Token]:
    ids = choice.get("token_ids") or ()
    told = choice.get("logprobs") or {}
    rates = told.get("token_logprobs") or (None,) * len(ids)
    tops = told.get("top_logprobs") or (None,) * len(ids)
    for number, rate, top in zip(ids, rates, tops, strict=True):
        told_top = ((_id(name), float(value)) for name, value in (top or {}).items())
        likeliest = sorted((each for each in told_top if each[1] > _NEVER), key=lambda each: -each[1])
        yield Token(int(number), math.nan if rate is None else float(rate), tuple(likeliest))


def _id(name: str) -> int:
    return int(name.removeprefix("token_id:"))


def _end(reason: object, url: str) -> End | None:
    if reason is None:
        return None
    if not isinstance(reason, str) or reason not in _ENDS:
        raise EngineFailed(f"{url} ended the answer with {reason!r}")
    return _ENDS[reason]


def _usage(found: Any) -> Usage | None:
    if not found:
        return None
    details = found.get("prompt_tokens_details") or {}
    return Usage(found.get("prompt_tokens"), details.get("cached_tokens"), found.get("completion_tokens"))
