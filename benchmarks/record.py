"""The record of what was measured, as JSON: `results.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.machine import installed

Record = dict[str, Any]


def begun(quick: bool) -> Record:
    """Return the record of a measurement that begins now."""
    return {"date": _today(), "quick": quick, "machine": machine.described(), "versions": {}, "rows": []}


def add(record: Record, row: dict[str, Any]) -> None:
    """Add what was found of a row, and the versions of what was measured in it."""
    record["rows"].append({**row, "date": _today()})
    packages = {package for one in row["contenders"] for package in one["packages"]}
    versions = {package: installed(package) for package in {*packages, "oao-harness"}}
    record["versions"] = dict(sorted({**record["versions"], **{k: v for k, v in versions.items() if v}}.items()))


def read(path: Path) -> Record:
    """Return the record in a file."""
    found: Record = json.loads(path.read_text(encoding="utf-8"))
    return found


def write(path: Path, record: Record, order: Sequence[str]) -> None:
    """Write a record in an order of rows; those that were not measured now stay, others are not rows any more."""
    if path.exists():
        old = read(path)
        rows = {row["id"]: row for row in old["rows"]} | {row["id"]: row for row in record["rows"]}
        record = {
            **record,
            "versions": dict(sorted({**old["versions"], **record["versions"]}.items())),
            "rows": [rows[name] for name in order if name in rows],
        }
    path.write_text(text_of(record), encoding="utf-8")


def text_of(record: Record) -> str:
    """Return a record as text."""
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
