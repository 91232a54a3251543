"""A picture of the demo's trace in Phoenix's own pages, for the docs: `make screenshot`."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from websockets.sync.client import ClientConnection, connect

from sostenuto.tracing import Record, names, read_otlp_json

from .phoenix import HTTP, Phoenix, phoenix, run_demo, why_not

PROJECT = "sostenuto-demo"
WIDTH, HEIGHT = 1400, 1270
LEFT, TOP = 467, 47
"""Pixels. A trace has three quarters of the page; what is to its left and above it is not kept."""
PORT = 9222


def main(picture: Path) -> None:
    """Runs the demo into a Phoenix, and takes a picture of its first trace with the second model call selected."""
    if why := why_not():
        sys.exit(f"screenshot: {why}")
    with tempfile.TemporaryDirectory() as folder, phoenix(Path(folder)) as running:
        file = Path(folder, "t.jsonl")
        run_demo(PROJECT, HTTP, file)
        sent = read_otlp_json(file)
        running.awaited(PROJECT, len(sent))
        address = _address(running, _resumed(sent))
        with browser(Path(folder, "browser")) as page:
            page.open(address)
            page.until(_TAB)
            page.evaluate(f"{_TAB}.click()")
            for name in ("sostenuto.kv.hit_tokens", "invoke_agent workshop"):
                page.until(_cell(name))
                page.evaluate(f"{_cell(name)}.scrollIntoView({{block: 'center'}})")
            time.sleep(1)  # what moves has come to rest
            picture.write_bytes(page.picture())
    sys.stdout.write(f"{picture}: {picture.stat().st_size // 1000} kB\n")


class Page:
    """A page of a browser, by its debugging protocol."""

    def __init__(self, wire: ClientConnection) -> None:
        self._wire = wire
        self._numbers = count(1)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a command."""
        number = next(self._numbers)
        self._wire.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer: dict[str, Any] = json.loads(self._wire.recv(timeout=60))
            if answer.get("id") == number:
                return dict(answer["result"])

    def open(self, address: str) -> None:
        """Goes there."""
        size = {"width": WIDTH + LEFT, "height": HEIGHT + TOP}
        self.call("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=address)

    def evaluate(self, script: str) -> Any:
        """What a script gives."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str) -> None:
        """Waits until a script gives something true."""
        for _ in range(300):
            if self.evaluate(f"Boolean({script})"):
                return
            time.sleep(0.1)
        sys.exit(f"screenshot: the page did not come so far within half a minute: {script}")

    def picture(self) -> bytes:
        """The page as it is, as a PNG without what is around the trace."""
        kept = {"x": LEFT, "y": TOP, "width": WIDTH, "height": HEIGHT, "scale": 1}
        return base64.b64decode(self.call("Page.captureScreenshot", format="png", clip=kept)["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A Chromium without a window."""
    flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    where = (f"--remote-debugging-port={PORT}", f"--user-data-dir={folder}", "about:blank")
    process = subprocess.Popen(["chromium", *flags, *where], stderr=subprocess.DEVNULL)
    try:
        with connect(_wire(), max_size=None) as wire:
            yield Page(wire)
    finally:
        process.terminate()
        process.wait()


def _wire() -> str:
    for _ in range(300):
        try:
            with urlopen(f"http://127.0.0.1:{PORT}/json") as answer:
                return next(str(one["webSocketDebuggerUrl"]) for one in json.load(answer) if one["type"] == "page")
        except OSError:
            time.sleep(0.1)
    sys.exit("screenshot: chromium did not open its debugging port within half a minute")


def _resumed(spans: list[Record]) -> Record:
    """The first model call that goes on with a held context."""
    restored = {each.parent_id for each in spans if each.name == names.KV_RESTORE}
    return min((each for each in spans if each.span_id in restored), key=lambda each: each.start)


def _address(running: Phoenix, span: Record) -> str:
    project = next(each["id"] for each in running.get("projects")["data"] if each["name"] == PROJECT)
    node = next(each["id"] for each in running.spans(PROJECT) if each["context"]["span_id"] == span.span_id)
    return f"{HTTP}/projects/{project}/traces/{span.trace_id}?selectedSpanNodeId={node}"


_TAB = "[...document.querySelectorAll('[role=tab]')].find(each => each.textContent.startsWith('Attributes'))"


def _cell(text: str) -> str:
    """The innermost element with this text."""
    return f"[...document.querySelectorAll('*')].findLast(each => each.textContent === {json.dumps(text)})"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
