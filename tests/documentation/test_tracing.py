"""Every block of docs/reference/tracing.md, in order, in one folder, with a collector that listens."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("opentelemetry.sdk")

from tests.console_pages import executed, play
from tests.listeners.collector import collecting, orphans, tree


def test_the_session_is_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands word for word, and the tree of spans is what the collector really got."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.delenv("OTEL_SEMCONV_STABILITY_OPT_IN", raising=False)
        assert play("reference/tracing.md", tmp_path) == 2
    # The second session passes a listener of its own, which takes the place of the variable's.
    assert len(collector.named("orchestrator.run")) == 1
    assert orphans(collector.spans) == []
    page = executed("reference/tracing.md")
    shown = page.partition("What the collector got of it:")[2].split("```")[1].removeprefix("text\n")
    assert "\n".join(tree(collector.spans)) == shown.strip()
