"""Decoding at growing context, and a resumed turn, beside transformers' own cache in the same run.

make bench [ARGS="--contexts 128 1024 4096 --runs 15"]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DynamicCache

from sostenuto.kvstore.pages import Pages
from sostenuto.runtime.engines.torch.model import Model, Piece
from sostenuto.runtime.engines.torch.weights import locate

from .report import alternate, machine, row

SEED = 0
NEW = 32
"""Tokens that a tool's result adds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--contexts", type=int, nargs="+", default=[128, 1024, 4096])
    parser.add_argument("--runs", type=int, default=11)
    options = parser.parse_args()
    torch.manual_seed(SEED)
    source = locate(options.model)
    ours = Model.load(source)
    dtype = getattr(torch, ours.shape.dtype)
    theirs: Any = AutoModelForCausalLM.from_pretrained(source.path, dtype=dtype, local_files_only=True)
    theirs.eval()
    print(machine(SEED, torch.get_num_threads()))
    print(f"{ours!r}, milliseconds; the last column: transformers' time / ours")
    print(f"  {'':<44}{'min':>9}{'p50':>9}{'p99':>9}")
    for context in options.contexts:
        _at(ours, theirs, context, options.runs)


@torch.inference_mode()
def _at(ours: Model, theirs: Any, context: int, runs: int) -> None:
    page = ours.shape.page
    tokens = torch.randint(100, ours.vocab - 100, (context + NEW,)).tolist()
    pages = Pages(ours.shape, (context + NEW) // page + 2)
    table = range(pages.room)
    for start in range(0, context, 512):
        ours.forward([Piece(table, start, tokens[start : min(start + 512, context)], wants=False)], pages)
    cache = DynamicCache()
    theirs(torch.tensor([tokens[:context]]), past_key_values=cache, logits_to_keep=1)

    def peer(count: int) -> None:
        theirs(torch.tensor([tokens[context : context + count]]), past_key_values=cache, logits_to_keep=1)
        cache.crop(-count)

    def mine(count: int) -> None:
        ours.forward([Piece(table, context, tokens[context : context + count], wants=True)], pages)

    def again() -> None:
        theirs(torch.tensor([tokens]), past_key_values=DynamicCache(), logits_to_keep=1)

    step, their_step = alternate(runs, lambda: mine(1), lambda: peer(1))
    resume, their_resume = alternate(runs, lambda: mine(NEW), lambda: peer(NEW))
    (recompute,) = alternate(max(3, runs // 4), again)
    print(row(f"decode one token after {context}", step, their_step))
    print(row("  transformers, DynamicCache", their_step))
    print(row(f"resume a held context of {context} with {NEW} new", resume, their_resume))
    print(row("  transformers, DynamicCache kept by hand", their_resume))
    print(row("  transformers, context thrown away", recompute))


if __name__ == "__main__":
    main()
