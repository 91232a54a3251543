"""A call of a model as a span, whichever door it came in by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..tracing import ModelCall, Open, Place, model_span
from .answer import Answer
from .ask import Ask
from .call_content import answered, asked
from .call_facts import answer_attributes
from .engines import StepEngine
from .host import Host


@contextmanager
def calling(
    host: Host,
    ask: Ask,
    *,
    conversation: str | None = None,
    stream: bool | None = None,
    served: bool = False,
    parent: Place | None = None,
    current: bool = True,
) -> Iterator[Open]:
    """The span of a question. `served`: it is answered for a client elsewhere, who counts it.

    Parent: the one given, else the ambient one. A stream's reader must not find the span current between two
    chunks: then it is not made so here, and `Open.current` does where the question is handed in.
    """
    sampling = ask.sampling
    call = ModelCall(
        host.engine.name,
        conversation=conversation,
        embedded=isinstance(host.engine, StepEngine),
        served=served,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k or None,
        seed=sampling.seed,
        stop=sampling.stop,
        stream=stream,
        output="json" if ask.schema is not None else "text",
    )
    with model_span(call, parent=parent, current=current) as span:
        span.content(lambda: asked(ask))
        yield span


def tell_answer(span: Open, answer: Answer, host: Host) -> None:
    """What came of it."""
    span.set(answer_attributes(answer, host.engine.name))
    span.content(lambda: answered(answer))
