"""What `promtool check metrics` and the text format ask of an exposition."""

from __future__ import annotations

import math
import re
import shutil
import subprocess
from collections import Counter

from prometheus_client.parser import text_string_to_metric_families

__all__ = ["lint"]

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_NOT_BASE = ("milliseconds", "_ms", "minutes", "hours", "kilobytes", "percent", "_count")


def lint(page: str) -> list[str]:
    """Return what is wrong with a page in the text format."""
    wrong: list[str] = []
    if not page.endswith("\n"):
        wrong.append("the last line does not end")
    lines = page.splitlines()
    series = Counter(line.rpartition(" ")[0] for line in lines if line and not line.startswith("#"))
    wrong += [f"twice: {one}" for one, times in series.items() if times > 1]
    for word in ("HELP", "TYPE"):
        said = Counter(line.split(" ")[2] for line in lines if line.startswith(f"# {word} "))
        wrong += [f"{word} twice: {one}" for one, times in said.items() if times > 1]
    helped = {line.split(" ", 3)[2]: line.split(" ", 3)[3] for line in lines if line.startswith("# HELP ")}
    for family in text_string_to_metric_families(page):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        if not _NAME.fullmatch(name):
            wrong.append(f"{name}: not lower case with single underscores")
        if not helped.get(name, "").strip():
            wrong.append(f"{name}: no help")
        if family.type in {"unknown", "untyped"}:
            wrong.append(f"{name}: no type")
        if family.type != "counter" and name.endswith("_total"):
            wrong.append(f"{name}: only a counter ends with _total")
        if any(unit in name for unit in _NOT_BASE):
            wrong.append(f"{name}: not a base unit, or a suffix that is kept for histograms")
        for sample in family.samples:
            own = {name, *(name + end for end in ("_bucket", "_sum", "_count") if family.type == "histogram")}
            if sample.name not in own:
                wrong.append(f"{sample.name}: not a series of {family.type} {name}")
            if family.type == "counter" and not (sample.value >= 0 and math.isfinite(sample.value)):
                wrong.append(f"{sample.name}: a counter is {sample.value}")
            for label in sample.labels:
                if not re.fullmatch("[a-z_]+", label) or (label in {"le", "quantile", "job", "instance"} - {"le"}):
                    wrong.append(f"{name}: label {label}")
        if family.type == "histogram":
            wrong += _histogram(name, family.samples)  # type: ignore[arg-type]
    promtool = shutil.which("promtool")
    if promtool is not None:
        done = subprocess.run(
            [promtool, "check", "metrics"], input=page, capture_output=True, text=True, timeout=30, check=False
        )
        wrong += [f"promtool: {line}" for line in (done.stdout + done.stderr).splitlines()] if done.returncode else []
    return wrong


def _histogram(name: str, samples: list[object]) -> list[str]:
    found: dict[frozenset[tuple[str, str]], dict[str, object]] = {}
    for one in samples:
        labels = dict(one.labels)  # type: ignore[attr-defined]
        bound = labels.pop("le", None)
        row = found.setdefault(frozenset(labels.items()), {"buckets": []})
        if bound is None:
            row[one.name.removeprefix(name)] = one.value  # type: ignore[attr-defined]
        else:
            row["buckets"].append((float(bound), one.value))  # type: ignore[attr-defined]
    wrong = []
    for labels, row in found.items():
        buckets: list[tuple[float, float]] = row["buckets"]  # type: ignore[assignment]
        counts = [count for _, count in buckets]
        if not buckets or buckets[-1][0] != math.inf:
            wrong.append(f"{name}{set(labels)}: no bucket le=+Inf")
        if buckets != sorted(buckets) or counts != sorted(counts):
            wrong.append(f"{name}{set(labels)}: its buckets do not grow")
        if "_sum" not in row or row.get("_count") != counts[-1]:
            wrong.append(f"{name}{set(labels)}: its sum or count is missing, or the count is not that of le=+Inf")
    return wrong
