"""Traces in the terminal, as trees, when they are over."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import format_span_id

from .encode import records_of
from .records import Record
from .tree import render_tree

MOST_SPANS = 10_000
"""Kept of traces that are not over; beyond that the oldest are shown as far as they have come."""


class Console(SpanExporter):
    """Prints a trace to standard error as a tree when the outermost span of this process in it has ended.

    What ends later, such as a hold that outlives its run, is printed on `shutdown`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, list[Record]] = {}
        self._kept = 0

    def __repr__(self) -> str:
        return f"<Console {len(self._open)} traces open>"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keeps them until their trace is over."""
        tops = {format_span_id(span.context.span_id) for span in spans if span.context and _outermost(span)}
        over: list[list[Record]] = []
        with self._lock:
            for record in records_of(spans):
                self._open.setdefault(record.trace_id, []).append(record)
                self._kept += 1
                if record.span_id in tops:
                    over.append(self._take(record.trace_id))
            while self._kept > MOST_SPANS:
                over.append(self._take(next(iter(self._open))))
        for each in over:
            _print(each)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Prints what is left."""
        with self._lock:
            over = [self._take(trace) for trace in list(self._open)]
        for each in over:
            _print(each)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True: what is kept waits for the end of its trace."""
        return True

    def _take(self, trace: str) -> list[Record]:
        found = self._open.pop(trace)
        self._kept -= len(found)
        return found


def _outermost(span: ReadableSpan) -> bool:
    return span.parent is None or span.parent.is_remote


def _print(spans: Sequence[Record]) -> None:
    if sys.stderr is None or sys.stderr.closed:
        return
    width = shutil.get_terminal_size().columns if sys.stderr.isatty() else None
    sys.stderr.write(f"trace {spans[0].trace_id}\n{render_tree(spans, width=width)}\n")
