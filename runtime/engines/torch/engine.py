"""The embedded engine: steps of mixed prefill and decode."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ....kvstore import NOWHERE, Copy, Groups, Seal, is_exact
from ....kvstore.pages import Pages
from ....kvstore.record import Buffer
from ....kvstore.seal import veil
from ....scheduler import TYPICAL, Demand, Grow, Pace, Start, TurnId
from ....tools import GrammarRefused
from ...detokenize import Detokenizer
from ...errors import Blocked, GrammarStuck, NotFinite
from .. import Capabilities, End, Job, Said
from .model import Model, Piece
from .sample import Picked, Sampler
from .thinning import Cut

CHUNK = 512
"""Tokens of a step at most: prompts are computed in chunks of this size, so that others decode in between."""


@dataclass(frozen=True, slots=True)
class Step:
    """A forward pass as planned: copies to be made first, then pieces of turns."""

    copies: tuple[Copy, ...]
    pieces: tuple[Piece, ...]
    lines: tuple[_Line, ...]


class _Line:
    """A turn's state on the compute thread: what samples, masks and spells its tokens."""

    __slots__ = ("begun", "found", "job", "sampler", "spell")

    def __init__(self, job: Job, model: Model) -> None:
        self.job = job
        self.found = 0
        said = job.tokens[job.prompt :]
        self.sampler = Sampler(job.sampling, job.tokens[: job.prompt], said, sum_up=model.chosen.sum_up)
        self.spell = Detokenizer(model.tokenizer, job.sampling.stop)
        for token in said:  # an answer that goes on: its text so far is out already
            self.spell.feed(token)
        self.begun = len(said)


