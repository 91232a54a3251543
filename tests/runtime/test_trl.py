"""TRL's GRPOTrainer trains on what we sample: same weights, same probabilities, no key or value of older weights."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from sostenuto.runtime.errors import TrainerUnsupported
from sostenuto.runtime.host import Host
from sostenuto.runtime.rollout.learner import described, logprobs, network, weights
from sostenuto.runtime.rollout.trl import DELTA, TRLRollout
from sostenuto.scheduler import KvPolicy
from sostenuto.tools import Choice

from .rollouts import adder, idle, make, serve

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing:FutureWarning"),
    pytest.mark.timeout(300),
]
GROUP = 4
TOLERANCE = 1e-4
"""In float32; what is measured is 2e-6."""

Trainers = Callable[..., Any]


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def even(completion_ids: list[list[int]], **rest: Any) -> list[float]:
    """Something that a random model can learn a little of in a few steps."""
    return [sum(token % 2 == 0 for token in ids) / len(ids) for ids in completion_ids]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def host(folder: Path) -> Iterator[Host]:
    with serve(folder) as opened:
        yield opened
        assert idle(opened), "something was not let go"


@pytest.fixture
def trainers(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainers:
    """Makes trainers of the model that the host has; settings by name."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")

    def make_one(rollout: TRLRollout, *, peft: Any = None, reward: Any = even, **settings: Any) -> Any:
        arguments: dict[str, Any] = {
            "max_steps": 5,
            "per_device_train_batch_size": 2 * GROUP,
            "num_generations": GROUP,
            "max_completion_length": 24,
            "learning_rate": 1e-3,
            "temperature": 0.8,
            "gradient_checkpointing": False,
            "use_cpu": True,
            "bf16": False,
            "logging_steps": 1,
            "report_to": [],
            "save_strategy": "no",
            "disable_tqdm": True,
            **settings,
        }
        return GRPOTrainer(
            model=fresh(folder),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=reward,
            args=GRPOConfig(str(tmp_path / "out"), **arguments),
            train_dataset=Dataset.from_list([{"prompt": ask(f"add {n} and {n + 1}")} for n in range(2)]),
            peft_config=peft,
            rollout_func=rollout,
        )

    return make_one


def steps(trainer: Any) -> list[dict[str, float]]:
    return [each for each in trainer.state.log_history if "reward" in each]


def test_five_steps_train_on_what_the_trainer_itself_would_have_said(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host, checked=None)
    trainer = trainers(rollout)
    trainer.train()
    log = steps(trainer)
    assert len(log) == 5
    assert [round(step[f"{DELTA}/max"] / TOLERANCE) for step in log] == [0] * 5
    assert all(0 < step[f"{DELTA}/mean"] <= step[f"{DELTA}/max"] for step in log)
    assert all(step["grad_norm"] > 0 for step in log), "the weights moved"
    assert rollout.version == host.loop.weights == 5
    assert repr(rollout).startswith("<TRLRollout 5 calls, version 5, ")


@pytest.mark.parametrize("kv", ["salt", "drop", "recompute"])
def test_no_token_is_served_from_keys_and_values_of_older_weights(host: Host, trainers: Trainers, kv: KvPolicy) -> None:
    rollout = TRLRollout(host, kv=kv)
    trainer = trainers(rollout)
    trainer.train()
    assert [step["rollout/stale_tokens"] for step in steps(trainer)] == [0.0] * 5
    assert rollout.tally.stale == 0
    assert max(step[f"{DELTA}/max"] for step in steps(trainer)) < TOLERANCE
    # The two prompts begin alike, and whether one finds that computed depends on which of them comes first.
    assert 0 <= rollout.tally.stored - rollout.tally.computed <= 5 * len("user: add ")


