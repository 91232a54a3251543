"""Another device: tensors that say they lie there, compute here, and refuse to meet those of the CPU.

It shows that nothing of the two is mixed, and nothing of speed, streams or kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

AWAY = torch.device("meta")
"""Torch's device without memory: a build without CUDA bears no tensor that says `cuda`."""


class Away(torch.Tensor):
    """A tensor there; its numbers are here."""

    numbers: torch.Tensor

    @staticmethod
    def __new__(cls, numbers: torch.Tensor) -> Away:
        untyped: Any = torch.Tensor
        with torch.inference_mode(False):  # else what was made outside of that mode could not be viewed within it
            shell: Away = untyped._make_wrapper_subclass(
                cls, numbers.size(), numbers.stride(), numbers.storage_offset(), dtype=numbers.dtype, device=AWAY
            )
        shell.numbers = numbers
        return shell

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        leaves = [each for each in tree_leaves((args, given)) if isinstance(each, torch.Tensor)]
        moves = func.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten._to_copy, torch.ops.aten.to)
        if not moves and any(each.dim() and not isinstance(each, Away) for each in leaves):
            raise RuntimeError(f"{func} was given tensors of two devices")
        back = torch.device("cpu") in [each for each in tree_leaves((args, given)) if isinstance(each, torch.device)]
        done = func(*tree_map(_inner, args), **tree_map(_inner, given))
        known = {id(each.numbers): each for each in leaves if isinstance(each, Away)}
        return done if back else tree_map(lambda each: known.get(id(each), _away(each)), done)


class Pretend(TorchFunctionMode):
    """Within this, on this thread, tensors can be made there and brought there."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        there = [each for each in (*args, *given.values()) if _named(each)]
        if func is torch.device or not there or any(isinstance(each, Away) for each in args):
            return func(*args, **given)
        args = tuple("cpu" if _named(each) else each for each in args)
        return _away(func(*args, **{name: "cpu" if _named(each) else each for name, each in given.items()}))


def brought(network: Any) -> Any:
    """All of a network's weights and buffers, there."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                module._parameters[name] = torch.nn.Parameter(Away(weight.detach()), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Away(buffer)
                setattr(module, name, module._buffers[name])
    network.tie_weights()
    return network


def home(tensor: torch.Tensor) -> torch.Tensor:
    """The numbers of a tensor that lies there."""
    assert isinstance(tensor, Away), f"this lies on {tensor.device}"
    return tensor.numbers


def _named(given: Any) -> bool:
    """Whether it names the device."""
    return (isinstance(given, torch.device) and given.type == AWAY.type) or given == AWAY.type


def _inner(given: Any) -> Any:
    if isinstance(given, torch.device):
        return torch.device("cpu")
    return given.numbers if isinstance(given, Away) else given


def _away(given: Any) -> Any:
    return Away(given) if isinstance(given, torch.Tensor) and not isinstance(given, Away) else given
