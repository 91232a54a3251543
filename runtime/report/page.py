"""A simulation as one page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from ..simulating import Result
from .plots import KINDS, Curve, curves, distribution, lanes, legend

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:920px;margin:2em auto;padding:0 1em;color:#1b2430;background:#fff}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.15em;margin-top:2em}h3{font-size:1em;margin:1.2em 0 .2em}
svg{width:100%;height:auto;display:block}svg text{font-size:11px;fill:#475569}
.grid{stroke:#e2e8f0}polyline{fill:none;stroke-width:2}
table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}
th,td{padding:.25em .6em;text-align:right;border-bottom:1px solid #e2e8f0}th:first-child,td:first-child{text-align:left}
.legend span{display:inline-block;margin-right:1.2em;font-size:13px}
.legend i{display:inline-block;width:.9em;height:.9em;margin-right:.4em;vertical-align:-.1em}
.facts{font-size:13px;color:#475569}
"""
_FIGURES = (
    ("policy", "policy", "{}", ""),
    ("jobs", "jobs", "{}", "jobs done"),
    (
        "jct_mean_s",
        "JCT mean",
        "{:.2f}",
        "job completion time: from a job's first call to its answer, pauses included; s",
    ),
    ("jct_p50_s", "p50", "{:.2f}", "half of the jobs took less"),
    ("jct_p90_s", "p90", "{:.2f}", ""),
    ("jct_p99_s", "p99", "{:.2f}", ""),
    ("ideal_mean_s", "ideal", "{:.2f}", "the mean job alone on the device, with nothing lost; s"),
    ("ttft_resume_p50_s", "TTFT p50", "{:.3f}", "from a tool's return to the first token; s"),
    ("ttft_resume_p90_s", "p90", "{:.3f}", ""),
    ("ttft_resume_p99_s", "p99", "{:.3f}", ""),
    ("reused_share", "reused", "{:.3f}", "share of all prompt tokens that were found computed"),
    ("recomputed_tokens", "recomputed", "{:,}", "tokens computed again, because they were lost or taken out"),
    ("held_token_s", "held, tok s", "{:.3g}", "tokens under holds times the seconds they were"),
    ("moves", "moves", "{:,}", "copies to and from host memory"),
    ("preemptions", "preempted", "{:,}", "turns taken out of the batch"),
    ("goodput", "goodput", "{:.3f}", "share of jobs done within alpha times their ideal time"),
    ("fairness", "Jain", "{:.3f}", "Jain's index over the tenants' mean slowdowns; 1 is even"),
    ("busy_share", "busy", "{:.2f}", "share of the time in which the device computed"),
    ("refused", "refused", "{:,}", "calls that can never fit into the pool"),
    ("regret", "regret", "{:+.1%}", "mean job completion time above the oracle's"),
)


def page(trace: str, settings: Mapping[str, Any], results: Sequence[Result]) -> str:
    """The whole page."""
    title = f"Simulation of {trace}"
    parts = [
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>",
        *_settings(settings),
        "<h2>Figures</h2>",
        _table(results),
        *_meaning(),
        "<h2>How long jobs took</h2>",
        "<p>Each curve says which share of the jobs was done within a time; the further left, the better. The axis is "
        "logarithmic.</p>",
        curves(
            [Curve(one.figures.policy, distribution(sorted(one.tally.jcts))) for one in results],
            x="job completion time in seconds",
            log=True,
        ),
        "<h2>Share of prompt tokens reused, over time</h2>",
        "<p>What was found in the pool when a call started, as a share of its prompt. It falls where contexts were "
        "evicted while their tools ran.</p>",
        curves(
            [Curve(one.figures.policy, one.tally.shares.points()) for one in results],
            x="seconds of the simulation",
        ),
        *_timeline(results),
        "</body></html>\n",
    ]
    return "".join(parts)


def _settings(settings: Mapping[str, Any]) -> Iterator[str]:
    shown = {key: value for key, value in settings.items() if key != "notes" and value is not None}
    told = ", ".join(f"{escape(key.replace('_', ' '))} {escape(_value(value))}" for key, value in shown.items())
    yield f'<p class="facts">{told}</p>'
    for note in settings.get("notes", ()):
        yield f'<p class="facts">Not as recorded: {escape(note)}.</p>'
    yield (
        '<p class="facts">d is the model\'s share of a job, k the contexts that fit into the pool, R = k d: below 1 '
        "the device is idle for want of room, and nothing can be won by holding work back.</p>"
    )


def _table(results: Sequence[Result]) -> str:
    head = "".join(f'<th title="{escape(meaning)}">{escape(name)}</th>' for _, name, _, meaning in _FIGURES)
    rows = []
    for one in results:
        cells = ((getattr(one.figures, key), form) for key, _, form, _ in _FIGURES)
        row = "".join(f"<td>{'-' if value is None else escape(form.format(value))}</td>" for value, form in cells)
        rows.append(f"<tr>{row}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _meaning() -> Iterator[str]:
    told = "; ".join(f"<b>{escape(name)}</b> {escape(meaning)}" for _, name, _, meaning in _FIGURES if meaning)
    yield f'<p class="facts">{told}.</p>'


def _timeline(results: Sequence[Result]) -> Iterator[str]:
    yield "<h2>What sessions did</h2><p>The first sessions, a row each, on the same axis under every policy.</p>"
    yield legend([(meaning, colour) for colour, meaning in KINDS.values()])
    ends = [one.ended for result in results for lane in result.tally.lanes for one in lane.stretches]
    if not ends:
        yield "<p>No session was recorded.</p>"
        return
    for result in results:
        yield f"<h3>{escape(result.figures.policy)}</h3>"
        yield lanes(result.tally.lanes, max(ends))


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