def test_without_the_salt_old_keys_and_values_are_served_and_the_difference_shows(
    host: Host, trainers: Trainers
) -> None:
    rollout = TRLRollout(host, kv="keep", checked=None)
    trainer = trainers(rollout)
    trainer.train()
    first, *others = steps(trainer)
    assert first["rollout/stale_tokens"] == 0
    assert first[f"{DELTA}/max"] < TOLERANCE
    for step in others:
        assert step["rollout/stale_tokens"] > 100
        assert step[f"{DELTA}/max"] > 100 * TOLERANCE
        assert step[f"{DELTA}/lag_0/mean"] > TOLERANCE, "the tokens are new, what they were said upon is not"


def test_rows_of_equal_prompts_are_one_group_wherever_they_stand(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host, checked=0)
    trainer = trainers(rollout)
    prompts = [ask(text) for text in ("one", "two", "one", "a third one", "two", "one")]
    columns = rollout(prompts, trainer)
    tokenizer = trainer.processing_class
    for prompt, ids in zip(prompts, columns["prompt_ids"], strict=True):
        assert ids == tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
    assert [len(list(each.samples())) for each in rollout.rollouts] == [3, 2, 1]
    assert len({tuple(ids) for ids in columns["completion_ids"]}) == 6
    assert rollout.deltas == {}
    assert {len(column) for column in columns.values()} == {6}
    for ids, told, mask in zip(columns["completion_ids"], columns["logprobs"], columns["env_mask"], strict=True):
        assert len(ids) == len(told) == len(mask) == 24


def test_equal_trainers_sample_alike_and_calls_differ(host: Host, trainers: Trainers, folder: Path) -> None:
    rollout = TRLRollout(host)
    trainer = trainers(rollout)
    first = rollout([ask("one")], trainer)["completion_ids"]
    assert rollout([ask("one")], trainer)["completion_ids"] != first
    with serve(folder) as other:
        again = TRLRollout(other)
        assert again([ask("one")], trainers(again))["completion_ids"] == first


def test_weights_are_taken_once_a_step_and_again_for_another_trainer(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host)
    trainer = trainers(rollout)
    versions = []
    for trainer.state.global_step in (0, 0, 1, 7):
        rollout([ask("one")], trainer)
        versions.append(rollout.version)
    host.update_weights([])  # somebody else's: the trainer's are given again
    for one in (trainer, trainers(rollout)):
        rollout([ask("one")], one)
        versions.append(rollout.version)
    assert versions == [1, 1, 2, 8, 10, 11]


def test_samples_of_weights_that_are_behind_are_told_by_their_lag(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host, checked=None)
    trainer = trainers(rollout)
    rollout([ask("one")], trainer)
    assert set(rollout.deltas) == {0}
    rollout._follow = lambda trainer: None  # type: ignore[method-assign]
    rollout.version += 2
    rollout([ask("one")], trainer)
    assert set(rollout.deltas) == {2}
    assert trainer._pending_metrics[f"{DELTA}/lag_2/max"] == [max(map(abs, rollout.deltas[2]))]


@pytest.mark.parametrize(("checked", "tokens"), [(0, 0), (1, 24), (3, 72), (None, 144), (99, 144)])
def test_as_many_rows_are_checked_as_wanted(host: Host, trainers: Trainers, checked: int | None, tokens: int) -> None:
    rollout = TRLRollout(host, checked=checked)
    rollout([ask(f"{n}") for n in range(6)], trainers(rollout))
    assert sum(len(deltas) for deltas in rollout.deltas.values()) == tokens


def test_adapters_are_followed_and_the_trainers_model_is_left_alone(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host, checked=None)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], lora_dropout=0.3)
    trainer = trainers(rollout, peft=lora, learning_rate=0.05, max_steps=3)
    base = {name: weight.clone() for name, weight in trainer.model.state_dict().items() if "lora" not in name}
    trainer.train()
    assert max(step[f"{DELTA}/max"] for step in steps(trainer)) < TOLERANCE
    with trainer.model.disable_adapter():
        rollout.deltas = {}
        rollout([ask("one")], trainer)
        assert max(map(abs, rollout.deltas[0])) > 100 * TOLERANCE, "without them it would have been another model"
    assert all(torch.equal(base[name], trainer.model.state_dict()[name]) for name in base)


