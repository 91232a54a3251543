"""A trace's summary in words, and as plain data."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from .summary import Summary
from .tree import printable


def render_summary(summary: Summary, *, width: int = 100) -> str:
    """A summary as lines of at most `width` columns; the table of times takes 56."""
    lines = [*_time(summary), *_tokens(summary), *_holds(summary), *_moves(summary)]
    return "\n".join(part for line in lines for part in _wrapped(printable(line), width))


def summary_json(summary: Summary) -> dict[str, Any]:
    """A summary for programs: seconds where the summary has nanoseconds."""
    tokens, holds = summary.tokens, summary.holds
    return {
        "trace_id": summary.trace_id,
        "name": summary.name,
        "seconds": summary.time / 1e9,
        "spans": summary.spans,
        "errors": summary.errors,
        "time": {
            share.kind: {"wall": share.wall / 1e9, "total": share.total / 1e9, "spans": share.spans}
            for share in summary.shares
        },
        "tokens": {
            "calls": tokens.calls,
            "asked": tokens.asked,
            "said": tokens.said,
            "reused": tokens.reused,
            "computed": tokens.computed,
            "computed_twice": dict(tokens.again),
        },
        "holds": {
            "count": holds.count,
            "tokens": holds.tokens,
            "seconds": holds.time / 1e9,
            "resumed": holds.resumed,
            "ended": dict(holds.ended),
        },
        "kv": {
            name: {"count": move.count, "tokens": move.tokens, "blocks": move.blocks}
            for name, move in summary.moves.items()
        },
    }


def _time(summary: Summary) -> Iterator[str]:
    failed = f", {summary.errors} failed" if summary.errors else ""
    yield (
        f"time: {_seconds(summary.time)} of wall clock, {summary.spans} spans{failed}. Each moment counts once, for "
        "the first kind below that goes on at it; what goes on at the same time is all in the sum over the spans."
    )
    yield f"  {'':<10}{'wall clock':>13}{'':>8}{'all spans':>13}"
    for share in summary.shares:
        part = 100 * share.wall / summary.time if summary.time else 0.0
        sums = f"{_seconds(share.total):>13}  in {share.spans}" if share.spans else ""
        yield f"  {share.kind:<10}{_seconds(share.wall):>13}{part:6.1f} %{sums}".rstrip()


def _tokens(summary: Summary) -> Iterator[str]:
    tokens = summary.tokens
    if not tokens.calls:
        return
    known = f", {tokens.reused:,} reused, {tokens.computed:,} computed" if tokens.reused or tokens.computed else ""
    yield f"tokens: {tokens.calls} model calls: {tokens.asked:,} asked{known}; {tokens.said:,} said"
    if known:
        yield f"  computed twice: {sum(tokens.again.values()):,}"
        yield from (f"    {count:,}: {why}" for why, count in tokens.again.items())


def _holds(summary: Summary) -> Iterator[str]:
    holds = summary.holds
    if holds.count:
        yield f"holds: {holds.count}, {holds.tokens:,} tokens, {_seconds(holds.time)} in all; {holds.resumed} resumed"
        yield from (f"  {count}: {why}" for why, count in holds.ended.items())


def _moves(summary: Summary) -> Iterator[str]:
    for name, move in summary.moves.items():
        parts = [f"{move.tokens:,} tokens"] if move.tokens else []
        parts += [f"{move.blocks:,} blocks"] if move.blocks else []
        yield f"{name}: {', '.join([str(move.count), *parts])}"


def _wrapped(line: str, width: int) -> list[str]:
    """A line in so many columns; what it is continued on is indented a little more."""
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    return textwrap.wrap(line, max(width, 20), subsequent_indent=indent) if len(line) > width else [line]


def _seconds(nanoseconds: int) -> str:
    return f"{nanoseconds / 1e9:,.2f} s" if nanoseconds >= 1e9 else f"{nanoseconds / 1e6:,.1f} ms"
