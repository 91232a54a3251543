"""`sostenuto trace show`: a trace file as trees, and what they come to."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path

from ..tracing.errors import BadTraceFile
from ..tracing.records import Record, read_otlp_json, read_spans, traces
from ..tracing.summary import summarize
from ..tracing.summary_text import render_summary, summary_json
from ..tracing.tree import render_tree


def trace_options(parser: argparse.ArgumentParser) -> None:
    """What `sostenuto trace` takes."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = commands.add_parser("show", help="print a trace file as a tree and a summary")
    show.add_argument(
        "file", type=Path, metavar="FILE", help="OTLP JSON, as --trace writes it, or - for standard input"
    )
    which = show.add_mutually_exclusive_group()
    which.add_argument("--trace", metavar="ID", help="the trace whose id begins so (default: the last to begin)")
    which.add_argument("--all", action="store_true", help="every trace of the file")
    show.add_argument("--json", action="store_true", help="the summaries as one JSON object, and no tree")


def trace_shown(options: argparse.Namespace) -> tuple[str, str]:
    """What was asked for, and what is to be said of lines that could not be read: "" if there are none.

    Raises ValueError for a file without spans and for a trace that is not in it, `BadTraceFile` for one without
    a line that can be read, and OSError.
    """
    faults: list[BadTraceFile] = []
    name, spans = _read(options.file, faults)
    found = traces(spans)
    if not found:
        if faults:
            raise faults[0]
        raise ValueError(f"{name} has no spans: did the traced program shut its tracer provider down?")
    chosen = list(found) if options.all else [_chosen(found, name, options.trace)]
    said = _left_out(name, faults)
    if options.json:
        return json.dumps({"traces": [summary_json(summarize(found[one], one)) for one in chosen]}), said
    width = shutil.get_terminal_size().columns if sys.stdout is not None and sys.stdout.isatty() else None
    parts = [_shown(spans, one, width) for one in chosen]
    if len(found) > len(chosen):
        parts.append(f"{len(found)} traces are in the file: --all shows every one, --trace ID another")
    return "\n\n".join(parts), said


def writable(text: str) -> str:
    """Text as standard output can write it: what its encoding does not know as `\\u2514` and the like."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _read(file: Path, faults: list[BadTraceFile]) -> tuple[str, list[Record]]:
    """What to call it, and its spans. A pipe is as good as a file."""
    if str(file) == "-":
        if sys.stdin is None:
            raise ValueError("standard input is closed: give a file, or pipe one in")
        return "standard input", read_spans(sys.stdin.buffer, "standard input", faults=faults)
    if not file.exists():
        raise ValueError(f"there is no trace file {file}: give one that trace_file= or `sostenuto demo --trace` wrote")
    if file.is_dir():
        raise ValueError(f"{file} is a directory: give a trace file that is in it")
    return str(file), read_otlp_json(file, faults=faults)


def _left_out(name: str, faults: list[BadTraceFile]) -> str:
    if not faults:
        return ""
    told = "; ".join(f"line {each.line}: {each.found}" for each in faults[:3])
    more = f"; and {len(faults) - 3} more" if len(faults) > 3 else ""
    return f"{name}: left out what is no OTLP JSON, as a killed process leaves it: {told}{more}"


def _shown(spans: list[Record], trace: str, width: int | None) -> str:
    summary = render_summary(summarize(spans, trace), width=min(width or 100, 100))
    return f"trace {trace}\n{render_tree(spans, trace, width=width)}\n\n{summary}"


def _chosen(found: dict[str, list[Record]], file: str, wanted: str | None) -> str:
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
