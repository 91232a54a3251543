"""The command line: demo and replay. The only file that reads the environment."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..scheduler import POLICIES, NotTheSame
from .errors import SostenutoError
from .journal import replay


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; 0 is success, 1 a fault that is named on standard error, 2 a wrong use."""
    parser = argparse.ArgumentParser(prog="sostenuto", description=__doc__.split(":")[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo_options(
        commands.add_parser("demo", help="agents with real tools on a real model, in a pool too small for all")
    )
    again = commands.add_parser(
        "replay", help="feed a journal to the kernel: the same events must give the same effects"
    )
    again.add_argument("journal", type=Path, metavar="FILE")
    options = parser.parse_args(argv)
    try:
        return _replay(options.journal) if options.command == "replay" else _demo(options)
    except (SostenutoError, NotTheSame, ValueError, OSError) as error:
        print(f"sostenuto: {error}", file=sys.stderr)
        return 1


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", help="a Hugging Face model directory, a GGUF file or a hub id (default: the packaged one)"
    )
    parser.add_argument("--policy", default="sostenuto", choices=sorted(POLICIES), help="who schedules the live run")
    parser.add_argument(
        "--pool-tokens", type=_positive, metavar="N", help="tokens that the pool holds (default: too few for all)"
    )
    parser.add_argument("--tasks", type=Path, metavar="FILE", help='questions, one {"id", "question"} per line')
    parser.add_argument("--agents", type=_positive, default=8, metavar="N", help="agents at once (default: 8)")
    parser.add_argument(
        "--rounds", type=_positive, default=4, metavar="N", help="model calls per agent at most (default: 4)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("sostenuto-demo"), metavar="DIR", help="where trace and journal go"
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help="the trace as OTLP JSON (default: in --out)")
    parser.add_argument(
        "--otlp", nargs="?", const="", metavar="URL", help="send spans by OTLP, to URL or as OTEL_* say"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")


def _demo(options: argparse.Namespace) -> int:
    # The demo needs the `local` extra; `sostenuto replay` does not.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from .demo.show import Options, show

    return show(
        Options(
            model=options.model,
            policy=options.policy,
            pool_tokens=options.pool_tokens,
            tasks=options.tasks,
            agents=options.agents,
            rounds=options.rounds,
            out=options.out,
            trace=options.trace,
            otlp=options.otlp,
            json=options.json,
        )
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


_positive.__name__ = "positive number"  # argparse names it when it refuses a value


def _replay(journal: Path) -> int:
    if not journal.is_file():
        raise ValueError(f"there is no journal {journal}: give the file that a run wrote")
    kernel, events = replay(journal)
    print(f"{journal}: {events} events gave the same effects | {kernel!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