def test_samples_call_tools_and_forced_tokens_are_not_learned(host: Host, trainers: Trainers) -> None:
    def add(a: int, b: int) -> str:
        """Add.

        Args:
            a: one
            b: another
        """
        return str(a + b)

    seen: list[dict[str, Any]] = []

    def reward(completion_ids: list[list[int]], **rest: Any) -> list[float]:
        seen.append(rest)
        return even(completion_ids)

    rollout = TRLRollout(host, tools=adder(), turns=2, checked=None, choice=Choice("any"), parallel=False)
    trainer = trainers(rollout, reward=reward, max_steps=2, max_completion_length=400)
    trainer.train()
    for step in steps(trainer):
        assert step["tools/call_frequency"] == 1
        assert step["tools/failure_frequency"] == 0
        assert 0 < step["rollout/tool_wait_share"] < 1
        assert step[f"{DELTA}/max"] < TOLERANCE
        assert step["rollout/asked_tokens"] > 3 * step["rollout/computed_tokens"]
    columns = rollout([ask("one")] * 2, trainer)
    samples = [sample for each in rollout.rollouts for sample in each.samples()]
    assert all(any(sample.forced) and 0 in sample.mask for sample in samples)
    for sample, mask in zip(samples, columns["env_mask"], strict=True):
        assert mask == [int(said and not forced) for said, forced in zip(sample.mask, sample.forced, strict=True)]
    assert {"policy_versions", "drawn_logprobs", "finish_reasons"} <= set(seen[0])
    assert seen[0]["finish_reasons"] == ["stop"] * 2 * GROUP
    assert [tool.name for tool in described([add]).tools] == ["add"]
    assert "a" in described([add]).tools[0].parameters["properties"]  # type: ignore[operator]


def test_what_the_host_aborts_meanwhile_goes_on_and_ends_the_same(host: Host, trainers: Trainers, folder: Path) -> None:
    prompts = [ask("one")] * 3
    with serve(folder) as calm:
        undisturbed = TRLRollout(calm)
        expected = undisturbed(prompts, trainers(undisturbed, max_completion_length=200))["completion_ids"]
    rollout = TRLRollout(host)
    trainer = trainers(rollout, max_completion_length=200)
    aborted: list[int] = []
    over = threading.Event()

    def disturb() -> None:
        while not over.is_set() and len(aborted) < 5:
            if count := host.abort():
                aborted.append(count)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        found = rollout(prompts, trainer)["completion_ids"]
    finally:
        over.set()
        disturber.join()
    assert aborted
    assert found == expected


async def test_it_can_be_called_where_an_event_loop_runs(host: Host, trainers: Trainers) -> None:
    assert asyncio.get_running_loop().is_running()
    rollout = TRLRollout(host)
    assert len(rollout([ask("one")], trainers(rollout))["completion_ids"]) == 1


def test_a_prompt_may_be_plain_text(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host, checked=None)
    trainer = trainers(rollout)
    assert rollout(["Once upon"], trainer)["prompt_ids"] == [list(b"Once upon")]
    assert max(map(abs, rollout.deltas[0])) < TOLERANCE


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": [{"type": "image", "image": "x.png"}]}],
        [{"role": "developer", "content": "obey"}],
        [{"role": "assistant", "tool_calls": []}],
    ],
)
def test_a_prompt_that_we_cannot_put_is_refused(host: Host, trainers: Trainers, prompt: Any) -> None:
    rollout = TRLRollout(host)
    with pytest.raises(TrainerUnsupported, match="expected a role and text"):
        rollout([prompt], trainers(rollout))


@pytest.mark.parametrize("name", ["generation_kwargs", "chat_template_kwargs"])
def test_settings_that_we_would_not_follow_are_refused(host: Host, trainers: Trainers, name: str) -> None:
    rollout = TRLRollout(host)
    with pytest.raises(TrainerUnsupported, match=rf"{name}: found {{'x': 2}}"):
        rollout([ask("one")], trainers(rollout, **{name: {"x": 2}}))


