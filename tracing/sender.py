"""Sends spans by OTLP, and never stands in the program's way."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from .otlp import Protocol, exporter

_log = logging.getLogger(__name__)


class Sender(SpanProcessor):
    """Sends spans in batches from a thread of its own.

    A collector that is not there costs the program nothing but its spans: when a batch is given up, a warning
    says so, once. `shutdown` and `force_flush` send what is left, for `grace` seconds at most.
    """

    def __init__(self, to: bool | str, *, grace: float) -> None:
        self._exporter = _Watched(*exporter(to))
        self._batches = BatchSpanProcessor(self._exporter)
        self._grace = grace
        self._over = False

    def __repr__(self) -> str:
        return f"<Sender to {self._exporter.where}{' closed' if self._over else ''}>"

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Nothing: only what has ended is sent."""

    def on_end(self, span: ReadableSpan) -> None:
        """Puts it among those to be sent."""
        self._batches.on_end(span)

    def shutdown(self) -> None:
        """Sends what is left; what could not be sent within the grace is lost."""
        if self._over:
            return
        self._over = True
        if not _within(self._grace, self._end):
            self._exporter.give_up(f"no answer within {self._grace:g} s")

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Sends what is left; False if that took longer than the timeout and the grace allow."""
        return self._over or _within(min(self._grace, timeout_millis / 1000), self._batches.force_flush)

    def _end(self) -> None:
        self._batches.shutdown()  # type: ignore[no-untyped-call]
        self._exporter.hush.off()


class _Watched(SpanExporter):
    """An exporter whose failures are told once, in our words; it can be stopped in the midst of a retry."""

    def __init__(self, exporter: SpanExporter, protocol: Protocol) -> None:
        self._exporter = exporter
        self._protocol = protocol
        self._once = threading.Lock()
        self._warned = self._ended = False
        self.where = protocol.where(exporter)
        self.hush = _Hush(protocol.logger)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Sends them, retrying as the exporter does; fails without a try once it is over."""
        if self._ended:
            return SpanExportResult.FAILURE
        with self.hush:
            result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._warn("it says no more")
        return result

    def shutdown(self) -> None:
        """Ends the exporter, and the wait for its next try if there is one."""
        with self._once:
            if self._ended:
                return
            self._ended = True
        self._exporter.shutdown()

    def give_up(self, why: str) -> None:
        """Ends it because it took too long."""
        self._warn(why)
        self.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """True: nothing is kept here."""
        return True

    def _warn(self, why: str) -> None:
        with self._once:
            if self._warned:
                return
            self._warned = True
        said = re.sub(r",? retrying in [\d.]+ ?s", "", self.hush.said or why).rstrip(". ")
        _log.warning(
            "spans could not be sent to %s by OTLP over %s: %s. The program goes on, and what it traces is lost until "
            "somebody listens there; this is said once.%s",
            self.where,
            self._protocol.name,
            said,
            self._protocol.hint(self.where),
        )


class _Hush(logging.Filter):
    """Keeps what an exporter logs while it exports for us off the log; its first words are kept here."""

    def __init__(self, logger: str) -> None:
        super().__init__()
        self._logger = logging.getLogger(logger)
        self._thread: int | None = None
        self.said = ""
        # The first of all filters: another one may drop what was said before, and ours would not learn it.
        self._logger.filters.insert(0, self)

    def __enter__(self) -> None:
        self._thread = threading.get_ident()

    def __exit__(self, *raised: object) -> None:
        self._thread = None

    def filter(self, record: logging.LogRecord) -> bool:
        """False for what was logged by the thread that exports."""
        if record.thread != self._thread:
            return True
        self.said = self.said or record.getMessage()
        return False

    def off(self) -> None:
        """Lets everything through again."""
        self._logger.removeFilter(self)


def _within(seconds: float, work: Callable[[], object]) -> bool:
    """Does the work in a thread, and waits so long for it; whether it was done by then, and well."""
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(work()), name="sostenuto-spans", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the first releases of Python 3.12 start none at exit: then the SDK's own limit holds
        return work() is not False
    thread.join(seconds)
    return bool(done) and done[0] is not False
