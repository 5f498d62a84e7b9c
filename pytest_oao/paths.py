"""Where the recording of a test lives: `recordings/<module>/<Class.>test[param].oao.json` beside the test module."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from oao_harness.journal.places import recording_place

__all__ = ["SUFFIX", "recording_path"]

SUFFIX: Final = ".oao.json"


def recording_path(
    item: pytest.Item, name: str | None = None, folder: str | Path = "recordings", nodeid: str | None = None
) -> Path:
    """Return the path of a test's recording.

    Args:
        item: The test.
        name: A name of the user's choice, instead of the test's.
        folder: Where recordings are, from the folder of the test module on.
        nodeid: The test's id as files may hold it: parameters may be secrets. As pytest has it by default.
    """
    return recording_place(item.path, nodeid or item.nodeid, name, folder)
