"""The page that the benchmark of engines writes: on what, which goals, and every figure with its spread."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from .engine_found import MACHINE, Found, Record, late, spread
from .engine_goals import goals
from .engine_peers import PEERS

MARKS = {True: "reached", False: "**missed**", None: "not measured"}
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
HEAD = """# The embedded engine beside its peers

Written by `make bench-engine`; [docs/engine.md](../../docs/engine.md) says how to read it. Unless said otherwise a
figure is min / p50 / p99 over rounds, and in brackets how many; ratios are taken round by round.
"""


def page(records: Sequence[Record], told: Mapping[str, str]) -> str:
    """Markdown. `told` are names and words that the driver knows: date, machine, peers."""
    found = Found(records)
    lines = [HEAD, *(f"- {name}: {words}" for name, words in told.items()), ""]
    lines += _table("Goals", ("goal", "", "found"), [(one.name, MARKS[one.reached], one.found) for one in goals(found)])
    lines += _rates(found, "prefill", "Reading a prompt")
    lines += _rates(found, "decode", "Speaking: batch x context")
    for name, columns, rows in (_resumes(found), _agents(found), _shares(found), _hosts(found), _linear(found)):
        lines += _table(name, columns, rows)
    for cell in found.cells("profile"):
        lines += _profile(found, cell)
    lines += _table(*_starts(found))
    return "\n".join(lines)


def inserted(document: str, text: str) -> str:
    """The document with a page of tables in its place, one level deeper. ValueError where it has none."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"found no place for the tables; expected {BEGIN} and {END}")
    body = "\n".join("#" + line if line.startswith("#") else line for line in text.removeprefix(HEAD).splitlines())
    return f"{before}{BEGIN}\n\n{body.strip()}\n\n{END}{after}"


Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]


def _table(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"## {name}", "", f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _rates(found: Found, what: str, name: str) -> list[str]:
    rows = []
    for cell in found.cells(what):
        for peer in _measured(found, cell):
            ratios = ["" if ours == peer else spread(found.ratios(cell, ours, peer), 2) for ours in ("exact", "fast")]
            steps = [each for one in found.rounds(cell, peer) for each in one.get("steps_ms", ())]
            pace = [f"{median(steps):.1f} / {late(steps):.1f}"] if steps else ["-"] * (what == "decode")
            rows.append((cell.removeprefix(what), f"`{peer}`", spread(found.values(cell, peer)), *pace, *ratios))
    pace = ["ms between tokens, p50 / p99"] * (what == "decode")
    return _table(name, ("", "", "tokens/s", *pace, "exact / peer", "fast / peer"), rows)


def _resumes(found: Found) -> Table:
    rows: list[tuple[str, ...]] = []
    for cell in found.cells("resume"):
        for peer in _measured(found, cell):
            last = found.rounds(cell, peer)[-1]
            cached = "-" if last["cached"] is None else f"{last['cached']:,} of {last['of']:,}"
            taken = spread([each * 1000 for each in found.values(cell, peer)])
            rows.append((cell, f"`{peer}`", taken, cached, _inverse(found, cell, peer)))
    return "First token after a tool", ("", "", "ms", "tokens found", "peer / exact"), rows


def _agents(found: Found) -> Table:
    rows: list[tuple[str, ...]] = []
    for cell in found.cells("agents"):
        for peer in _measured(found, cell):
            records = found.rounds(cell, peer)
            jobs = [each for one in records for each in one["jcts"]]
            firsts = [each for one in records for each in one["firsts"]]
            tokens = [f"{median(one[name] for one in records):,.0f}" for name in ("prompt", "reused", "recomputed")]
            taken = [f"{sum(jobs) / len(jobs):.1f}", f"{late(jobs):.1f}", f"{median(firsts):.2f}"]
            rows.append((cell, f"`{peer}`", *taken, *tokens, _inverse(found, cell, peer)))
    times = ("job, mean s", "p99 s", "first token after a tool, p50 s")
    return "Agents", ("", "", *times, "prompt tokens", "reused", "recomputed", "peer / exact"), rows


def _shares(found: Found) -> Table:
    bandwidth, rate = found.middle("bandwidth", MACHINE), found.middle("gemm", MACHINE)
    if bandwidth is None or rate is None:
        return "The machine", (), ()
    rows: list[tuple[str, ...]] = [
        ("reads from memory", f"{bandwidth / 1e9:.1f} GB/s"),
        ("bfloat16 products", f"{rate / 1e9:.0f} GFLOP/s"),
    ]
    if (alike := found.middle("gemm", MACHINE, "ours")) is not None:
        rows.append(("such products in the shape of our gate and up, 512 rows", f"{alike / 1e9:.0f} GFLOP/s"))
    rows += [
        (f"`{mode}`, batch 1 behind {context}: of that bandwidth", f"{share:.0%}")
        for mode in ("exact", "fast")
        for context in ("128", "4k")
        if (share := found.of_bandwidth(mode, context)) is not None
    ]
    if (reached := found.product_rate()) is not None:
        rows.append(("linear layers of prefill: of those products", f"{reached / rate:.0%}"))
    return "The machine, and our share of it", ("", ""), rows


def _hosts(found: Found) -> Table:
    rows = []
    for cell in found.cells("decode"):
        shares = [found.host(cell, mode) for mode in ("exact", "fast")]
        if any(share is not None for share in shares):
            rows.append((cell, *("-" if share is None else f"{share:.1%}" for share in shares)))
    return "Host overhead: time of a decode step outside of the forward pass", ("", "exact", "fast"), rows


def _linear(found: Found) -> Table:
    bends = dict(found.bends())
    rows = [
        (name, f"{seconds * 1000:.3f}", f"{bends[name]:.2f}" if name in bends else "-")
        for name, seconds in found.points().items()
    ]
    columns = ("context", "ms", "slope through the slope before")
    return "A token behind long contexts, in a small model of random weights", columns, rows


def _profile(found: Found, cell: str) -> list[str]:
    last = found.rounds(cell, MACHINE)[-1]
    rows = [(f"`{key}`", f"{took / last['all_s']:.1%}") for key, took in last["top"].items()]
    if "prefill" in cell:
        rows.append(("linear layers", f"{last['products_flops'] / 1e9:.0f} GFLOP/s"))
    return _table(f"Where the time goes: {cell}, {float(last['value']) * 1000:.1f} ms", ("operation", "of it"), rows)


def _starts(found: Found) -> Table:
    rows = []
    for peer in (peer.name for peer in PEERS):
        short = [one for cell in found.cells("") for one in found.rounds(cell, peer) if one["act"] == "short"]
        peak = max((int(one["peak"]) for one in short), default=0)
        told = [spread(found.values(cell, peer)) for cell in ("start anew", "start again")]
        if peak or told != ["-", "-"]:
            rows.append((f"`{peer}`", *told, f"{peak / 2**30:.2f}" if peak else "-"))
    columns = ("", "first token, empty cache, s", "again, s", "most memory seen, GiB")
    return "Start, and memory with the pool of the short act", columns, rows


def _measured(found: Found, cell: str) -> Iterator[str]:
    return (peer.name for peer in PEERS if found.rounds(cell, peer.name))


def _inverse(found: Found, cell: str, peer: str) -> str:
    return "" if peer == "exact" else spread([1 / each for each in found.ratios(cell, "exact", peer)], 2)
