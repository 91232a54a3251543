"""Single-turn tasks of the Berkeley Function Calling Leaderboard on the packaged model, with a grammar and without one.

make bench-tools-bfcl [ARGS="--data FOLDER --tasks N --kept FILE --at-once 8"]

FOLDER holds bfcl_tasks.jsonl; else $SOSTENUTO_SHARED_DATA/tools or ../shared/data/tools does. What is answered is kept
in FILE, a JSON line an answer; a second run goes on from there.
Counted of tasks that want calls: answers that are calls and fit their tools' schemas (well-formed), and those that make
exactly the calls that the task accepts (correct). Where no call is right, correct is an answer without one.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from sostenuto.runtime.answer import Answer
from sostenuto.runtime.ask import Ask, Message
from sostenuto.runtime.host import Host
from sostenuto.runtime.sampling import Sampling
from sostenuto.tools import Call, Choice, Dispatch, Tool, ToolError, decide, read_tools, validators

from .report import machine
from .tools import BESIDE, SEED, rows

WAYS = {"auto, free": ("auto", False), "auto, held": ("auto", True), "any, held": ("any", True)}
"""Each as the choice of tools, and whether a grammar holds the model to them."""
MOST = 192
"""Tokens of an answer; longer ones are cut, and no calls."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=BESIDE)
    parser.add_argument("--tasks", type=int, default=1000)
    parser.add_argument("--kept", type=Path, default=Path("bench/results/tools_bfcl.json"))
    parser.add_argument("--at-once", type=int, default=8)
    options = parser.parse_args()
    tasks = list(rows(options.data / "bfcl_tasks.jsonl"))[: options.tasks]
    options.kept.parent.mkdir(parents=True, exist_ok=True)
    known = {(row["id"], row["way"]): row["found"] for row in rows(options.kept)} if options.kept.is_file() else {}
    left = [task for task in tasks if any((task["id"], way) not in known for way in WAYS)]
    with Host.open() as host, ThreadPoolExecutor(options.at_once) as threads, options.kept.open("a") as file:
        for task, found in zip(left, threads.map(lambda task: _answered(host, task), left), strict=True):
            for way, kind in found.items():
                known[task["id"], way] = kind
                file.write(json.dumps({"id": task["id"], "way": way, "found": kind}) + "\n")
            file.flush()
    print(machine(SEED, torch.get_num_threads(), packages=("llguidance", "transformers", "sostenuto")))
    print("\n".join(table(tasks, known)))


def table(tasks: Sequence[Mapping[str, Any]], known: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """As the page on tools shows it."""
    wanting = [task for task in tasks if task["ground_truth"]]
    idle = [task for task in tasks if not task["ground_truth"]]
    yield f"{len(wanting)} tasks that want calls, {len(idle)} where no call is right"
    yield "| choice, model | called | well-formed | correct | cut | no call where none is right |"
    yield "|---|---:|---:|---:|---:|---:|"
    for way in WAYS:
        kinds = Counter(known[task["id"], way] for task in wanting)
        calm = Counter(known[task["id"], way] for task in idle)
        called = kinds["correct"] + kinds["valid"] + kinds["invalid"]
        well, right = kinds["correct"] + kinds["valid"], kinds["correct"]
        parts = [_share(count, len(wanting)) for count in (called, well, right, kinds["truncated"])]
        quiet = _share(calm["text"], len(idle)) if way.startswith("auto") else "-"
        yield f"| {way} | {' | '.join(parts)} | {quiet} |"


def matches(calls: Sequence[Call], wanted: Sequence[Mapping[str, Any]]) -> bool:
    """Whether these are the calls wanted, in any order: each a name, and for each argument the values that will do.

    An empty text among them lets the argument be left out. Texts are the same but for case, blanks and marks.
    """
    left = list(calls)
    for want in wanted:
        ((name, arguments),) = want.items()
        found = next((call for call in left if call.name == name and _fits(call.arguments, arguments)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _answered(host: Host, task: Mapping[str, Any]) -> dict[str, str]:
    """One way after another, so that all but the first find the prompt computed."""
    try:
        tools = read_tools(_spec(each) for each in task["tools"])
    except ToolError as refused:
        return dict.fromkeys(WAYS, f"refused: {refused}")
    messages = tuple(Message(each["role"], each["content"]) for each in task["question"][0])
    found = {}
    for way, (choice, held) in WAYS.items():
        mode: Any = choice
        sampling = Sampling(max_tokens=MOST)
        ask = Ask(messages, tools, choice=Choice(mode), constrain=held, returns=False, sampling=sampling)
        try:
            found[way] = _kind(host.ask(ask).wait(), tools, task["ground_truth"] or ())
        except ToolError as refused:
            found[way] = f"refused: {refused}"
    return found


def _kind(answer: Answer, tools: Sequence[Tool], wanted: Sequence[Mapping[str, Any]]) -> str:
    if answer.outcome.kind in ("text", "truncated"):
        return answer.outcome.kind
    checks = validators(tools)
    if answer.outcome.kind != "called" or not all(
        isinstance(decide(call, tools, checks), Dispatch) for call in answer.calls
    ):
        return "invalid"
    return "correct" if wanted and matches(answer.calls, wanted) else "valid"


def _fits(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    if not found.keys() <= wanted.keys():
        return False
    return all(
        any(_same(found[name], value) for value in values) if name in found else "" in values
        for name, values in wanted.items()
    )


def _same(found: Any, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        return isinstance(found, dict) and _fits(found, wanted)
    if isinstance(wanted, list):
        pairs = zip(found, wanted, strict=False) if isinstance(found, list) else ()
        return isinstance(found, list) and len(found) == len(wanted) and all(_same(*pair) for pair in pairs)
    if isinstance(wanted, str):
        return isinstance(found, str) and _bare(found) == _bare(wanted)
    return bool(found == wanted) and isinstance(found, bool) is isinstance(wanted, bool)


def _bare(text: str) -> str:
    return "".join(char for char in text.lower() if char not in " ,./-_*^'\"")


def _share(count: int, total: int) -> str:
    return f"{100 * count / total:.0f} % ({count})" if total else "-"


def _spec(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": tool["name"], "description": tool["description"], "parameters": tool["input_schema"]}


if __name__ == "__main__":
    main()
