"""A few GRPO steps with TRL, sampled by sostenuto: the packaged model learns to multiply by calling a tool."""

from __future__ import annotations

import os
import random
import tempfile
import time
import warnings
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from sostenuto.runtime.engines.torch.weights import locate
from sostenuto.runtime.host import Host
from sostenuto.runtime.rollout.trl import DELTA, TRLRollout

STEPS, GROUP = 3, 4
QUIET: dict[str, Any] = {"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "disable_tqdm": True}


def multiply(a: int, b: int) -> str:
    """Multiply two numbers.

    Args:
        a: the first number
        b: the second number
    """
    time.sleep(0.2)  # as if it were far away
    return str(a * b)


def tasks(count: int, seed: int = 0) -> Dataset:
    """Products that nobody knows by heart."""
    draw = random.Random(seed)
    pairs = [(draw.randint(12, 99), draw.randint(12, 99)) for _ in range(count)]
    asked = [[{"role": "user", "content": f"What is {a}*{b}?"}] for a, b in pairs]
    return Dataset.from_dict({"prompt": asked, "right": [a * b for a, b in pairs]})


def reward(completions: list[Any], right: list[int], **rest: Any) -> list[float]:
    """One for a right answer, half of it for a right call alone."""
    told = [one[0]["content"].rpartition("</tool_response>") for one in completions]
    pairs = zip(told, map(str, right), strict=True)
    return [1.0 if true in said else 0.5 * (true in before) for (before, _, said), true in pairs]


def show(step: dict[str, float]) -> None:
    print(
        f"step {step['step']}: reward {step['reward']:.2f}"
        f" | {step['rollout/computed_tokens']:.0f} of {step['rollout/asked_tokens']:.0f} tokens computed"
        f" | {step['rollout/tool_wait_share']:.0%} of the time waiting for tools"
        f" | engine - trainer: {step[f'{DELTA}/mean']:.1e} on average, {step[f'{DELTA}/max']:.1e} at most"
    )


def main(steps: int = STEPS, group: int = GROUP) -> None:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")  # else it says that `rollout_func` may change
    warnings.simplefilter("ignore", FutureWarning)  # TRL uses names that transformers is about to drop
    path = locate().path  # of the packaged model
    with Host.open(path, dtype="float32") as host, tempfile.TemporaryDirectory() as folder:
        rollout = TRLRollout(host, tools=[multiply], turns=2)
        settings = GRPOConfig(
            folder,
            max_steps=steps,
            per_device_train_batch_size=group,
            num_generations=group,
            max_completion_length=64,
            learning_rate=1e-4,
            gradient_checkpointing=False,
            logging_steps=1,
            **QUIET,
        )
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
            processing_class=AutoTokenizer.from_pretrained(path),
            reward_funcs=reward,
            args=settings,
            train_dataset=tasks(steps),
            peft_config=LoraConfig(r=8, target_modules=["q_proj", "v_proj"], layers_to_transform=[*range(22, 30)]),
            rollout_func=rollout,
        )
        trainer.train()
    told, tally = [each for each in trainer.state.log_history if "reward" in each], rollout.tally
    for step in told:
        show(step)
    print(f"{tally.computed} tokens computed for {tally.asked} asked, {tally.stale} of them stale; {tally.calls} calls")
    assert len(told) == steps
    assert tally.computed == tally.stored < tally.asked / 2, "every token of every tree is computed once"
    assert tally.stale == 0, "nothing is used that older weights computed"
    assert tally.calls > tally.rejected == tally.failed == 0
    assert max(step[f"{DELTA}/max"] for step in told) < 1e-4


if __name__ == "__main__":
    main()
