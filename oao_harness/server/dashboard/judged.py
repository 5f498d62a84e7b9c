"""Coverage, policy diffs and diffs of runs as values for templates. No markup, no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from oao_harness.journal.changes import Changes
from oao_harness.journal.timeline import mapping, text
from oao_harness.policy.coverage import Coverage
from oao_harness.wording.texts import clean, one_line
from oao_hookspecs import Json

__all__ = ["changes_values", "coverage_values", "policy_diff_values"]

_MOST_LINES: Final = 200
_MOST_ROWS: Final = 100
_TITLES: Final = {
    "denied": "Newly denied",
    "allowed": "Newly allowed",
    "asked": "Now to approve",
    "released": "No longer to approve",
    "modified": "Modified otherwise",
    "same": "Same",
}


def changes_values(found: Changes) -> dict[str, Any]:
    """Return what differs between two runs."""
    steps = [
        {
            "kind": one.kind,
            "n": one.event.n,
            "call_kind": one.event.kind,
            "name": one_line(one.event.name),
            "lines": [clean(line) for line in one.lines[:_MOST_LINES]],
        }
        for one in found.behaviour
    ]
    return {"headline": one_line(found.headline), "steps": steps, "equal": len(found.steps) - len(steps)}


def coverage_values(found: Coverage) -> dict[str, Any]:
    """Return what runs have exercised of a policy; rules that never spoke come first."""
    rules = [
        {
            "name": one_line(one.item.name),
            "kind": one.item.kind,
            "source": one.item.source,
            "asked": one.asked,
            "matched": one.matched,
            "stopped": one.stopped,
        }
        for one in found.items
    ]
    return {
        "rules": sorted(rules, key=lambda rule: bool(rule["matched"])),
        "matched": found.matched,
        "total": len(found.items),
        "percent": round(found.percent),
        "runs": found.runs,
        "calls": found.calls,
        "unruled": [one_line(name) for name in sorted(found.unruled)],
    }


def policy_diff_values(found: Mapping[str, Json]) -> dict[str, Any]:
    """Return what another policy would change; see `PolicyDiff.to_json`."""
    counts, halted = mapping(found, "changes"), mapping(found, "halted")
    listed = cast("Sequence[Mapping[str, Json]]", found.get("changed_calls") or ())
    tiles = [("Runs judged", found.get("runs")), ("Calls judged", found.get("calls"))]
    tiles += [(title, counts.get(what)) for what, title in _TITLES.items()]
    tiles += [("Runs newly halted", halted.get("newly")), ("No longer halted", halted.get("no_longer"))]
    return {
        "tiles": [(title, value or 0) for title, value in tiles],
        "rows": [_row(one) for one in listed[:_MOST_ROWS]],
        "left_out": max(0, len(listed) - _MOST_ROWS) + int(cast("int", found.get("changed_calls_left_out") or 0)),
        "judged": bool(found.get("runs")),
    }


def _row(one: Mapping[str, Json]) -> dict[str, str]:
    return {
        "run": text(one, "run"),
        "place": one_line(text(one, "call")) or text(one, "stage"),
        "name": one_line(text(one, "name")),
        "what": text(one, "change"),
        "before": _verdict(mapping(one, "from")),
        "after": _verdict(mapping(one, "to")),
        "rule": one_line(text(one, "rule")),
    }


def _verdict(decision: Mapping[str, Json]) -> str:
    return one_line(f"{text(decision, 'verdict')} {text(decision, 'rule')}")
