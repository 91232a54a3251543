"""Writes the table in engines.md: what each engine says that it can do. Run as `python docs/engines.py`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx

from sostenuto.runtime.engines import Capabilities
from sostenuto.runtime.engines.openai import OpenAIEngine
from sostenuto.runtime.engines.torch.engine import TorchEngine
from sostenuto.runtime.engines.vllm.engine import VllmEngine
from sostenuto.runtime.engines.vllm.server import Server
from sostenuto.runtime.engines.vllm.tokens import Vocabulary

PAGE = Path(__file__).with_name("engines.md")
_BEGIN, _END = "<!-- capabilities -->", "<!-- /capabilities -->"


def page() -> str:
    """The text that engines.md should have: its own, with the table as it is now."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
    return f"{before}{_BEGIN}\n\n{table()}\n\n{_END}{rest.partition(_END)[2]}"


def table() -> str:
    """Capability by capability, what each engine says."""
    engines = columns()
    rows = [("capability", "what it means", *engines), ("---", "---", *(":---:" for _ in engines))]
    for name, meaning in meanings().items():
        rows.append((f"`{name}`", meaning, *("yes" if getattr(can, name) else "-" for can in engines.values())))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def columns() -> Mapping[str, Capabilities]:
    """The engines, and what they can. Of vLLM it depends on the server: here all else is switched on."""
    everything = Server("", "", "", longest=1, leases=True, caching=True, counted=True, grammar=True)
    return {
        "torch": TorchEngine.can,
        "vLLM with our plug-in": _vllm(everything),
        "vLLM without": _vllm(replace(everything, leases=False)),
        "OpenAI-compatible": OpenAIEngine.can,
    }


def meanings() -> Mapping[str, str]:
    """The fields of Capabilities in their order, with the docstring under each."""
    (found,) = ast.parse(inspect.getsource(Capabilities)).body
    assert isinstance(found, ast.ClassDef)
    told = {}
    for field, below in zip(found.body, found.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                told[name] = " ".join(text.split())
    return told


def _vllm(server: Server) -> Capabilities:
    return VllmEngine(server, Vocabulary(None, (), 0), httpx.AsyncClient(trust_env=False)).can


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
