"""The dashboard and the alerts in examples/: importable, and about metrics that exist."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from oao_harness.listeners.metrics_table import FAMILIES
from tests.listeners.metrics_traffic import busy_page, samples

EXAMPLES = Path(__file__).parents[2] / "examples"
DASHBOARD = json.loads((EXAMPLES / "grafana_dashboard.json").read_text(encoding="utf-8"))
LABELS = {one.name: {*one.labels, *({"le"} if one.kind == "histogram" else ())} for one in FAMILIES}


def family_of(series: str) -> str:
    return series if series in LABELS else re.sub("_(bucket|count|sum)$", "", series)


def expressions() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            yield variable["query"]["query"]
    yaml = pytest.importorskip("yaml")
    alerts = yaml.safe_load((EXAMPLES / "oao_alerts.yml").read_text(encoding="utf-8"))
    for group in alerts["groups"]:
        yield from (rule["expr"] for rule in group["rules"])


async def test_every_query_is_about_series_that_exist(tmp_path: Path) -> None:
    """Names, and the labels that are asked for or grouped by; every metric is shown somewhere."""
    exposed = {name for name, _ in samples(await busy_page(tmp_path))}
    used: set[str] = set()
    for query in expressions():
        names = re.findall(r"\boao_[a-z_]+", query)
        assert names, query
        assert set(names) <= exposed, query
        used |= {family_of(name) for name in names}
        for name, selector in re.findall(r"\b(oao_[a-z_]+)\{(.*?)\}", query):
            asked = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', selector))
            assert asked <= LABELS[family_of(name)], query
        for grouped in re.findall(r"\bby \((.*?)\)", query):
            for name in names:
                assert set(grouped.split(", ")) <= LABELS[family_of(name)], query
        for left, right in ("()", "[]", "{}"):
            assert query.count(left) == query.count(right), query
        if "histogram_quantile" in query:
            assert all(name.endswith("_bucket") for name in names), query
            assert "le" in query, query
        if re.search(r"\b(rate|increase)\(", query):
            assert all(name.endswith(("_total", "_bucket")) for name in names), query
    assert used == set(LABELS)


def test_legends_name_labels_that_are_left() -> None:
    """A label that a query has summed away would be an empty word."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            grouped = {label for part in re.findall(r"\bby \((.*?)\)", target["expr"]) for label in part.split(", ")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= grouped, target


def test_the_dashboard_can_be_imported() -> None:
    """What Grafana needs: a title, a schema it knows, panels with ids of their own that do not lie on each other."""
    assert DASHBOARD["title"]
    assert DASHBOARD["uid"]
    assert DASHBOARD["schemaVersion"] >= 36
    assert "id" not in DASHBOARD
    variables = {one["name"] for one in DASHBOARD["templating"]["list"]}
    said = json.dumps(DASHBOARD)
    known = {*variables, "__rate_interval", "__range", "__all"}
    assert set(re.findall(r"\$\{?(\w+)", said)) <= known
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["targets"], panel["title"]
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            refs = [target["refId"] for target in panel["targets"]]
            assert len(set(refs)) == len(refs)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_promtool_reads_queries_and_files(tmp_path: Path) -> None:
    """Where it is installed: it parses each query, the alerts, and the configuration."""

    def check(what: str, file: Path) -> None:
        command = ["promtool", "check", what, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    rules = []
    for number, query in enumerate(query for query in expressions() if "label_values" not in query):
        for variable, given in (("$__rate_interval", "5m"), ("$__range", "6h"), ("$agent_type", ".*")):
            query = query.replace(variable, given)
        rules.append({"record": f"checked:query:{number}", "expr": query})
    queries = tmp_path / "queries.yml"
    queries.write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}), encoding="utf-8")
    check("rules", queries)
    check("rules", EXAMPLES / "oao_alerts.yml")
    check("config", EXAMPLES / "prometheus.yml")
