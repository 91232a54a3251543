"""One model, its pool and its schedule, shared by every door that leads to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from uuid import uuid4

from ..kvstore import root
from ..scheduler import Closed, Event, ProgramId, named
from ..tools import Call, Delta, Grammar, Outcome, Parser, Prose, TextDelta, dialect_for
from ..tools.grammars.llguidance import LLGuidanceCompiler
from .ask import Ask
from .engines import End, StepEngine
from .loop import Loop, Request
from .render import Renderer
from .ticket import Chunk, Facts, Piece, Ticket

POOL_TOKENS = 16_384
"""Tokens the pool holds unless said otherwise: 360 MB with the packaged model."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    outcome: Outcome
    text: str
    """All of it as the model wrote it, calls included."""
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    top: tuple[tuple[tuple[int, float], ...], ...]
    reason: End
    facts: Facts

    @property
    def calls(self) -> tuple[Call, ...]:
        return self.outcome.calls


class Answering:
    """An answer while it comes: read `ticket` in the manner of your world, and feed each chunk to `take`."""

    def __init__(self, ticket: Ticket, parser: Parser | Prose) -> None:
        self.ticket = ticket
        self.answer: Answer | None = None
        self._parser = parser
        self._pieces: list[Piece] = []
        self._out = 0  # characters of text outside of calls that went out

    def take(self, chunk: Chunk) -> list[Delta]:
        """What the chunk adds, in the vocabulary of tool calls; after the last one `answer` is there."""
        if isinstance(chunk, Piece):
            self._pieces.append(chunk)
            deltas = self._parser.feed(chunk.text)
            self._out += sum(len(delta.text) for delta in deltas if isinstance(delta, TextDelta))
            return deltas
        outcome = self._parser.finish(truncated=chunk.reason == "length")
        pieces = self._pieces
        self.answer = Answer(
            outcome=outcome,
            text="".join(piece.text for piece in pieces),
            tokens=tuple(piece.token for piece in pieces),
            logprobs=tuple(piece.logprob for piece in pieces),
            top=tuple(piece.top for piece in pieces),
            reason=chunk.reason,
            facts=chunk.facts,
        )
        rest = outcome.text[self._out :]  # held back as the possible beginning of a call
        return [TextDelta(rest)] if rest else []

    def wait(self) -> Answer:
        """Read to the end on this thread."""
        for chunk in self.ticket:
            self.take(chunk)
        return self._done()

    async def arrive(self) -> Answer:
        """Read to the end in this coroutine."""
        async for chunk in self.ticket:
            self.take(chunk)
        return self._done()

    def _done(self) -> Answer:
        assert self.answer is not None  # a ticket ends with `Ended` or raises
        return self.answer


class Host:
    """A model behind a scheduler. Open one per process and model; close it, or use it in a `with`.

    `repr` shows the model and the schedule.
    """

    def __init__(self, engine: StepEngine, *, policy: str = "sostenuto", journal: Path | None = None) -> None:
        tokenizer = engine.tokenizer
        self.engine = engine
        self.dialect = dialect_for(engine.name, getattr(tokenizer, "chat_template", None))
        self.render = Renderer(tokenizer, self.dialect, engine.eos)
        self.compiler = LLGuidanceCompiler(tokenizer.backend_tokenizer.to_str(), eos=engine.eos, vocab=engine.vocab)
        self.loop = Loop(engine, named(policy), journal=journal)
        self._numbers = count(1)

    @classmethod
    def open(
        cls,
        model: str | None = None,
        *,
        policy: str = "sostenuto",
        pool_tokens: int = POOL_TOKENS,
        journal: Path | None = None,
        dtype: str | None = None,
    ) -> Host:
        """Load a model (a directory, a GGUF file, a hub id; None: the packaged one) and serve it.

        Raises ModelNotFound or ModelUnsupported, and ValueError for an unknown policy, before anything is loaded.
        """
        named(policy)
        # Loading torch takes seconds: only who opens a model pays for it.
        from .engines.torch.engine import TorchEngine
        from .engines.torch.model import Model
        from .engines.torch.weights import locate

        engine = TorchEngine(Model.load(locate(model), dtype=dtype), pool_tokens=pool_tokens)
        return cls(engine, policy=policy, journal=journal)

    def ask(self, ask: Ask) -> Answering:
        """Hand a question in; returns at once."""
        tokens = self.render.tokens(ask.messages, ask.tools)
        return self.resume(ask, tokens)

    def resume(self, ask: Ask, tokens: Sequence[int], *, forced: tuple[int, ...] | None = None) -> Answering:
        """As `ask`, with the prompt given as tokens; `forced` is said instead of an answer of the model's own."""
        number = next(self._numbers)
        program = ask.program or f"alone-{uuid4()}"

        def parser() -> Parser | Prose:
            if ask.choice.mode == "none":
                return Prose()
            ids = count(1)
            return Parser(self.dialect, ask.tools, ids=lambda: f"call_{self._salt}{number}_{next(ids)}")

        def tools_called(text: str, reason: End) -> tuple[str, ...]:
            reader = parser()
            reader.feed(text)
            return tuple(call.name for call in reader.finish(truncated=reason == "length").calls)

        request = Request(
            program=program,
            branch=ask.branch,
            root=self.root(ask.tenant),
            tokens=tuple(tokens),
            sampling=ask.sampling,
            grammar=self._grammar(ask) if forced is None else None,
            tools_called=tools_called if ask.tools and ask.returns else lambda text, reason: (),
            forced=forced,
            tended=bool(ask.program) and ask.tended,
            timeout=ask.timeout,
        )
        return Answering(self.loop.submit(request), parser())

    def root(self, tenant: str = "default") -> str:
        """The root of a tenant's context names, in hex."""
        return root(model=self.engine.fingerprint, tenant=tenant).hex()

    def tell(self, event: Event) -> None:
        """Report what happened to a program outside the model."""
        self.loop.tell(event)

    def finish(self, program: str, why: str = "finished") -> None:
        """A program is over: what it holds is let go at once."""
        self.loop.tell(Closed(ProgramId(program), why))

    def close(self) -> None:
        """End the threads; turns on their way get HostClosed. Closing twice is harmless."""
        self.loop.close()

    def __enter__(self) -> Host:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Host {self.engine.name} {self.loop.kernel!r}>"

    _salt = uuid4().hex[:6]

    def _grammar(self, ask: Ask) -> Grammar | None:
        if ask.schema is not None:
            return self.compiler.schema(ask.schema)
        if not ask.constrain or not ask.tools:
            return None
        return self.compiler.tools(ask.tools, ask.choice, self.dialect, parallel=ask.parallel)
