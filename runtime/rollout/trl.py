"""A drop-in `rollout_func` for TRL's GRPOTrainer: groups share their prompt, weights follow the trainer's."""

from __future__ import annotations

import asyncio
import json
import weakref
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any, TypeVar

from ...scheduler import KvPolicy
from ..ask import Message
from ..errors import TrainerUnsupported
from ..host import Host
from ..sampling import Sampling
from ..session import Session
from .group import Group, Rules, Tally, seed_for, together
from .learner import described, logprobs, network, weights
from .record import Rollout, Sample
from .toolbox import Toolbox

Made = TypeVar("Made")

DELTA = "sampling/sampling_logp_difference"
"""TRL's own name for it, under which it reports the difference for vLLM and for no other engine."""


class TRLRollout:
    """Give it to `GRPOTrainer(rollout_func=...)`. It samples on `host`, with the trainer's weights and settings.

    Rows whose prompts are equal are one group: their prompt is computed once and forked. Before sampling the host gets
    the trainer's weights whenever an optimizer step was made; `kv` says what becomes of keys and values of older ones.
    Trainers see the model's tokens in `env_mask`, but for those that a grammar forced.

    TRL corrects for an engine that samples otherwise than it trains only if that is vLLM, and ignores what others
    report. So each call compares for `checked` rows (None: all) the engine's log probabilities with the trainer's, and
    puts mean and largest difference among the trainer's metrics. That costs a forward pass over these rows.
    """

    def __init__(
        self,
        host: Host,
        *,
        tools: Toolbox | Sequence[Callable[..., Any]] = (),
        turns: int = 1,
        kv: KvPolicy = "salt",
        checked: int | None = 2,
        **session: Any,
    ) -> None:
        """Functions among `tools` describe themselves by types and docstrings, as TRL's do. `turns` are answers of a
        sample at most. What else a Session takes (tenant, choice, schema) goes there."""
        self.host = host
        self.tally = Tally()
        """Of all calls so far."""
        self.rollouts: tuple[Rollout, ...] = ()
        """Of the last call, one for each distinct prompt."""
        self.deltas: dict[int, list[float]] = {}
        """Of the last call: engine minus trainer, for each checked token, by the versions its weights were late."""
        self.version = 0
        """Of the weights that the host has got from here."""
        self._toolbox = tools if isinstance(tools, Toolbox) else described(tools)
        self._turns = turns
        self._kv: KvPolicy = kv
        self._checked = checked
        self._session = session
        self._followed: tuple[weakref.ref[Any], int] | None = None
        self._calls = 0

    def __call__(self, prompts: Sequence[Any], trainer: Any) -> dict[str, Any]:
        """Samples for the prompts, in their order; they come repeated, once for every generation wanted."""
        self._follow(trainer)
        rows: dict[str, list[int]] = {}
        for row, prompt in enumerate(prompts):
            rows.setdefault(json.dumps(prompt, sort_keys=True, default=repr), []).append(row)
        self._calls += 1
        made = _run(self._play([(prompts[own[0]], len(own)) for own in rows.values()], trainer))
        self.rollouts = tuple(rollout for rollout, _ in made)
        spent = reduce(add, (tally for _, tally in made))
        self.tally += spent
        places = [row for own in rows.values() for row in own]
        samples = [sample for rollout in self.rollouts for sample in rollout.samples()]
        in_order = [sample for _, sample in sorted(zip(places, samples, strict=True), key=lambda pair: pair[0])]
        self._compare(in_order, trainer)
        self._report(len(in_order), spent, trainer)
        return _columns(in_order)

    def __repr__(self) -> str:
        return f"<TRLRollout {self._calls} calls, version {self.version}, {self.tally.computed} tokens computed>"

    def _follow(self, trainer: Any) -> None:
        """Give the host the trainer's weights if they may have moved since; they get a version of their own."""
        step = trainer.state.global_step
        same = self._followed is not None and self._followed[0]() is trainer and self._followed[1] == step
        if same and self.host.loop.weights == self.version:
            return
        self.version = max(self.host.loop.weights, step) + 1
        self.host.update_weights(weights(network(trainer)), version=self.version, kv=self._kv)
        self._followed = (weakref.ref(trainer), step)

    async def _play(self, wanted: Sequence[tuple[Any, int]], trainer: Any) -> list[tuple[Rollout, Tally]]:
        rules = Rules(self._turns, trainer.max_completion_length, self._toolbox)
        base = seed_for(trainer.args.seed, trainer.accelerator.process_index, self._calls)
        return await together(
            self._group(_messages(prompt, trainer), n, replace(rules, seed=seed_for(base, place)), _sampling(trainer))
            for place, (prompt, n) in enumerate(wanted)
        )

    async def _group(
        self, prompt: list[Message] | list[int], n: int, rules: Rules, sampling: Sampling
    ) -> tuple[Rollout, Tally]:
        session = Session(self.host, tools=self._toolbox.tools, sampling=sampling, **self._session)
        try:
            with Group(session, prompt, n=n, rules=rules) as group:
                rollout = await group.run()
                while not group.finished:  # somebody aborted the host's turns: they go on where they stood
                    rollout = await group.run()
                return rollout, group.tally
        finally:
            session.close()

    def _compare(self, samples: Sequence[Sample], trainer: Any) -> None:
        """Engine minus trainer for some samples, spread over the batch."""
        self.deltas = {}
        count = len(samples) if self._checked is None else min(self._checked, len(samples))
        for place in range(count):
            sample = samples[place * len(samples) // count]
            pairs = zip(sample.tempered, logprobs(trainer, sample), sample.mask, strict=True)
            late = sample.lags(self.version)
            for delta, lag in zip((ours - theirs for ours, theirs, said in pairs if said), late, strict=True):
                self.deltas.setdefault(lag, []).append(delta)

    def _report(self, count: int, spent: Tally, trainer: Any) -> None:
        """Among the trainer's metrics, by TRL's names where it has any; it averages over processes and steps."""
        # What `log_metric` of reward functions leads to; `rollout_func` is handed no such way of its own.
        log: Callable[[str, float], None] = trainer._log_metric
        every = [abs(delta) for deltas in self.deltas.values() for delta in deltas]
        named = {"": every} | {f"/lag_{lag}": [abs(delta) for delta in self.deltas[lag]] for lag in sorted(self.deltas)}
        for name, deltas in named.items():
            if deltas:
                log(f"{DELTA}{name}/mean", sum(deltas) / len(deltas))
                log(f"{DELTA}{name}/max", max(deltas))
        log("rollout/asked_tokens", spent.asked)
        log("rollout/computed_tokens", spent.computed)
        log("rollout/stale_tokens", spent.stale)
        log("rollout/tool_wait_share", spent.wait_share)
        log("tools/call_frequency", spent.calls / count)
        log("tools/failure_frequency", (spent.failed + spent.rejected) / spent.calls if spent.calls else 0.0)


def _columns(samples: Sequence[Sample]) -> dict[str, Any]:
    """What TRL takes, and beyond it what reward functions may want to know."""
    return {
        "prompt_ids": [one.prompt_ids for one in samples],
        "completion_ids": [one.completion_ids for one in samples],
        "logprobs": [one.tempered for one in samples],
        "env_mask": [
            [int(said and not forced) for said, forced in zip(one.mask, one.forced, strict=True)] for one in samples
        ],
        "drawn_logprobs": [one.drawn for one in samples],
        "policy_versions": [one.versions for one in samples],
        "finish_reasons": [one.reason for one in samples],
        "exact": [one.exact for one in samples],
    }


def _messages(prompt: Any, trainer: Any) -> list[Message] | list[int]:
    """A prompt as a data set gives it: messages, or text that is no conversation."""
    if isinstance(prompt, str):
        return list(trainer.processing_class(text=prompt)["input_ids"])
    messages = []
    for one in prompt:
        if one["role"] not in ("system", "user", "assistant", "tool") or not isinstance(one.get("content"), str):
            raise TrainerUnsupported(f"prompt: found {one!r}; expected a role and text, of nothing but text")
        if one.get("tool_calls"):
            raise TrainerUnsupported(f"prompt: found {one!r}; calls of an earlier turn cannot be taken over")
        messages.append(Message(one["role"], one["content"], tool=one.get("name") or ""))
    return messages


def _sampling(trainer: Any) -> Sampling:
    """The trainer's own settings. Raises TrainerUnsupported for settings that we would not follow."""
    elsewhere = {
        "generation_kwargs": "set temperature, top_p, top_k, min_p and repetition_penalty instead",
        "chat_template_kwargs": "write what they say into the model's chat template",
    }
    for name, instead in elsewhere.items():
        if getattr(trainer.args, name):
            raise TrainerUnsupported(f"{name}: found {getattr(trainer.args, name)}; {instead}")
    if trainer.tools:
        raise TrainerUnsupported("the trainer has tools and would run them again: give them to TRLRollout alone")
    return Sampling(
        temperature=trainer.temperature,
        top_p=trainer.top_p,
        top_k=max(0, trainer.top_k or 0),
        min_p=trainer.min_p or 0.0,
        repetition_penalty=trainer.repetition_penalty,
        max_tokens=trainer.max_completion_length,
    )


def _run(coroutine: Coroutine[Any, Any, Made]) -> Made:
    """Also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as aside:
        return aside.submit(asyncio.run, coroutine).result()