def test_tools_that_the_trainer_would_run_once_more_are_refused(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host)
    trainer = trainers(rollout)
    trainer.tools = [print]
    with pytest.raises(TrainerUnsupported, match="give them to TRLRollout"):
        rollout([ask("one")], trainer)


@pytest.mark.parametrize("flag", ["is_deepspeed_enabled", "is_fsdp_enabled"])
def test_a_trainer_that_shards_its_weights_is_refused(flag: str) -> None:
    with pytest.raises(TrainerUnsupported, match=flag):
        network(SimpleNamespace(**{flag: True}))


def fresh(folder: Path) -> Any:
    untyped: Any = AutoModelForCausalLM
    return untyped.from_pretrained(folder, dtype=torch.float32).eval()


def adapted(folder: Path, config: Any) -> Any:
    """A model whose adapters say something."""
    model = get_peft_model(fresh(folder), config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.normal_(0.0, 0.1)
    return model


ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["q_proj", "down_proj"]},
    "lora everywhere, scaled by rank": {"target_modules": "all-linear", "use_rslora": True},
    "dora": {"target_modules": ["q_proj"], "use_dora": True},
    "lora and a whole layer": {"target_modules": ["v_proj"], "modules_to_save": ["lm_head"]},
    "lora and some tokens": {"target_modules": ["v_proj"], "trainable_token_indices": [65, 66]},
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_merged_weights_are_those_of_a_plain_model_that_says_the_same(folder: Path, name: str) -> None:
    model = adapted(folder, LoraConfig(r=4, lora_dropout=0.5, **ADAPTERS[name]))
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    plain, merged = fresh(folder), dict(weights(model))
    assert merged.keys() == dict(plain.named_parameters()).keys()
    tokens = torch.randint(0, 250, (2, 20))
    with torch.no_grad():
        away = (plain(tokens).logits - model(tokens).logits).abs().max()
        plain.load_state_dict(merged)
        assert away > 0.01
        assert (plain(tokens).logits - model(tokens).logits).abs().max() < 1e-4
    assert all(torch.equal(before[key], weight) for key, weight in model.state_dict().items())
    assert not any(weight.requires_grad for weight in merged.values())


def test_tied_weights_come_once(tmp_path: Path) -> None:
    tied = fresh(make(tmp_path, tie_word_embeddings=True))
    names = [name for name, _ in weights(tied)]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names
    assert len(names) == len(set(names))


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")
def test_adapters_on_tied_weights_are_refused(tmp_path: Path) -> None:
    model = adapted(make(tmp_path, tie_word_embeddings=True), LoraConfig(target_modules=["embed_tokens"]))
    with pytest.raises(TrainerUnsupported, match="the output layer shares"):
        list(weights(model))


def test_adapters_that_are_no_weights_are_refused(folder: Path) -> None:
    prompted = get_peft_model(fresh(folder), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3))
    with pytest.raises(TrainerUnsupported, match="a learned prompt is no weight"):
        list(weights(prompted))


def test_quantised_weights_are_refused(folder: Path) -> None:
    model = fresh(folder)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.to(torch.int8), requires_grad=False)
    with pytest.raises(TrainerUnsupported, match=r"lm_head\.weight is quantised \(torch\.int8\)"):
        list(weights(model))


def test_checking_leaves_dropout_as_it_was(host: Host, trainers: Trainers) -> None:
    rollout = TRLRollout(host, checked=0)
    trainer = trainers(rollout, peft=LoraConfig(target_modules=["q_proj"], lora_dropout=0.9))
    rollout([ask("one")], trainer)
    (sample,) = rollout.rollouts[0].samples()
    trainer.model.train()
    trainer.model.base_model.model.lm_head.eval()
    before = [module.training for module in trainer.model.modules()]
    assert logprobs(trainer, sample) == logprobs(trainer, sample), "nothing is dropped by chance"
    assert [module.training for module in trainer.model.modules()] == before
    assert set(before) == {True, False}
