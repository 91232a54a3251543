"""What tools cost: compiling, masking, checking; log, limits, grants, dispatch; each beside a peer in one run.

make bench-tools [ARGS="--engine --data FOLDER --schemas 187 --runs 5"]

FOLDER holds tool_schemas.jsonl and tool_calls.jsonl; else $SOSTENUTO_SHARED_DATA/tools or ../shared/data/tools does.
xgrammar and biscuit-python are measured where they are installed; `--engine` adds what a constrained token costs in
the engine, with eight answers at once.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any

import jsonschema
from transformers import AutoTokenizer

from sostenuto.runtime.engines.torch.weights import locate
from sostenuto.tools import SMOLLM, Choice, Compiler, GrammarRefused, Tool, Validator, read_tool, render_call
from sostenuto.tools.grammars.llguidance import LLGuidanceCompiler
from sostenuto.tools.places import Json
from sostenuto.tools.schema import closed

from .report import MICRO, machine, micro
from .tools_guard import constrained, guards

SEED = 0
BESIDE = (
    Path(os.environ.get("SOSTENUTO_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")) / "tools"
)
ALONE = "xgrammar by itself"
TURNS = (
    "compile a tool's turn",
    "compile it again (cached)",
    "mask of a token of a turn",
    "accept a token of a turn",
)


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
    there = [name for name in ("xgrammar", "biscuit-python", "jsonschema-rs") if _installed(name)]
    print(machine(SEED, 1, packages=("llguidance", "jsonschema", "langgraph", *there, "sostenuto")))
    for name in {"xgrammar", "biscuit-python", "jsonschema-rs"} - set(there):
        print(f"{name} is not installed: its rows are left out")
    print(f"{len(tools)} schemas, {len(calls)} calls; microseconds; the last column: the peer's time / ours, at p50")
    print(MICRO, flush=True)
    _checks(tools, calls, options.runs)
    _grammars(tools, calls, xgrammar="xgrammar" in there)
    guards()
    if options.engine:
        constrained()


def _grammars(tools: dict[str, Tool], calls: Sequence[dict[str, Any]], *, xgrammar: bool) -> None:
    """One schema after the other, each with every engine in turn."""
    tokenizer: Any = AutoTokenizer.from_pretrained(locate(None).path, local_files_only=True)
    examples = {tools[row["schema_id"]].name: row["args"] for row in reversed(calls) if row["valid"]}
    given = (tokenizer.backend_tokenizer.to_str(),)
    kept: Any = {"eos": [tokenizer.eos_token_id], "vocab": len(tokenizer)}
    ours: dict[str, Compiler] = {"llguidance": LLGuidanceCompiler(*given, **kept)}
    theirs = None
    if xgrammar:
        engine: Any = importlib.import_module("sostenuto.tools.grammars.xgrammar")
        ours["xgrammar"] = engine.XGrammarCompiler(*given, **kept)
        theirs = _Alone(tokenizer, len(tokenizer))
    times: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in (*ours, ALONE)}
    for tool in tools.values():
        example = _ordered(examples[tool.name], tool.parameters) if tool.name in examples else None
        value = tokenizer.encode(json.dumps(example), add_special_tokens=False) if example is not None else []
        text = render_call(SMOLLM, tool.name, json.dumps(example))
        turn = tokenizer.encode(text, add_special_tokens=False) if example is not None else []
        for name, compiler in ours.items():
            _timed(times[name], compiler, tool, value, turn)
        if theirs is not None:
            theirs.timed(times[ALONE], tool, value)
    for what in ("compile the arguments", "mask of a token in them", "accept it", *TURNS):
        peer = times[ALONE].get(what)
        for name in [name for name in times if what in times[name]]:
            print(micro(f"{name}: {what}", times[name][what], peer if name != ALONE else None), flush=True)


def _timed(
    times: dict[str, list[float]], compiler: Compiler, tool: Tool, value: Sequence[int], turn: Sequence[int]
) -> None:
    make = partial(compiler.tools, [tool], Choice("any"), SMOLLM, parallel=False)
    try:
        took, grammar = _taken(lambda: compiler.schema(closed(tool.parameters)))
        times["compile the arguments"].append(took)
        _followed(times, grammar, value, ("mask of a token in them", "accept it"))
        took, grammar = _taken(make)
        times[TURNS[0]].append(took)
        times[TURNS[1]].append(_taken(make)[0])
        _followed(times, grammar, turn, TURNS[2:])
    except GrammarRefused as refused:
        print(f"  refused: {refused}")


def _followed(times: dict[str, list[float]], grammar: Any, tokens: Sequence[int], names: Sequence[str]) -> None:
    for token in tokens:
        times[names[0]].append(_taken(grammar.mask)[0])
        took, fits = _taken(partial(grammar.accept, token))
        times[names[1]].append(took)
        if not fits:
            return


class _Alone:
    """xgrammar as its users have it: its own reading of the arguments' schema."""

    def __init__(self, tokenizer: Any, vocab: int) -> None:
        self._xgrammar: Any = importlib.import_module("xgrammar")
        info = self._xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=vocab)
        self._compiler = self._xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self._bitmask = self._xgrammar.allocate_token_bitmask(1, vocab)

    def timed(self, times: dict[str, list[float]], tool: Tool, value: Sequence[int]) -> None:
        text = json.dumps(dict(tool.parameters))
        try:
            took, grammar = _taken(lambda: self._compiler.compile_json_schema(text))
        except RuntimeError as refused:
            print(f"  xgrammar refused: {str(refused)[:100]}")
            return
        times["compile the arguments"].append(took)
        matcher = self._xgrammar.GrammarMatcher(grammar)
        for token in value:
            times["mask of a token in them"].append(_taken(partial(matcher.fill_next_token_bitmask, self._bitmask))[0])
            took, fits = _taken(partial(matcher.accept_token, token))
            times["accept it"].append(took)
            if not fits:
                return


def _checks(tools: dict[str, Tool], calls: Sequence[dict[str, Any]], runs: int) -> None:
    ours = {key: Validator(tool.parameters) for key, tool in tools.items()}
    slow = {key: Validator(tool.parameters, fast=False) for key, tool in tools.items()}
    bare = {key: jsonschema.Draft202012Validator(dict(tool.parameters)) for key, tool in tools.items()}
    kinds: list[tuple[str, Callable[[str, Json], object]]] = [
        ("ours", lambda key, args: ours[key].problems(args)),
        ("ours, without jsonschema-rs", lambda key, args: slow[key].problems(args)),
        ("bare jsonschema", lambda key, args: list(bare[key].iter_errors(args))),
    ]
    for valid in (True, False):
        some = [row for row in calls if row["valid"] is valid]
        for row in some:  # each is made ready at its first use
            for _, check in kinds:
                check(row["schema_id"], row["args"])
        times: list[list[float]] = [[] for _ in kinds]
        for row in some * runs:
            for taken, (_, check) in zip(times, kinds, strict=True):
                taken.append(_taken(partial(check, row["schema_id"], row["args"]))[0])
        word = "valid" if valid else "invalid"
        for taken, (name, _) in zip(times, kinds, strict=True):
            peer = None if taken is times[-1] else times[-1]
            print(micro(f"check a call that is {word}: {name}", taken, peer), flush=True)


def _taken(call: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and what came of it."""
    start = perf_counter()
    made = call()
    return (perf_counter() - start) * 1e3, made


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


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
