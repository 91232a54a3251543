"""What tools cost: compiling, masking, checking; log, limits, grants, dispatch; each beside a peer in one run.

python -m sostenuto.bench.tools [--data FOLDER] [--schemas 187] [--runs 5] [--engine]

FOLDER holds tool_schemas.jsonl and tool_calls.jsonl. xgrammar and biscuit-python are measured where they are installed;
`--engine` adds what a constrained token costs in the engine, with eight answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import jsonschema
from transformers import AutoTokenizer

from sostenuto.runtime.engines.torch.weights import locate
from sostenuto.tools import SMOLLM, Choice, Compiler, GrammarRefused, Tool, Validator, read_tool, render_call
from sostenuto.tools.grammars.llguidance import LLGuidanceCompiler
from sostenuto.tools.places import Json

from .report import machine
from .tools_guard import constrained, guards

SEED = 0
BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data" / "tools"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=BESIDE)
    parser.add_argument("--schemas", type=int, default=187)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--engine", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    tools = {row["id"]: _tool(row) for row in list(rows(options.data / "tool_schemas.jsonl"))[: options.schemas]}
    calls = [row for row in rows(options.data / "tool_calls.jsonl") if row["schema_id"] in tools]
    source = locate(None)
    tokenizer: Any = AutoTokenizer.from_pretrained(source.path, local_files_only=True)
    print(machine(SEED, 1, packages=("llguidance", "jsonschema", "sostenuto")))
    print(f"{len(tools)} schemas, {len(calls)} calls; microseconds")
    print(f"  {'':<52}{'p50':>11}{'p90':>11}{'p99':>11}{'max':>11}")
    _checks(tools, calls, options.runs)
    vocab = len(tokenizer)
    first = [(tools[row["schema_id"]], row) for row in calls if row["valid"]]
    examples = {tool.name: row["args"] for tool, row in reversed(first)}
    made: dict[str, Any] = {"llguidance": LLGuidanceCompiler}
    if importlib.util.find_spec("xgrammar") is not None:
        made["xgrammar"] = importlib.import_module("sostenuto.tools.grammars.xgrammar").XGrammarCompiler
        _theirs(tools, examples, tokenizer, vocab)
    for name, make in made.items():
        compiler = make(tokenizer.backend_tokenizer.to_str(), eos=[tokenizer.eos_token_id], vocab=vocab)
        _ours(name, compiler, tools, examples, tokenizer)
    guards()
    if options.engine:
        constrained()


def _ours(name: str, compiler: Compiler, tools: dict[str, Tool], examples: dict[str, Any], tokenizer: Any) -> None:
    compiled, again, masks, accepts = [], [], [], []
    for tool in tools.values():
        start = perf_counter()
        try:
            grammar = compiler.tools([tool], Choice("any"), SMOLLM, parallel=False)
        except GrammarRefused as refused:
            print(f"  refused: {refused}")
            continue
        compiled.append(perf_counter() - start)
        again.append(_taken(partial(compiler.tools, [tool], Choice("any"), SMOLLM, parallel=False)))
        assert grammar is not None
        if tool.name not in examples:
            continue
        text = render_call(SMOLLM, tool.name, json.dumps(_ordered(examples[tool.name], tool.parameters)))
        for token in tokenizer.encode(text, add_special_tokens=False):
            masks.append(_taken(grammar.mask))
            start = perf_counter()
            fits = grammar.accept(token)
            accepts.append(perf_counter() - start)
            if not fits:
                break
    _print(f"{name}: compile a tool's turn", compiled)
    _print("  the same again (cached)", again)
    _print(f"{name}: mask of a token inside a call", masks)
    _print(f"{name}: accept a token", accepts)


def _theirs(tools: dict[str, Tool], examples: dict[str, Any], tokenizer: Any, vocab: int) -> None:
    xgrammar: Any = importlib.import_module("xgrammar")
    info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    bitmask = xgrammar.allocate_token_bitmask(1, vocab)
    compiled, masks = [], []
    for tool in tools.values():
        start = perf_counter()
        try:
            grammar = compiler.compile_json_schema(json.dumps(dict(tool.parameters)))
        except RuntimeError as refused:
            print(f"  xgrammar refused: {str(refused)[:100]}")
            continue
        compiled.append(perf_counter() - start)
        matcher = xgrammar.GrammarMatcher(grammar)
        text = json.dumps(_ordered(examples.get(tool.name, {}), tool.parameters))
        for token in tokenizer.encode(text, add_special_tokens=False):
            masks.append(_taken(partial(matcher.fill_next_token_bitmask, bitmask)))
            if not matcher.accept_token(token):
                break
    _print("xgrammar by itself: compile the arguments", compiled)
    _print("xgrammar by itself: mask of a token", masks)


def _checks(tools: dict[str, Tool], calls: Sequence[dict[str, Any]], runs: int) -> None:
    ours = {key: Validator(tool.parameters) for key, tool in tools.items()}
    slow = {key: Validator(tool.parameters, fast=False) for key, tool in tools.items()}
    bare = {key: jsonschema.Draft202012Validator(dict(tool.parameters)) for key, tool in tools.items()}
    for valid in (True, False):
        rows = [row for row in calls if row["valid"] is valid] * runs
        word = "valid" if valid else "invalid"
        kinds: list[tuple[str, Callable[[str, Json], object]]] = [
            ("", lambda key, args: ours[key].problems(args)),
            (", without jsonschema-rs", lambda key, args: slow[key].problems(args)),
            (", bare jsonschema", lambda key, args: list(bare[key].iter_errors(args))),
        ]
        for name, check in kinds:
            times = [_taken(partial(check, row["schema_id"], row["args"])) for row in rows]
            _print(f"check a call that is {word}{name}", times)


def _taken(call: Callable[[], object]) -> float:
    start = perf_counter()
    call()
    return perf_counter() - start


def _print(name: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    at = [ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1e6 for part in (0.5, 0.9, 0.99, 1)]
    print(f"  {name:<52}" + "".join(f"{each:>11.1f}" for each in at) + f"  n={len(ordered)}")


def _tool(row: dict[str, Any]) -> Tool:
    name = "".join(char if char.isalnum() else "_" for char in row["id"])
    return read_tool({"name": name, "description": row["description"], "parameters": row["input_schema"]})


def _ordered(value: Any, schema: Any) -> Any:
    """Keys in the schema's order, as a grammar wants them."""
    if isinstance(value, dict):
        stated = schema.get("properties", {}) if isinstance(schema, dict) or hasattr(schema, "get") else {}
        place = {key: number for number, key in enumerate(stated)}
        keys = sorted(value, key=lambda key: place.get(key, len(place)))
        return {key: _ordered(value[key], stated.get(key, {})) for key in keys}
    return value


def rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


if __name__ == "__main__":
    main()
