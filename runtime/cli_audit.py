"""`sostenuto audit verify`: is a log of tool calls as it was written, and if not, where."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from .execute.audit import LEAST_KEY, verify_file


def audit_options(parser: argparse.ArgumentParser) -> None:
    """What `sostenuto audit` takes."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    verify = commands.add_parser(
        "verify", help="finds every record that was changed, dropped, moved or cut off; exits 1 if there is one"
    )
    verify.add_argument("file", type=Path, metavar="FILE", help="the log; its head, FILE.head, stands beside it")
    verify.add_argument("--key-from", required=True, metavar="VARIABLE", help="the environment variable with its key")
    verify.add_argument("--anchors", type=Path, metavar="FILE", help="anchors of it that were noted elsewhere")
    verify.add_argument("--json", action="store_true", help="one JSON object")


def audit_shown(options: argparse.Namespace, environment: Mapping[str, str]) -> tuple[str, int]:
    """What was found, and how to exit. Raises ValueError for a key that is none, BrokenAudit, OSError."""
    key = environment.get(options.key_from, "").encode()
    if len(key) < LEAST_KEY:
        raise ValueError(f"--key-from {options.key_from}: found {len(key)} bytes; expected at least {LEAST_KEY}")
    found = verify_file(options.file, key, options.anchors)
    if options.json:
        told = {"log": found.log, "records": found.records, "note": found.note}
        return json.dumps({**told, "faults": [asdict(fault) for fault in found.faults]}), int(bool(found.faults))
    lines = [f"{options.file}, line {fault.line}: {fault.kind}: {fault.what}" for fault in found.faults]
    lines.append(f"{options.file}: {found.records} records whole and in their places, {len(found.faults)} faults")
    if found.note:
        lines.append(found.note)
    return "\n".join(lines), int(bool(found.faults))
