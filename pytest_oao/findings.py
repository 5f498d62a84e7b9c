"""What is wrong with the recordings beside the tests: no test plays them, or they wait for a review."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from oao_harness.policy.project import shown
from pytest_oao.marker import recording_name
from pytest_oao.paths import SUFFIX, recording_path
from pytest_oao.settings import Settings

__all__ = ["findings_of", "is_selection"]


def is_selection(config: pytest.Config) -> bool:
    """Return True where the session was asked for some tests only: a recording of another test is no orphan then."""
    return any("::" in arg for arg in config.args) or bool(config.getoption("lf", default=False))


def findings_of(items: Iterable[pytest.Item], settings: Settings, *, whole: bool) -> dict[str, list[str]]:
    """Return `orphans` and `pending` of the folders beside the collected tests.

    Args:
        items: All tests that were collected.
        settings: Of the session.
        whole: True where they are all tests of their modules.
    """
    modules: dict[Path, set[Path]] = {}
    for item in items:
        folder = item.path.parent / settings.recordings
        if folder not in modules:
            modules[folder] = set()
        # Only where there are recordings: naming that of each test would cost every test something.
        if (folder / item.path.stem).is_dir():
            nodeid = str(settings.scrubber.scrub(item.nodeid))
            path = recording_path(item, recording_name(list(item.iter_markers("oao"))), settings.recordings, nodeid)
            modules[folder].add(path)
    orphans: list[Path] = []
    pending: list[Path] = []
    for folder, expected in modules.items():
        for module in sorted(folder.iterdir()) if folder.is_dir() else ():
            if not module.is_dir() or module.name == "blobs":
                continue
            pending += sorted(module.glob(f"*{SUFFIX}.new"))
            known = any(path.parent == module for path in expected)
            gone = not (folder.parent / f"{module.name}.py").exists()
            if whole and (known or gone):
                orphans += [path for path in sorted(module.glob(f"*{SUFFIX}")) if path not in expected]
    return {"orphans": [*map(shown, orphans)], "pending": [*map(shown, pending)]}
