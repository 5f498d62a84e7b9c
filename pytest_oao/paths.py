"""Where the recording of a test lives: `recordings/<module>/<Class.>test[param].oao.json` beside the test module."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Final

import pytest

__all__ = ["SUFFIX", "recording_path"]

SUFFIX: Final = ".oao.json"
# Leaves room for the suffix of a temporary file; 255 bytes is the common limit of a file name.
_LONGEST: Final = 150
_UNSAFE: Final = re.compile(r"[^\w\[\].,=+@ -]", re.ASCII)


def recording_path(item: pytest.Item, name: str | None = None, folder: str | Path = "recordings") -> Path:
    """Return the path of a test's recording.

    Args:
        item: The test.
        name: A name of the user's choice, instead of the test's.
        folder: Where recordings are, from the folder of the test module on.
    """
    return _folder(item.path, folder) / (_file_name(name or _test_name(item), item.nodeid) + SUFFIX)


@lru_cache(maxsize=64)
def _folder(module: Path, folder: str | Path) -> Path:
    """Return the folder of a module's recordings: made once for all of its tests, because most have no recording."""
    return module.parent / folder / module.stem


def _test_name(item: pytest.Item) -> str:
    """Return the part of the node id below the module, classes joined by dots."""
    return item.nodeid.partition("::")[2].replace("::", ".") or item.name


def _file_name(name: str, nodeid: str) -> str:
    """Return a name that every file system takes; with a digest of the test where making it safe lost something.

    Parameters that differ in case only would share a file where case is ignored: upper case counts as a loss too.
    """
    safe = _UNSAFE.sub("-", name)[:_LONGEST].strip(". ")
    parameters = name.partition("[")[2]
    if safe == name and parameters == parameters.lower():
        return safe
    test = nodeid.rpartition("/")[2]
    return f"{safe}-{hashlib.blake2b(test.encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"
