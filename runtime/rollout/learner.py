"""The trainer's side of a rollout: its weights with adapters merged in, and how likely it holds a sample's tokens."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers.utils.chat_template_utils import get_json_schema

from ..errors import TrainerUnsupported
from .record import Sample
from .toolbox import Toolbox


def network(trainer: Any) -> Any:
    """The trainer's model without what distributes it. Raises TrainerUnsupported where it is not whole here."""
    for flag in ("is_deepspeed_enabled", "is_fsdp_enabled"):
        if getattr(trainer, flag, False):
            raise TrainerUnsupported(
                f"the trainer shards its weights ({flag}): no process has them all. Train on one process or with DDP"
            )
    return trainer.accelerator.unwrap_model(trainer.model)


def weights(model: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight under the name it has in the plain network, adapters merged in; the model is left as it is.

    Modules with adapters are copied and merged one at a time, others are given as they stand. Tied weights come once.
    Raises TrainerUnsupported for quantised weights, for adapters that change no weights (prompts, prefixes), and for
    adapters on tied embeddings.
    """
    adapted = hasattr(model, "peft_config") and hasattr(model, "get_base_model")
    if adapted and any(config.is_prompt_learning for config in model.peft_config.values()):
        raise TrainerUnsupported("a learned prompt is no weight that could be merged: train LoRA, or all weights")
    plain = model.get_base_model() if adapted else model
    if plain.config.get_text_config().tie_word_embeddings:
        for end in (plain.get_input_embeddings(), plain.get_output_embeddings()):
            if _wrapped(end):
                raise TrainerUnsupported(
                    f"{type(end).__name__} on embeddings whose weights the output layer shares: merged, they may "
                    "differ. Leave embeddings and output layer without adapters"
                )
    for name, weight in _walk(plain, "", set()):
        if not weight.is_floating_point():
            raise TrainerUnsupported(f"{name} is quantised ({weight.dtype}): the engine takes plain weights")
        yield name, weight.detach()


@torch.no_grad()
def logprobs(trainer: Any, sample: Sample) -> list[float]:
    """How likely the trainer's model holds each token behind the prompt, at its temperature, without dropout.

    One forward pass over the sample, with the trainer's own precision.
    """
    model, said = network(trainer), len(sample.completion_ids)
    if not said:
        return []
    ids = torch.tensor([sample.prompt_ids + sample.completion_ids], device=trainer.accelerator.device)
    with _resting(model), trainer.accelerator.autocast():
        logits = model(input_ids=ids, use_cache=False, logits_to_keep=said + 1).logits[0, :-1]
    rows = torch.log_softmax(logits.float() / trainer.temperature, -1)
    found: list[float] = rows.gather(-1, ids[0, -said:, None])[:, 0].tolist()
    return found


def described(functions: Sequence[Callable[..., Any]]) -> Toolbox:
    """A toolbox of functions that say by their types and docstrings (Google's style) what they take."""
    return Toolbox([get_json_schema(one) for one in functions], {one.__name__: one for one in functions})


def _walk(module: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, torch.Tensor]]:
    """`seen` are weights by identity: those of the model live on, so theirs mean something."""
    if _wrapped(module):
        for name, weight in _merged(module).named_parameters():
            yield f"{prefix}{name}", weight
        return
    for name, weight in module.named_parameters(recurse=False):
        if id(weight) not in seen:
            seen.add(id(weight))
            yield f"{prefix}{name}", weight
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}{name}.", seen)


def _wrapped(module: Any) -> bool:
    """PEFT has put adapters around this module."""
    kind = type(module)  # of the class: instances hand unknown names on to what they wrap
    alone = hasattr(kind, "unload_and_optionally_merge_module")
    return alone or (hasattr(kind, "merge") and hasattr(kind, "get_base_layer"))


def _merged(module: Any) -> Any:
    """What is left of a copy of a wrapped module when its adapters are merged in."""
    twin = copy.deepcopy(module)
    if hasattr(type(module), "unload_and_optionally_merge_module"):
        return twin.unload_and_optionally_merge_module(merge=True, safe_merge=False, adapter_names=None)
    twin.merge()
    return twin.get_base_layer()


@contextmanager
def _resting(model: Any) -> Iterator[None]:
    """Without dropout, as engines run it; afterwards every module trains or rests as before."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
