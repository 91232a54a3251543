"""One model, its pool and its schedule, shared by every door that leads to them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any, cast, get_args
from uuid import uuid4

from ..kvstore import RAW, is_exact
from ..kvstore.hints import Reply
from ..kvstore.tiers import DiskTier
from ..scheduler import Closed, Event, KvPolicy, Marked, Policy, ProgramId, Setting, Unmarked, named
from ..tools import HERMES, Grammar, Parser, Prose
from ..tracing import here
from .answer import Answering
from .ask import Ask
from .below import Below, Tiers, owned
from .called import Called
from .engines import Mode, Speaker, StepEngine, TurnEngine
from .errors import Refused, Unable
from .guards import Guards
from .hinted import hinted
from .kv_events import KvEvents
from .loop import Loop
from .parcels import Parcels
from .remnant import Remnant
from .render import Renderer
from .request import Request
from .saved import Saved
from .thinning import Thinner
from .ticket import Ticket
from .turn import left
from .voice import Voice
from .weights import Running
from .workshop import Workshop

_MORE = "allow more, ask with less, or leave it to the model whether it calls (tool_choice auto)"

POOL_TOKENS = 16_384
"""Tokens the pool holds unless said otherwise: 360 MB with the packaged model."""


class Host:
    """A model behind a scheduler. Open one per process and model; close it, or use it in a `with`.

    `repr` shows the model and the schedule.
    """

    def __init__(
        self,
        engine: StepEngine | TurnEngine,
        *,
        policy: str | Policy = "sostenuto",
        journal: Path | None = None,
        below: Sequence[Below] = (),
        setting: Setting | None = None,
        guards: Guards | None = None,
    ) -> None:
        """`policy` is a name, or a policy of your own; `setting` what the schedule is told of machine and tools;
        `guards` what stands before the model and behind it.

        `below` are the tiers below the device, nearest first; Unable for an engine that cannot use them.

        They are closed with the host, and also if there comes to be none.
        """
        self.engine = engine
        self.can = engine.can
        with owned(below):
            # What takes messages is spoken to in messages, and its calls come in the plainest of the dialects.
            self._voice = Voice(cast(Speaker, engine), engine.name) if engine.can.tokens else None
            self.dialect = self._voice.dialect if self._voice is not None else HERMES
            self.loop = Loop(engine, _policy(policy), journal=journal, below=below, setting=setting)
        disk = next((one.tier for one in below if isinstance(one.tier, DiskTier)), None)
        self._saved = None if disk is None else Saved(self.loop, disk)
        self.guards = guards or Guards()
        self.parcels = Parcels(self.loop)
        self.kv_events = KvEvents(self.loop)
        self.thinner = Thinner(self.loop)
        self._workshop = Workshop()
        self._numbers = count(1)
        self._tended: Counter[str] = Counter()
        self._tending = Lock()

    @property
    def closed(self) -> bool:
        """Nobody is let in any more."""
        return self.loop.closed

    @classmethod
    def open(
        cls,
        model: str | None = None,
        *,
        policy: str | Policy = "sostenuto",
        pool_tokens: int = POOL_TOKENS,
        setting: Setting | None = None,
        journal: Path | None = None,
        dtype: str | None = None,
        mode: Mode = "exact",
        host_tokens: int = 0,
        store: Path | str | None = None,
        store_tokens: int | None = None,
        remote: str | None = None,
        guards: Guards | None = None,
    ) -> Host:
        """Load a model (a directory, a GGUF file, a hub id; None: the packaged one) and serve it.

        Contexts that leave the device are kept in host memory, for `host_tokens`, in the folder `store`, for
        `store_tokens` or without an end, where they outlive the process, and in the Redis or Valkey at the address
        `remote`, where other hosts of the same model find them. A server that is not there, now or later, is a
        warning in the log: the host goes on without it, and asks it again with what comes later.

        In the mode `fast` steps of few rows read the blocks of four bits of a GGUF file, the packaged one among them:
        sooner, and with bits that depend on how many turns run.

        Raises ModelNotFound or ModelUnsupported, and before anything is loaded ValueError for an unknown policy or
        no address, MissingPackage for `remote` without its package, and TierLocked or BadStore for a folder that
        cannot be used.
        """
        policy = _policy(policy)
        below = Tiers(host_tokens, store, store_tokens, remote)
        below.look()
        # Loading torch takes seconds: only who opens a model pays for it.
        from .engines.torch.engine import TorchEngine
        from .engines.torch.model import Model
        from .engines.torch.ways import Way
        from .engines.torch.weights import locate

        loaded = Model.load(locate(model), dtype=dtype, way=Way(mode=mode))
        engine = TorchEngine(loaded, pool_tokens=pool_tokens)
        return cls(engine, policy=policy, journal=journal, below=below.open(engine), setting=setting, guards=guards)

    @property
    def mode(self) -> str:
        """`exact`, or how else the engine computes; a server's is not known, and taken to be that."""
        return self.engine.mode if isinstance(self.engine, StepEngine) else "exact"

    @property
    def saved(self) -> Saved:
        """Conversations on the disk. Raises Unable for a host that has none."""
        if self._saved is None:
            raise Unable("this host keeps nothing on a disk: open it with store=FOLDER")
        return self._saved

    @property
    def voice(self) -> Voice:
        """How the model speaks. Raises Unable for an engine that takes no token ids."""
        if self._voice is None:
            raise Unable(f"{self.engine.name} takes messages and gives text: its tokens are not ours to choose")
        return self._voice

    @property
    def render(self) -> Renderer:
        """Messages to tokens. Raises Unable as `voice` does."""
        return self.voice.render

    def ask(self, ask: Ask) -> Answering:
        """Hand a question in; returns at once."""
        return self.resume(ask, self.render.tokens(ask.messages, ask.tools) if self.can.tokens else ())

    def resume(
        self,
        ask: Ask,
        tokens: Sequence[int],
        *,
        said: int = 0,
        forced: tuple[int, ...] | None = None,
        remnant: Remnant | None = None,
    ) -> Answering:
        """As `ask`, with the prompt given as tokens, the last `said` of which are the answer's own beginning.

        `forced` is said instead of an answer of the model's own. With `remnant`, which lies behind the tokens, the
        answer stands on that and on what follows; ContextLost comes out of it where some of that is gone. Raises
        Unable for what the engine cannot do.
        """
        self._check(ask, begun=bool(said or forced))
        if self.can.tokens:
            tokens = self.voice.check(tokens)
        guarded = self.guards.admit(ask, tokens, lambda: self._made_with(ask), fresh=not (said or forced or remnant))
        number = next(self._numbers)
        begun = tuple(tokens[len(tokens) - said :])

        def parser() -> Parser | Prose:
            if ask.choice.mode == "none":
                return Prose()
            ids = count(1)
            allowed = None if ask.granted is None else [tool.name for tool in ask.granted]
            return Parser(
                self.dialect, ask.tools, ids=lambda: f"call_{self._salt}{number}_{next(ids)}", allowed=allowed
            )

        before = self.voice.spell(begun, ask.sampling.stop) if begun else ""
        if guarded.kept is not None:
            return Answering(guarded.kept, parser(), tuple(tokens))

        called = Called(parser, before, ask.tools) if ask.tools and ask.returns else None
        request = Request(
            program=ask.program or f"alone-{uuid4()}",
            branch=ask.branch,
            tokens=tuple(tokens),
            sampling=ask.sampling,
            tenant=ask.tenant,
            codec=ask.codec,
            said=said,
            tools_called=called.names if called is not None else lambda text, reason: (),
            shape=called.shape if called is not None else lambda text, reason: "",
            forced=forced,
            tended=bool(ask.program) and ask.tended,
            timeout=ask.timeout,
            ask=ask,
            place=here(),
            remnant=remnant,
            watches=self.guards.watches,
        )
        return Answering(self._submitted(request, begun), parser(), request.tokens, before, hears=guarded.hears)

    def _check(self, ask: Ask, *, begun: bool) -> None:
        """Raises Unable for what the engine cannot do."""
        if begun and not self.can.resume:
            raise Unable(f"{self.engine.name} cannot go on with an answer that was begun: ask anew")
        if ask.sampling.logprobs and not self.can.logprobs:
            raise Unable(f"{self.engine.name} does not tell how likely its tokens were: ask without logprobs")
        if not (is_exact(ask.codec) or self.can.tiers):
            raise Unable(f"{self.engine.name} keeps its contexts to itself: ask it without the codec {ask.codec}")
        if self.guards.watches and not self.can.mask:
            raise Unable(f"{self.engine.name} shows its logits to nobody: leave the guards that look at them out")

    def _submitted(self, request: Request, begun: tuple[int, ...]) -> Ticket:
        """With a grammar where one is wanted; it is built where no event loop waits for it."""
        ask = request.ask
        if ask is None or not (self.can.mask and request.forced is None and self.voice.constrains(ask)):
            return self.loop.submit(request)
        key = repr((ask.tools, ask.granted, ask.choice, ask.parallel, ask.schema))
        return self._workshop.bring(
            key,
            lambda: self._grammar(ask, request.tokens, begun),
            lambda grammar, ticket: self.loop.submit(replace(request, grammar=grammar), ticket),
        )

    def _grammar(self, ask: Ask, tokens: tuple[int, ...], begun: tuple[int, ...]) -> Grammar | None:
        """Raises Refused where a call must come and cannot: it would be cut off, and all its tokens for nothing."""
        room = left(self.engine, len(tokens))
        most = min(ask.sampling.max_tokens, room)
        least = 0 if ask.parts else self.voice.least(ask, len(begun) + most)
        if len(begun) + most < least:
            found = f"max_tokens is {most}" if most < room else f"the context has room for {room} more"
            raise Refused(f"{found}, and every call that may come takes at least {least} tokens: {_MORE}")
        return self.voice.grammar(ask, begun)

    def root(self, tenant: str = "default", codec: str = RAW) -> str:
        """The root of a tenant's context names under the present weights and a codec, in hex."""
        return self.loop.root(tenant, codec)

    def mark(
        self,
        key: str,
        tokens: Sequence[int],
        *,
        tenant: str = "default",
        codec: str = RAW,
        remnant: Remnant | None = None,
    ) -> None:
        """Keep a context under a name, as far as it is computed, until `unmark`, its time's end or need of its room.

        Marking again under the same name replaces the mark. `remnant` is what is left of its beginning, if that was
        thinned. An engine that cannot fork is not asked.
        """
        if self.can.fork:
            root, known = self.root(tenant, codec), self.voice.check(tokens)
            if remnant is not None:
                root, known = remnant.root(root), remnant.slots(known)
            self.loop.tell(Marked(key, root, known))

    def unmark(self, *keys: str) -> None:
        """Nobody will come back to these; unknown ones are ignored."""
        self.loop.tell(Unmarked(keys))

    def hint(self, message: object, *, tenant: str = "default") -> tuple[Reply, ...]:
        """Wishes of a tenant for what is kept: an envelope of hints (`kvstore.hints`), as JSON or as plain objects.

        Every hint is answered, also one that is nonsense; none changes what is said.
        """
        try:
            text = message if isinstance(message, str) else json.dumps(message)
        except (TypeError, ValueError, RecursionError):
            text = type(message).__name__  # no JSON: it is answered like any other nonsense
        return self.loop.within(hinted(self.loop, text, tenant, next(self._numbers))).result()

    def tell(self, event: Event) -> None:
        """Report what happened to a program outside the model."""
        self.loop.tell(event)

    def begin(self, program: str) -> None:
        """Somebody tends this program from now on, until `end`; there may be several."""
        with self._tending:
            self._tended[program] += 1

    def end(self, program: str, why: str = "finished", *, over: bool = True) -> None:
        """One of those leaves. With the last, what the program holds is let go, unless it is not `over`."""
        with self._tending:
            self._tended[program] -= 1
            last = self._tended[program] <= 0
            if last:
                del self._tended[program]
        if last and over:
            self.finish(program, why)

    def finish(self, program: str, why: str = "finished") -> None:
        """A program is over, whoever tends it: what it holds is let go at once, and its turns end."""
        self.loop.tell(Closed(ProgramId(program), why))

    def abort(self, program: str | None = None) -> int:
        """End every turn, or those of one program, where they stand; returns how many that was.

        Their answers come with the reason `abort` and all that was said, and a session can go on with them.
        """
        self._workshop.wait()  # a turn whose grammar is being built is one of them
        return self.loop.abort(program)

    def update_weights(
        self,
        tensors: Iterable[tuple[str, Any]],
        *,
        version: int | None = None,
        kv: KvPolicy = "salt",
        running: Running = "refuse",
    ) -> int:
        """Overwrite weights by name between two steps; returns the version, one more than before unless given.

        `kv` says what becomes of contexts: `salt` (whoever comes computes anew, whoever runs keeps its own),
        `drop` (and what nobody uses is freed), `recompute` (and whoever runs computes anew), `keep` (they are used
        on). `running` says what becomes of turns on their way: the update is refused, they are kept, or aborted.
        Raises Unable, Busy, and ValueError, with nothing changed, for weights that do not fit.
        """
        for name, found, known in (("kv", kv, get_args(KvPolicy)), ("running", running, get_args(Running))):
            if found not in known:
                raise ValueError(f"{name}: found {found!r}; expected one of {', '.join(known)}")
        given = dict(tensors)
        return self.loop.update(lambda new: self._load(given, new), version, kv=kv, running=running).result()

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

    def _made_with(self, ask: Ask) -> str:
        """What an answer depends on besides the question: the model, its weights, how contexts are stored."""
        return f"{self.engine.fingerprint} {self.root(ask.tenant, ask.codec)} {self.mode}"

    def _load(self, tensors: Mapping[str, Any], version: int) -> None:
        assert isinstance(self.engine, StepEngine)  # others say that they cannot
        self.engine.load(tensors, version)


def _policy(given: str | Policy) -> Policy:
    return named(given) if isinstance(given, str) else given