class TorchEngine:
    """A transformers model over a pool of pages, stepping a batch of turns."""

    can = Capabilities(
        tokens=True,
        cached=True,
        hold=True,
        fork=True,
        resume=True,
        mask=True,
        logprobs=True,
        preempt=True,
        weights=True,
        tiers=True,
        thin=True,
    )
    """`thin` only where every layer sees all of its past."""

    def __init__(self, model: Model, *, pool_tokens: int, chunk: int = CHUNK) -> None:
        if pool_tokens < model.shape.page:
            raise ValueError(f"a pool of {pool_tokens} tokens holds not one page of {model.shape.page}: give it more")
        self.model = model
        self.groups: Groups = replace(model.groups, stride=chunk)
        # In as much memory as all layers need for so many tokens.
        layers = sum(len(group.layers) for group in self.groups.each)
        room = pool_tokens // model.shape.page * layers // model.shape.layers
        self.pages = Pages(model.shape, room, device=model.device)
        self._chunk = chunk
        self.pace = Pace(TYPICAL, most=chunk)
        """Shares steps out; whoever knows the costs here and a time per token sets another."""
        self._lines: dict[TurnId, _Line] = {}
        self._batch: dict[TurnId, _Line] = {}
        self._copies: list[Copy] = []
        # What windows see is counted in slots, and a thinned context has fewer of them than positions.
        self.can = replace(self.can, thin=model.whole)
        self._made = [0] * self.pages.room  # the version of the weights that wrote each page first
        self._version = 0

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    @property
    def mode(self) -> str:
        return self.model.chosen.mode

    @property
    def page(self) -> int:
        return self.model.shape.page

    @property
    def room(self) -> int:
        return self.pages.room

    @property
    def eos(self) -> tuple[int, ...]:
        return self.model.eos

    @property
    def vocab(self) -> int:
        return self.model.vocab

    @property
    def longest(self) -> int:
        return self.model.max_positions

    @property
    def rows(self) -> int:
        return self.model.rows

    @property
    def tokenizer(self) -> Any:
        return self.model.tokenizer

    def start(self, job: Job, effect: Start) -> int:
        """Put a turn into the batch; one that was preempted goes on where it stood.

        Returns how many of its reused tokens lie in pages that older weights have written to, by the pages' own
        record and not by their names.
        """
        line = self._lines.get(job.turn)
        if line is None or line.job is not job:
            line = self._lines[job.turn] = _Line(job, self.model)
        job.pages, job.computed = list(effect.pages), effect.reuse + job.skip
        line.found = effect.reuse
        self._batch[job.turn] = line
        self._copy(effect)
        count, blocks = len(self.groups), -(-effect.reuse // self.page)
        old = [page != NOWHERE and self._made[page] < self._version for page in job.pages[: blocks * count]]
        used = sum(any(old[at : at + count]) for at in range(0, len(old), count))
        return min(effect.reuse, used * self.page)

    def grow(self, effect: Grow) -> None:
        """Room for more tokens. A copy replaces the page in which the turn stands."""
        job = self._batch[effect.turn].job
        at = (job.computed - job.skip) // self.page * len(self.groups)
        for copy in self._copy(effect):
            job.pages[job.pages.index(copy.source, at)] = copy.target
        job.pages.extend(effect.pages)

    def suspend(self, turn: TurnId) -> None:
        """Take a turn out of the batch and keep what it has said."""
        self._batch.pop(turn, None)

    def drop(self, turn: TurnId) -> None:
        """Forget a turn."""
        self._batch.pop(turn, None)
        self._lines.pop(turn, None)

    def rest(self, turn: TurnId) -> str:
        """Text that was held back."""
        line = self._lines.get(turn)
        return "" if line is None else line.spell.finish()

    def read(self, page: int, tokens: int) -> memoryview:
        """The keys and values of the first so many tokens of a page. LookupError for one of weights that are gone."""
        if self._made[page] < self._version:
            raise LookupError(f"page {page} was written under version {self._made[page]} of the weights")
        return self.pages.read(page, tokens)

    def write(self, page: int, tokens: int, data: Buffer) -> None:
        """Fill a page that no turn uses yet."""
        self.pages.write(page, tokens, data)
        self._made[page] = self._version

    def cutting(self, policy: str, budget: int) -> Cut:
        """Cut a context to so many tokens in each head; ValueError for what the policy cannot do."""
        return Cut(self.model, self.pages, policy, budget, made=self._made, chunk=self._chunk)

    def seal(self, tenant: str, weights: str, codec: str, group: int | None = None) -> Seal:
        """What must agree before anybody may read a tenant's keys and values, stored by this codec.

        Those of all layers, or of a group of them.
        """
        shape, model = self.model.shape, self.model
        seal = Seal(
            model=model.fingerprint,
            dtype=shape.dtype,
            layers=sum(len(group.layers) for group in self.groups.each),
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            page=shape.page,
            rope=model.rope,
            tokenizer=model.spelling,
            adapter="",
            weights=weights,
            tenant=veil(tenant),
            codec=codec,
            exact=is_exact(codec),
        )
        return seal if group is None else self.groups.seals(seal)[group]

    def load(self, tensors: Mapping[str, torch.Tensor], version: int) -> None:
        """New weights; no step may run. Raises ValueError, and changes nothing, for what does not fit the model."""
        self.model.reweigh(tensors)
        self._version = version

    def short(self) -> tuple[TurnId, ...]:
        """Turns whose pages have no room for what they have to compute."""
        lines = self._batch.items()
        return tuple(name for name, line in lines if self._end(line.job) > self._room(line.job))

    def plan(self) -> Step | None:
        """One step for the batch as it is now: every decoding turn, and chunks of prompts."""
        if not self._batch:
            return None
        demands = [self._demand(name, line) for name, line in self._batch.items()]
        pieces, lines = [], []
        for share in self.pace.share(demands):
            line = self._batch[share.turn]
            job = line.job
            stop = job.computed + share.tokens
            known = tuple(job.tokens[job.computed : stop])
            wants, first, last = stop == len(job.tokens), job.computed - job.skip, stop - job.skip
            pieces.append(Piece(tuple(job.pages), first, known, wants, skip=job.skip))
            count = len(self.groups)
            for page in job.pages[-(-first // self.page) * count : -(-last // self.page) * count]:
                self._made[page] = self._version
            lines.append(line)
        copies, self._copies = tuple(self._copies), []
        return Step(copies, tuple(pieces), tuple(lines))

    def run(self, step: Step) -> Sequence[Said]:
        """Compute, then choose a token for every turn that has caught up."""
        self._make(step.copies)
        logits = self.model.forward(step.pieces, self.pages)
        said, row = [], 0
        for line, piece in zip(step.lines, step.pieces, strict=True):
            if piece.wants:
                try:
                    said.append(self._say(line, len(piece.tokens), logits[row]))
                except (
                    Blocked,
                    GrammarStuck,
                    GrammarRefused,
                    NotFinite,
                ) as fault:  # no affair of the others in the batch
                    said.append(Said(line.job.turn, len(piece.tokens), fault=fault))
                row += 1
            else:
                said.append(Said(line.job.turn, len(piece.tokens)))
        return said

    def settle(self, said: Sequence[Said]) -> None:
        """Take over what a step did, for turns that are still in the batch."""
        for one in said:
            line = self._batch.get(one.turn)
            if line is not None:
                line.job.computed += one.computed
                if one.token is not None:
                    line.job.tokens.append(one.token)

    def flush(self) -> None:
        """Make the copies that are waiting for the next step; no step may run."""
        copies, self._copies = self._copies, []
        self._make(copies)

    def trial(self, pieces: Sequence[tuple[int, int]]) -> None:
        """Compute a step of so many tokens behind so many others, for each of some turns, for the time it takes.

        No turn may be there: it is computed wherever there is room, over whatever lies there.
        """
        at, planned, count = 0, [], len(self.groups)
        for tokens, behind in pieces:
            size = -(-(tokens + behind) // self.page) * count
            planned.append(Piece(tuple(range(at, at + size)), behind, (self.eos[0],) * tokens, wants=True))
            at += size
        self.model.forward(planned, self.pages)

    def _demand(self, name: TurnId, line: _Line) -> Demand:
        job = line.job
        return Demand(name, self._end(job) - job.computed, line.found, job.computed - job.skip)

    def _end(self, job: Job) -> int:
        """Where the next step may end: what is known, as far as pages are taken at once."""
        return job.computed + self.groups.stretch(len(job.tokens) - job.computed)

    def _room(self, job: Job) -> int:
        return len(job.pages) // len(self.groups) * self.page + job.skip

    def _copy(self, effect: Start | Grow) -> Sequence[Copy]:
        """Note the copies that an effect asks for, to be made before the next step."""
        copies = [] if effect.copy is None else [effect.copy, *effect.others]
        self._copies += copies
        for copy in copies:
            self._made[copy.target] = self._made[copy.source]
        return copies

    def _make(self, copies: Sequence[Copy]) -> None:
        for copy in copies:
            self.pages.copy(copy.source, copy.target, copy.tokens)

    def _say(self, line: _Line, computed: int, logits: torch.Tensor) -> Said:
        job = line.job
        count = len(job.tokens) - job.prompt - line.begun
        if job.forced is not None:
            picked = Picked(job.forced[count], 0.0, ())
        else:
            for watch in job.watches:
                logits = watch.look(job.tokens[job.prompt :], logits)
            picked = line.sampler.pick(logits, job.grammar.mask() if job.grammar is not None else None)
        token = picked.token
        ended = token in self.model.eos if job.forced is None else count + 1 == len(job.forced)
        if job.grammar is not None and not ended:
            job.grammar.accept(token)
        text, stopped = line.spell.feed(token) if token not in self.model.eos else ("", False)
        full = count + 1 >= job.sampling.max_tokens or len(job.tokens) + 1 >= self.longest
        end: End | None = "stop" if ended or stopped else "length" if full and job.forced is None else None
        if end is not None and not stopped:
            text += line.spell.finish()
        rates = (picked.logprob, picked.drawn, picked.tempered)
        return Said(job.turn, computed, token, text, *rates, picked.forced, self._version, picked.top, end)
