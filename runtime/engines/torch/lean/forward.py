"""The forward pass of Llama-like decoders, in as few operations as it has.

It takes over the weights of a loaded transformers model and runs none of its modules. Query, key and value products
are one, and so are gate and up. The families differ in biases, in norms of single heads and in windows, and in nothing
else that matters here; what is none of them, the general path serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from .....kvstore import Groups
from .....kvstore.pages import Pages
from ..pieces import Piece, Step, rows_wanted
from . import operations as ops
from .attention import Manner, Plan
from .blocks import FEW, Blocks, joined
from .linear import Linear, Narrow, Weight, even, fastest, fused
from .native import Native
from .operations import Angles, turned
from .panels import TILE, Panels
from .steps import Layer, Steps, Weights

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
DTYPES = (torch.float32, torch.bfloat16)
_WIDEST = 512
"""Dimensions of a head at most."""
DEVICES = ("cpu", "cuda")
"""Elsewhere than on a CPU all operations are torch's, and nothing is promised of a row's bits."""
Norms = tuple[torch.Tensor, torch.Tensor, float]
Attend = Callable[[int, torch.Tensor, Angles, Norms | None], torch.Tensor]


def unfit(network: Any) -> str | None:
    """Why this path cannot run a network; None if it can."""
    config = network.config
    if config.model_type not in FAMILIES:
        return f"the family {config.model_type} is none of {', '.join(FAMILIES)}"
    if getattr(config, "hidden_act", "silu") != "silu":
        return f"its activation is {config.hidden_act}, not silu"
    if network.dtype not in DTYPES or network.device.type not in DEVICES:
        return f"it is in {str(network.dtype).removeprefix('torch.')} on {network.device.type}"
    shared = config.num_attention_heads // config.num_key_value_heads
    if shared > TILE or network.model.layers[0].self_attn.head_dim > _WIDEST:
        return f"{shared} heads share keys, or a head is wider than {_WIDEST}: more than a tile of ours holds"
    strange = sorted(type(each).__name__ for each in network.modules() if not _known(type(each).__name__))
    if strange:
        return f"it has modules of its own: {', '.join(strange[:3])}"
    part = 2 * len(network.model.rotary_emb.inv_freq)
    return None if part == network.model.layers[0].self_attn.head_dim else f"it turns {part} numbers of a head alone"


@dataclass(frozen=True, slots=True)
class _Layer:
    enter: torch.Tensor
    qkv: Linear
    norms: Norms | None
    out: Linear
    middle: torch.Tensor
    gate_up: Linear
    down: Linear


class Lean:
    """A network's weights, and how a step of packed tokens goes through them."""

    name = "lean"

    @torch.no_grad()
    def __init__(
        self, network: Any, groups: Groups, native: Native | None, blocks: Mapping[str, Blocks] | None = None
    ) -> None:
        """Copies what it reorders; `adopt` then frees the network's own. Without `native` all is torch's.

        `blocks`: weights that steps of few rows read in four or eight bits, by name: bits depend on the company.
        """
        config, body = network.config, network.model
        self._native, self._blocks = native, blocks
        # Torch's products of float32 do not give that on any processor tried, and none of another device is.
        sure = native is not None or (network.dtype == torch.bfloat16 and network.device.type == "cpu")
        self._even: bool = blocks is None and sure
        self._parameters = dict(network.named_parameters(remove_duplicate=False))
        self._places: dict[int, list[tuple[Weight, slice]]] = {}
        self._dim = int(body.layers[0].self_attn.head_dim)
        self._kv_heads = int(config.num_key_value_heads)
        self._manner = Manner(groups, int(config.num_attention_heads) // self._kv_heads)
        self._eps = float(config.rms_norm_eps)
        self._turn = body.rotary_emb.inv_freq.float(), float(body.rotary_emb.attention_scaling)
        self._embed, self._last = body.embed_tokens.weight, body.norm.weight
        self._layers = [self._layer(layer) for layer in body.layers]
        self._head = self._linear(network.lm_head)
        self._steps = None if native is None else self._told(groups, native)

    @property
    def even(self) -> bool:
        """A row gets the same bits whatever else is in the step."""
        return self._even

    def adopt(self) -> None:
        """The network's own products hold nothing from now on but what is here."""
        for parameter in self._parameters.values():
            places = self._places.get(id(parameter), ())
            if places and parameter is not self._embed:
                weight, part = places[0]
                parameter.data = weight.share(part, parameter.dim())

    @torch.inference_mode()
    def forward(self, pieces: Sequence[Piece], pages: Pages) -> torch.Tensor:
        """One packed pass: float32 logits [wanted rows, vocab]."""
        if self._steps is not None:
            return self._steps.run(pieces, pages)
        plan = Plan(pieces, pages, self._manner)
        tokens = [token for piece in pieces for token in piece.tokens]
        return self._run(tokens, plan.positions, plan.attend, rows_wanted(pieces))

    @torch.inference_mode()
    def watch(self, tokens: Sequence[int], step: Step) -> None:
        """Let another step see the queries, keys and values of every layer, and attend in our place."""

        def attend(layer: int, heads: torch.Tensor, angles: Angles, norms: Norms | None) -> torch.Tensor:
            query, key, value = (each.transpose(0, 1) for each in turned(heads, angles, norms, self._kv_heads))
            return step.attend(layer, (query, key, value), self._dim**-0.5, {})

        self._run(tokens, step.positions, attend, ())

    @torch.no_grad()
    def reweigh(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Overwrite weights, by their names in the network; they fit, and what is not named stays as it is."""
        for name, tensor in tensors.items():
            parameter = self._parameters[name]
            places = self._places.get(id(parameter), ())
            for weight, part in places:
                weight.write(part, tensor)
            if not places or parameter is self._embed:
                parameter.copy_(tensor)
        if self._steps is not None:
            self._steps.changed()

    def _run(
        self, tokens: Sequence[int], positions: torch.Tensor, attend: Attend, wanted: Sequence[int]
    ) -> torch.Tensor:
        """A step of one row is run as two equal ones: products of one row round otherwise than those of several."""
        ids, eps = torch.tensor(tokens, device=self._embed.device), self._eps
        if len(ids) == 1:
            ids, positions = ids.expand(2), positions.expand(2)
        turns = positions[:, None].float() * self._turn[0]
        angles = turns.cos() * self._turn[1], turns.sin() * self._turn[1]
        state = F.embedding(ids, self._embed)
        rows = ops.norm(state, self._layers[0].enter, eps)
        nexts = [*(layer.enter for layer in self._layers[1:]), self._last]
        for index, (layer, following) in enumerate(zip(self._layers, nexts, strict=True)):
            seen = attend(index, layer.qkv(rows).view(len(ids), -1, self._dim), angles, layer.norms)
            rows = ops.add_norm(state, layer.out(seen.reshape(len(ids), -1)), layer.middle, eps)
            rows = ops.add_norm(state, layer.down(ops.gated(layer.gate_up(rows))), following, eps)
        if not wanted:
            return rows[:0].float()
        last = [*wanted, *wanted] if len(wanted) == 1 else list(wanted)
        return self._head(rows[torch.tensor(last, device=rows.device)])[: len(wanted)].float()

    def _layer(self, layer: Any) -> _Layer:
        own, mlp = layer.self_attn, layer.mlp
        single = hasattr(own, "q_norm")
        norms = (own.q_norm.weight, own.k_norm.weight, self._eps) if single else None
        qkv = self._linear(own.q_proj, own.k_proj, own.v_proj)
        return _Layer(
            enter=layer.input_layernorm.weight,
            qkv=qkv,
            norms=norms,
            out=self._linear(own.o_proj),
            middle=layer.post_attention_layernorm.weight,
            gate_up=self._linear(mlp.gate_proj, mlp.up_proj),
            down=self._linear(mlp.down_proj),
        )

    def _linear(self, *modules: Any) -> Linear:
        """One product of several. Where it was tried, it gives a row the same bits among any number of others."""
        weight, bias = fused([module.weight for module in modules], [module.bias for module in modules])
        made = self._weight(weight, bias, modules)
        at = 0
        for module in modules:
            part = slice(at, at + len(module.weight))
            for parameter in (module.weight, module.bias):
                if parameter is not None:
                    self._places.setdefault(id(parameter), []).append((made, part))
            at = part.stop
        if self._native is not None:
            return made
        most = even(*weight.shape, weight.dtype, torch.get_num_threads()) if self._even else 0
        self._even = self._even and most > 0
        return Narrow(made, most) if most else made

    def _weight(self, weight: torch.Tensor, bias: torch.Tensor | None, modules: Sequence[Any]) -> Weight:
        if self._native is None:
            return fastest(weight, bias)
        known = {id(self._parameters[name]): blocks for name, blocks in (self._blocks or {}).items()}
        blocks = joined([known.get(id(module.weight)) for module in modules])
        gated = len(modules) == 2  # gates and what they let through
        return Panels(weight, bias, self._native, gated=gated, blocks=None if blocks is None else (blocks, FEW))

    def _told(self, groups: Groups, native: Native) -> Steps:
        layers = []
        for own in self._layers:
            each = _panels(own.qkv), _panels(own.out), _panels(own.gate_up), _panels(own.down)
            layers.append(Layer(own.enter, own.norms, own.middle, each))
        heads, kv_heads = self._manner.shared * self._kv_heads, self._kv_heads
        turns, scale = self._turn
        weights = Weights(
            self._embed, tuple(layers), self._last, _panels(self._head), turns, scale, self._eps, heads, kv_heads, FEW
        )
        return Steps(weights, groups, native)


def _panels(linear: Linear) -> Panels:
    assert isinstance(linear, Panels), "with a library all weights are made for it"
    return linear


def _known(name: str) -> bool:
    """Whether a module's class is one of those that make up these families."""
    own = ("ForCausalLM", "Model", "RotaryEmbedding", "DecoderLayer", "Attention", "MLP", "RMSNorm")
    families = ("Llama", "Mistral", "Qwen2", "Qwen3")
    plain = ("Embedding", "Linear", "ModuleList", "SiLU", "SiLUActivation")
    return name in plain or name in {family + part for family in families for part in own}
