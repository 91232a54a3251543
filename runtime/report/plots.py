"""Plots as SVG: curves over an axis, and lanes of what sessions did."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ...scheduler.simulator import Lane, Stretch

COLOURS = ("#0b6e99", "#c2410c", "#4d7c0f", "#7e22ce", "#b45309", "#0f766e", "#be123c", "#1d4ed8", "#57534e", "#a16207")
"""Of curves; what comes after them has the same ones, dashed."""
KINDS: Mapping[str, tuple[str, str]] = {
    "waiting": ("#d6a21e", "waits for a start"),
    "computing": ("#3b82c4", "its prompt is computed"),
    "recomputing": ("#c0392b", "its prompt is computed, part of it for the second time"),
    "speaking": ("#3f9b57", "answers"),
    "paused": ("#d8dce2", "its tools run"),
    "held": ("#26303d", "its context is held (bar below)"),
    "moved": ("#7e22ce", "its context is copied to or from host memory (mark)"),
    "preempted": ("#000000", "taken out of the batch (mark)"),
}
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 860, 260, 56, 34, 10
_LANE = 18
_THIN = 0.4
"""Pixels below which a stretch is not drawn by itself."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Points that belong together, in order."""

    name: str
    points: Sequence[tuple[float, float]]


def curves(found: Sequence[Curve], *, x: str, log: bool = False) -> str:
    """Curves between 0 and 1 over an axis of seconds."""
    ends = [at for curve in found for at, _ in curve.points]
    positive = [at for at in ends if at > 0]
    if not positive:
        return "<p>There is nothing to draw.</p>"
    low, high = (min(positive), max(positive)) if log else (0.0, max(positive))
    high = high if high > low else low * 2 or 1.0

    def across(at: float) -> float:
        share = math.log(max(at, low) / low) / math.log(high / low) if log else at / high
        return _LEFT + share * (_WIDTH - _LEFT - 10)

    def down(value: float) -> float:
        return _TOP + (1 - value) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">']
    for tenth in range(0, 11, 2):
        at = down(tenth / 10)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{tenth / 10:.1f}</text>')
    for tick in _ticks(low, high, log):
        at = across(tick)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{_seconds(tick)}</text>')
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 3}" text-anchor="middle">{escape(x)}</text>')
    for number, curve in enumerate(found):
        points = " ".join(f"{across(at):.1f},{down(value):.1f}" for at, value in curve.points)
        dash = ' stroke-dasharray="7 4"' if number >= len(COLOURS) else ""
        stroke = f'stroke="{_colour(number)}"{dash}'
        parts.append(f'<polyline points="{points}" {stroke}><title>{escape(curve.name)}</title></polyline>')
    names = [f"{curve.name} (dashed)" if n >= len(COLOURS) else curve.name for n, curve in enumerate(found)]
    return "".join([*parts, "</svg>", legend([(name, _colour(n)) for n, name in enumerate(names)])])


def lanes(found: Sequence[Lane], until: float) -> str:
    """What sessions did up to a time: a row each, and under it a dark bar where its context was held."""
    height = len(found) * _LANE + _BOTTOM
    wide = _WIDTH - 120 - 10
    parts = [f'<svg viewBox="0 0 {_WIDTH} {height}" role="img">']
    for tick in _ticks(0.0, until, log=False):
        at = 120 + tick / until * wide
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{height - _BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{height - 16}" text-anchor="middle">{_seconds(tick)}</text>')
    for number, lane in enumerate(found):
        top = number * _LANE
        parts.append(f'<text x="114" y="{top + 12}" text-anchor="end">{escape(lane.name[-16:])}</text>')
        for one in _drawn(lane.stretches, until, wide):
            left, width = 120 + one.begun / until * wide, (one.ended - one.begun) / until * wide
            colour, _ = KINDS[one.kind]
            at, high = (top + 13, 3) if one.kind == "held" else (top + 2, 10)
            if one.kind in ("moved", "preempted"):
                width, at, high = 1.5, top, 13
            title = f"{one.kind} {_seconds(one.begun)} to {_seconds(one.ended)}"
            parts.append(
                f'<rect x="{left:.1f}" y="{at}" width="{max(width, _THIN):.1f}" height="{high}" fill="{colour}">'
                f"<title>{title}</title></rect>"
            )
    parts.append(f'<text x="{_WIDTH / 2}" y="{height - 2}" text-anchor="middle">seconds of the simulation</text></svg>')
    return "".join(parts)


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """Names and their colours."""
    spans = (f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in entries)
    return f'<p class="legend">{"".join(spans)}</p>'


def distribution(values: Sequence[float]) -> list[tuple[float, float]]:
    """For ordered values, which share of them is as small; 200 points at most."""
    count = len(values)
    step = max(1, count // 200)
    places = [*range(0, count, step), count - 1] if count else []
    return [(values[at], (at + 1) / count) for at in places]


def _drawn(stretches: Sequence[Stretch], until: float, wide: float) -> Iterator[Stretch]:
    """What can be seen: stretches too thin for that are left out where another was drawn at the same place."""
    ends: dict[str, float] = {}
    for one in sorted(stretches, key=lambda each: (each.begun, each.ended)):
        if one.begun > until:
            return
        end = min(one.ended, until)
        if (end - ends.get(one.kind, -until)) / until * wide < _THIN:
            continue
        ends[one.kind] = end
        yield Stretch(one.kind, one.begun, end)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _ticks(low: float, high: float, log: bool) -> Iterator[float]:
    if log:
        power = math.floor(math.log10(low))
        while 10.0**power <= high:
            if 10.0**power >= low:
                yield 10.0**power
            power += 1
        return
    step = 10.0 ** math.floor(math.log10(high - low))
    step = next(each for each in (step / 5, step / 2, step, 2 * step) if (high - low) / each <= 8)
    for number in range(int((high - low) / step) + 1):
        yield low + number * step


def _seconds(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"
