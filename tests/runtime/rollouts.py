"""A tiny model to roll out: its template ends every message with the token that ends an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.torch.model import Model
from sostenuto.runtime.engines.torch.weights import Source
from sostenuto.runtime.host import Host
from sostenuto.runtime.rollout.toolbox import Toolbox

from .conftest import build

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
DIGIT = {"enum": [1, 2, 3]}
ADD = {
    "name": "add",
    "description": "Add.",
    "parameters": {"type": "object", "properties": {"a": DIGIT, "b": DIGIT}, "required": ["a", "b"]},
}


def make(folder: Path, **settings: Any) -> Path:
    """A model directory."""
    build(folder, model_type="llama", max_position_embeddings=2048, **settings)
    untyped: Any = AutoTokenizer
    tokenizer = untyped.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.pad_token, tokenizer.padding_side = "<x>", "left"
    tokenizer.save_pretrained(folder)
    return folder


def load(folder: Path, page: int = 8) -> Model:
    return Model.load(Source(str(folder), "tiny"), dtype="float32", page=page)


def serve(folder: Path, pool: int = 8192) -> Host:
    """A host of its own, which nobody else has computed anything on."""
    return Host(TorchEngine(load(folder), pool_tokens=pool))


def idle(host: Host) -> bool:
    """Nothing is waiting, running or held, after everything told so far."""
    return "0 waiting | 0 running | <Ledger 0/" in host.loop.ask()


def adder(**rest: Any) -> Toolbox:
    return Toolbox([ADD], {"add": lambda a, b: str(a + b)}, **rest)
