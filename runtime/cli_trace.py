"""`sostenuto trace show`: a trace file as trees, and what they come to."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from ..tracing.records import Record, read_otlp_json, traces
from ..tracing.summary import summarize
from ..tracing.summary_text import render_summary, summary_json
from ..tracing.tree import render_tree


def trace_options(parser: argparse.ArgumentParser) -> None:
    """What `sostenuto trace` takes."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = commands.add_parser("show", help="print a trace file as a tree and a summary")
    show.add_argument("file", type=Path, metavar="FILE", help="OTLP JSON, as --trace and trace_file= write it")
    which = show.add_mutually_exclusive_group()
    which.add_argument("--trace", metavar="ID", help="the trace whose id begins so (default: the last to begin)")
    which.add_argument("--all", action="store_true", help="every trace of the file")
    show.add_argument("--json", action="store_true", help="the summaries as one JSON object, and no tree")


def trace_shown(options: argparse.Namespace) -> str:
    """What was asked for; raises ValueError for a file without spans and for a trace that is not in it."""
    file: Path = options.file
    if not file.is_file():
        raise ValueError(f"there is no trace file {file}: give one that trace_file= or `sostenuto demo --trace` wrote")
    found = traces(read_otlp_json(file))
    if not found:
        raise ValueError(f"{file} has no spans: did the traced program shut its tracer provider down?")
    chosen = list(found) if options.all else [_chosen(found, file, options.trace)]
    if options.json:
        return json.dumps({"traces": [summary_json(summarize(found[one], one)) for one in chosen]})
    spans = [span for each in found.values() for span in each]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    parts = [_shown(spans, one, width) for one in chosen]
    if len(found) > len(chosen):
        parts.append(f"{len(found)} traces are in the file: --all shows every one, --trace ID another")
    return "\n\n".join(parts)


def _shown(spans: list[Record], trace: str, width: int | None) -> str:
    summary = render_summary(summarize(spans, trace), width=min(width or 100, 100))
    return f"trace {trace}\n{render_tree(spans, trace, width=width)}\n\n{summary}"


def _chosen(found: dict[str, list[Record]], file: Path, wanted: str | None) -> str:
    if wanted is None:
        return next(reversed(found))
    match [one for one in found if one.startswith(wanted.lower())]:
        case [one]:
            return one
        case []:
            raise ValueError(f"there is no trace {wanted} in {file}; there are {_listed(list(found))}")
        case several:
            raise ValueError(f"{wanted} begins {len(several)} ids in {file}: {_listed(several)}; give more digits")


def _listed(ids: list[str]) -> str:
    shown = ", ".join(ids[:5])
    return shown if len(ids) <= 5 else f"{shown} and {len(ids) - 5} more"
